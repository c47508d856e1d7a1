package checkpoint

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/temper-ml/temper/core/tensor"
)

// KV is a metadata entry of a GGUF file. Value is a number of any width, bool, string, or a slice of one of these.
type KV struct {
	Key   string
	Value any
}

// GGUFTensor is a tensor to be written. Data returns its bytes, which are asked for once, in order, and not kept: only one tensor needs to
// be in memory at a time.
type GGUFTensor struct {
	Name  string
	DType tensor.DType
	Shape []int // outermost first
	Data  func() ([]byte, error)
}

// WriteGGUF writes a GGUF v3 file through a temporary file in the same folder, so that path holds either its old content or the whole
// new one. general.architecture comes first whatever its place, as readers like it.
func WriteGGUF(path string, metadata []KV, tensors []GGUFTensor) error {
	return WriteFile(path, func(w io.Writer) error { return EncodeGGUF(w, metadata, tensors) })
}

// EncodeGGUF writes a GGUF v3 file to w.
func EncodeGGUF(w io.Writer, metadata []KV, tensors []GGUFTensor) error {
	var h bytes.Buffer
	le := binary.LittleEndian
	u32 := func(v uint32) { h.Write(le.AppendUint32(nil, v)) }
	u64 := func(v uint64) { h.Write(le.AppendUint64(nil, v)) }
	str := func(s string) { u64(uint64(len(s))); h.WriteString(s) }
	h.WriteString(ggufMagic)
	u32(ggufVersion)
	u64(uint64(len(tensors)))
	u64(uint64(len(metadata)))
	align := ggufDefaultAlignment
	seen := map[string]bool{}
	put := func(kv KV) error {
		if kv.Key == "" || seen[kv.Key] {
			return fmt.Errorf("key %q is empty or given twice", kv.Key)
		}
		seen[kv.Key] = true
		if kv.Key == "general.alignment" {
			a, ok := kv.Value.(uint32)
			if !ok || a == 0 || a&(a-1) != 0 {
				return fmt.Errorf("general.alignment: expected a power of two as uint32, got %v", kv.Value)
			}
			align = int(a)
		}
		str(kv.Key)
		if err := putGGUFValue(&h, kv.Value); err != nil {
			return fmt.Errorf("key %q: %w", kv.Key, err)
		}
		return nil
	}
	const first = "general.architecture"
	for _, pass := range []bool{true, false} {
		for _, kv := range metadata {
			if (kv.Key == first) == pass {
				if err := put(kv); err != nil {
					return err
				}
			}
		}
	}
	padded := func(n int) int { return (n + align - 1) / align * align }
	at := 0
	sizes := make([]int, len(tensors))
	for i, t := range tensors {
		if t.Name == "" || seen["tensor "+t.Name] {
			return fmt.Errorf("tensor %q is empty or given twice", t.Name)
		}
		seen["tensor "+t.Name] = true
		kind, ok := ggmlTypeOf(t.DType)
		if !ok {
			return fmt.Errorf("tensor %q: GGUF cannot hold %s", t.Name, t.DType)
		}
		if len(t.Shape) > ggufMaxDims {
			return fmt.Errorf("tensor %q: %d dimensions, at most %d are allowed", t.Name, len(t.Shape), ggufMaxDims)
		}
		n, ok := storageBytes(t.Shape, 1)
		cols := tensor.Tensor{Shape: t.Shape}.Cols()
		if !ok || cols%t.DType.BlockLen() != 0 {
			return fmt.Errorf("tensor %q: shape %v is no whole blocks of %s (%d)", t.Name, t.Shape, t.DType, t.DType.BlockLen())
		}
		sizes[i] = t.DType.RowBytes(n)
		str(t.Name)
		u32(uint32(len(t.Shape)))
		for d := len(t.Shape) - 1; d >= 0; d-- {
			u64(uint64(t.Shape[d]))
		}
		u32(kind)
		u64(uint64(at))
		at = padded(at + sizes[i])
	}
	bw := bufio.NewWriterSize(w, 1<<20)
	bw.Write(h.Bytes())
	zeros := make([]byte, align)
	bw.Write(zeros[:padded(h.Len())-h.Len()])
	for i, t := range tensors {
		data, err := t.Data()
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if len(data) != sizes[i] {
			return fmt.Errorf("tensor %q: %s of shape %v needs %d bytes, got %d", t.Name, t.DType, t.Shape, sizes[i], len(data))
		}
		bw.Write(data)
		bw.Write(zeros[:padded(len(data))-len(data)])
	}
	return bw.Flush() // a bufio.Writer keeps its first error
}

func ggmlTypeOf(d tensor.DType) (uint32, bool) {
	for kind, t := range ggmlTypes {
		if t.dtype == d && d != tensor.Invalid {
			return kind, true
		}
	}
	return 0, false
}

// putGGUFValue writes the type of a value, then the value.
func putGGUFValue(h *bytes.Buffer, v any) error {
	le := binary.LittleEndian
	kind := func(k uint32) { h.Write(le.AppendUint32(nil, k)) }
	switch v := v.(type) {
	case string:
		kind(ggufString)
		h.Write(le.AppendUint64(nil, uint64(len(v))))
		h.WriteString(v)
	case []string:
		kind(ggufArray)
		kind(ggufString)
		h.Write(le.AppendUint64(nil, uint64(len(v))))
		for _, s := range v {
			h.Write(le.AppendUint64(nil, uint64(len(s))))
			h.WriteString(s)
		}
	case []any:
		kind(ggufArray)
		kind(ggufArray)
		h.Write(le.AppendUint64(nil, uint64(len(v))))
		for _, e := range v {
			at := h.Len()
			if err := putGGUFValue(h, e); err != nil {
				return err
			}
			// Elements carry no type of their own: cut it out, after checking that it is an array's.
			b := h.Bytes()[at:]
			if le.Uint32(b) != ggufArray {
				return fmt.Errorf("an array of arrays holds %T", e)
			}
			copy(b, b[4:])
			h.Truncate(h.Len() - 4)
		}
	case uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32, float64, bool:
		kind(ggufKindOf(v))
		return binary.Write(h, le, v)
	case []uint8, []int8, []uint16, []int16, []uint32, []int32, []uint64, []int64, []float32, []float64, []bool:
		kind(ggufArray)
		kind(ggufKindOf(v))
		n := binary.Size(v) / ggufSizeOf(v)
		h.Write(le.AppendUint64(nil, uint64(n)))
		return binary.Write(h, le, v)
	default:
		return fmt.Errorf("GGUF cannot hold a %T", v)
	}
	return nil
}

func ggufKindOf(v any) uint32 {
	switch v.(type) {
	case uint8, []uint8:
		return ggufU8
	case int8, []int8:
		return ggufI8
	case uint16, []uint16:
		return ggufU16
	case int16, []int16:
		return ggufI16
	case uint32, []uint32:
		return ggufU32
	case int32, []int32:
		return ggufI32
	case float32, []float32:
		return ggufF32
	case bool, []bool:
		return ggufBool
	case uint64, []uint64:
		return ggufU64
	case int64, []int64:
		return ggufI64
	case float64, []float64:
		return ggufF64
	}
	return math.MaxUint32
}

func ggufSizeOf(v any) int {
	switch ggufKindOf(v) {
	case ggufU8, ggufI8, ggufBool:
		return 1
	case ggufU16, ggufI16:
		return 2
	case ggufU32, ggufI32, ggufF32:
		return 4
	}
	return 8
}
