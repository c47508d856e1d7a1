package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// Info is what a file or folder holds, without loading it.
type Info struct {
	Path string `json:"path"`
	// Kind is "safetensors", "gguf", "model folder" or "adapter folder".
	Kind         string   `json:"kind"`
	ModelType    string   `json:"model_type,omitempty"`
	Architecture string   `json:"architecture,omitempty"`
	Files        []string `json:"files,omitempty"`
	Parameters   int64    `json:"parameters"`
	// Bytes of the tensors.
	Bytes int64 `json:"bytes"`
	// Types sums up the tensors by element type.
	Types    map[string]TypeInfo `json:"types"`
	Tensors  []TensorInfo        `json:"tensors"`
	Metadata map[string]any      `json:"metadata,omitempty"`
	Config   json.RawMessage     `json:"config,omitempty"`
}

// TypeInfo sums up the tensors of one element type.
type TypeInfo struct {
	Tensors    int   `json:"tensors"`
	Parameters int64 `json:"parameters"`
	Bytes      int64 `json:"bytes"`
}

// TensorInfo is a line of the table of tensors.
type TensorInfo struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
	Bytes int    `json:"bytes"`
}

// Inspect describes a .safetensors or .gguf file, a model folder or an adapter folder.
func Inspect(path string) (*Info, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		f, err := OpenFolder(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return f.Inspect()
	}
	head := make([]byte, 4)
	if file, err := os.Open(path); err == nil {
		n, _ := file.Read(head) // an unreadable file gives its error below
		head = head[:n]
		file.Close()
	}
	if string(head) == ggufMagic {
		g, err := OpenGGUF(path)
		if err != nil {
			return nil, err
		}
		defer g.Close()
		return g.Inspect(), nil
	}
	if strings.HasSuffix(path, ".bin") || strings.HasSuffix(path, ".pt") || strings.HasSuffix(path, ".pth") || strings.HasSuffix(path, ".ckpt") {
		return nil, pickleError(path)
	}
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case ext == ".gguf":
		return nil, fmt.Errorf("GGUF file %s: expected the magic %q, got %q", path, ggufMagic, head)
	case ext != ".safetensors" && !strings.Contains(string(head), "\x00"):
		return nil, fmt.Errorf("%s: expected a model folder, a safetensors or a GGUF file", path)
	}
	s, err := OpenSafetensors(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	i := &Info{Path: path, Kind: "safetensors"}
	i.addSafetensors(s)
	return i, nil
}

func (i *Info) add(t TensorInfo, n int) {
	if i.Types == nil {
		i.Types = map[string]TypeInfo{}
	}
	i.Tensors = append(i.Tensors, t)
	c := i.Types[t.Type]
	c.Tensors++
	c.Parameters += int64(n)
	c.Bytes += int64(t.Bytes)
	i.Types[t.Type] = c
	i.Parameters += int64(n)
	i.Bytes += int64(t.Bytes)
}

func (i *Info) addSafetensors(s *Safetensors) {
	for _, name := range s.names {
		e := s.entries[name]
		// Types that cannot be loaded are listed all the same.
		t := TensorInfo{Name: name, Type: strings.ToLower(e.typ.name), Shape: e.shape, Bytes: e.end - e.begin}
		if sc, ok := s.entries[name+rowScalesSuffix]; ok && s.hidden[sc.name] {
			t.Type, t.Bytes = tensor.Q8Row.String(), t.Bytes+sc.end-sc.begin
		}
		i.add(t, tensor.Elements(e.shape))
	}
	for k, v := range s.metadata {
		if i.Metadata == nil {
			i.Metadata = map[string]any{}
		}
		i.Metadata[k] = v
	}
}

// Inspect describes an open folder.
func (f *Folder) Inspect() (*Info, error) {
	i := &Info{Path: f.dir, Kind: "model folder", Files: f.Files()}
	config, err := f.Config()
	if err != nil && f.Has(AdapterConfigFile) {
		i.Kind = "adapter folder"
		config, err = f.File(AdapterConfigFile)
	}
	switch {
	case err == nil:
		if !json.Valid(config) {
			return nil, fmt.Errorf("%s: the config is not valid JSON", f.dir)
		}
		i.Config = config
		var c struct {
			ModelType     string   `json:"model_type"`
			PeftType      string   `json:"peft_type"`
			Architectures []string `json:"architectures"`
		}
		// A config whose keys have other types still has tensors to show.
		_ = json.Unmarshal(config, &c)
		i.ModelType = c.ModelType
		if i.Kind == "adapter folder" {
			i.ModelType = c.PeftType
		}
		if len(c.Architectures) > 0 {
			i.Architecture = c.Architectures[0]
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if i.Kind == "adapter folder" {
		s, err := f.AdapterSource()
		if err != nil {
			return nil, err
		}
		i.addSafetensors(s)
		return i, nil
	}
	src, err := f.Source()
	if err != nil {
		return nil, err
	}
	switch s := src.(type) {
	case *Safetensors:
		i.addSafetensors(s)
	case *sharded:
		for _, file := range s.index.files {
			i.addSafetensors(s.files[file])
		}
	}
	return i, nil
}

// Inspect describes an open GGUF file. Long arrays of the metadata are given as their length.
func (g *GGUF) Inspect() *Info {
	i := &Info{Path: g.path, Kind: "gguf", Architecture: g.String("general.architecture"), Metadata: map[string]any{}}
	if f, err := g.family(); err == nil {
		i.ModelType = f.modelType
	}
	for _, k := range g.keys {
		v := g.values[k]
		if r := reflect.ValueOf(v); r.Kind() == reflect.Slice && r.Len() > 16 {
			v = fmt.Sprintf("%d × %s", r.Len(), r.Type().Elem())
		}
		if _, err := json.Marshal(v); err != nil { // NaN and infinities have no JSON
			v = fmt.Sprint(v)
		}
		i.Metadata[k] = v
	}
	for _, name := range g.names {
		t := g.tensors[name]
		i.add(TensorInfo{Name: name, Type: strings.ToLower(t.typeName), Shape: t.shape, Bytes: t.bytes}, elementsBounded(t.shape))
	}
	return i
}

// elementsBounded is the product of a shape that was never multiplied (a type that cannot be read), 0 when it overflows.
func elementsBounded(shape []int) int {
	n, ok := storageBytes(shape, 1)
	if !ok {
		return 0
	}
	return n
}
