package checkpoint

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// WriteSafetensors writes the tensors to path through a temporary file in the same folder, so that path holds either its old content
// or the whole new one. Layout and header are byte for byte those of the reference implementation. tensor.Q8Row is written as
// an I8 tensor and an F32 tensor of scales beside it (name + "_scale"); other block types cannot be stored.
func WriteSafetensors(path string, tensors []tensor.Tensor, metadata map[string]string) error {
	return WriteFile(path, func(w io.Writer) error { return EncodeSafetensors(w, tensors, metadata) })
}

// EncodeSafetensors writes the tensors to w.
func EncodeSafetensors(w io.Writer, tensors []tensor.Tensor, metadata map[string]string) error {
	type entry struct {
		tensor.Tensor
		rank int // of its type: wide ones first, so that all are aligned
	}
	var entries []entry
	seen := map[string]bool{}
	add := func(t tensor.Tensor) error {
		if t.Name == metadataKey || seen[t.Name] {
			return fmt.Errorf("tensor %q: the name is reserved or given twice", t.Name)
		}
		seen[t.Name] = true
		rank := slices.IndexFunc(safetensorsTypes, func(s safetensorsType) bool { return s.dtype == t.DType })
		if t.DType == tensor.Invalid || rank < 0 {
			return fmt.Errorf("tensor %q: safetensors cannot hold %s", t.Name, t.DType)
		}
		n, ok := storageBytes(t.Shape, safetensorsTypes[rank].bytes)
		if !ok || n != len(t.Data) {
			return fmt.Errorf("tensor %q: %s of shape %v needs %d bytes, got %d", t.Name, t.DType, t.Shape, n, len(t.Data))
		}
		entries = append(entries, entry{t, rank})
		return nil
	}
	for _, t := range tensors {
		if t.DType != tensor.Q8Row {
			if err := add(t); err != nil {
				return err
			}
			continue
		}
		if len(t.Scales) != t.Rows() {
			return fmt.Errorf("tensor %q: %d scales for %d rows", t.Name, len(t.Scales), t.Rows())
		}
		if metadata[rowScalesKey] == "" {
			metadata = maps.Clone(metadata)
			if metadata == nil {
				metadata = map[string]string{}
			}
			metadata[rowScalesKey] = "1"
		}
		values := tensor.Tensor{Name: t.Name, DType: tensor.I8, Shape: t.Shape, Data: t.Data}
		scales := tensor.FromF32(t.Name+rowScalesSuffix, t.Scales, len(t.Scales), 1)
		if err := cmp.Or(add(values), add(scales)); err != nil {
			return err
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(-cmp.Compare(a.rank, b.rank), strings.Compare(a.Name, b.Name))
	})

	var h bytes.Buffer
	h.WriteByte('{')
	if metadata != nil {
		h.WriteString(`"` + metadataKey + `":{`)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				h.WriteByte(',')
			}
			h.WriteString(jsonString(k) + ":" + jsonString(metadata[k]))
		}
		h.WriteByte('}')
	}
	at := 0
	for i, e := range entries {
		if i > 0 || metadata != nil {
			h.WriteByte(',')
		}
		shape := strings.ReplaceAll(strings.Trim(fmt.Sprint(e.Shape), "[]"), " ", ",")
		fmt.Fprintf(&h, `%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}`, jsonString(e.Name), safetensorsTypes[e.rank].name, shape, at, at+len(e.Data))
		at += len(e.Data)
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	if h.Len() > maxSafetensorsHeader {
		return fmt.Errorf("header of %d bytes is above the limit of %d", h.Len(), maxSafetensorsHeader)
	}
	bw := bufio.NewWriterSize(w, 1<<20)
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(h.Len()))
	bw.Write(n[:])
	bw.Write(h.Bytes())
	for _, e := range entries {
		bw.Write(e.Data)
	}
	return bw.Flush() // a bufio.Writer keeps its first error
}

// jsonString quotes without escaping <, > and &, as the reference writes names.
func jsonString(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}
