package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// shardIndex is model.safetensors.index.json: which file holds which tensor.
type shardIndex struct {
	names    []string // in the order of the file
	fileOf   map[string]string
	files    []string // in order of first use
	metadata json.RawMessage
}

// parseIndex reads an index. File names must be plain names of safetensors files beside the index.
func parseIndex(b []byte) (*shardIndex, error) {
	var top struct {
		Metadata  json.RawMessage `json:"metadata"`
		WeightMap json.RawMessage `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, fmt.Errorf("bad JSON: %w", err)
	}
	if top.WeightMap == nil {
		return nil, errors.New(`"weight_map" is missing`)
	}
	x := &shardIndex{fileOf: map[string]string{}, metadata: top.Metadata}
	d := json.NewDecoder(bytes.NewReader(top.WeightMap))
	if err := expectDelim(d, '{'); err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	known := map[string]bool{}
	for d.More() {
		name, err := stringToken(d)
		if err != nil {
			return nil, fmt.Errorf("weight_map: %w", err)
		}
		file, err := stringToken(d)
		if err != nil {
			return nil, fmt.Errorf("weight_map: tensor %q: %w", name, err)
		}
		if _, ok := x.fileOf[name]; ok {
			return nil, fmt.Errorf("weight_map: tensor %q is given twice", name)
		}
		if file != path.Base(file) || strings.ContainsAny(file, `/\`) || !strings.HasSuffix(file, ".safetensors") {
			return nil, fmt.Errorf("weight_map: tensor %q: %q is not the name of a safetensors file in this folder", name, file)
		}
		if !known[file] {
			known[file] = true
			x.files = append(x.files, file)
		}
		x.names = append(x.names, name)
		x.fileOf[name] = file
	}
	if err := expectDelim(d, '}'); err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	if len(x.names) == 0 {
		return nil, errors.New("weight_map names no tensor")
	}
	return x, nil
}

// sharded is a Source over the files of an index. All files are open: a missing shard or tensor shows when the model is opened.
type sharded struct {
	index *shardIndex
	files map[string]*Safetensors
}

// newSharded opens every file of the index and checks that it holds what the index says.
func newSharded(x *shardIndex, open func(name string) (*Safetensors, error)) (*sharded, error) {
	s := &sharded{index: x, files: map[string]*Safetensors{}}
	for _, file := range x.files {
		f, err := open(file)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.files[file] = f
	}
	for _, name := range x.names {
		file := x.fileOf[name]
		if _, ok := s.files[file].entries[name]; !ok {
			s.Close()
			return nil, fmt.Errorf("the index places tensor %q in %s, which does not hold it", name, file)
		}
	}
	// Scales of int8 rows come with their tensors.
	x.names = slices.DeleteFunc(x.names, func(n string) bool { return s.files[x.fileOf[n]].hidden[n] })
	return s, nil
}

func (s *sharded) Names() []string { return slices.Clone(s.index.names) }

func (s *sharded) Tensor(name string) (tensor.Tensor, error) {
	file, ok := s.index.fileOf[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("tensor %q: %w in the %d files of the index", name, ErrNoTensor, len(s.files))
	}
	return s.files[file].Tensor(name)
}

func (s *sharded) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
