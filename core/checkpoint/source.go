// Package checkpoint reads and writes model files: safetensors (whole and sharded), Hugging Face folders, PEFT adapter folders and GGUF.
//
// Weights are views of mapped files where the system can map, so opening costs no more than reading the header, and a tensor that is
// never asked for is never read. Everything a file says about itself is checked before it is believed: a damaged or hostile file
// gives an error that names the file, what was expected and what came, never a panic, and takes memory bounded by the file's size.
// Pickle files are never read.
package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/temper-ml/temper/core/tensor"
)

// ErrNoTensor is wrapped by Source.Tensor for a name that the source does not hold.
var ErrNoTensor = errors.New("no such tensor")

// Source is a set of named tensors. Names are those of Hugging Face, in the order of the file. Data of the tensors may be mapped:
// it is read-only and valid until the source is closed.
type Source interface {
	Names() []string
	// Tensor returns the named tensor; an unknown name gives an error that wraps ErrNoTensor.
	Tensor(name string) (tensor.Tensor, error)
}

type memorySource struct {
	names   []string
	tensors map[string]tensor.Tensor
}

// FromTensors is a Source over tensors in memory, in the given order; a repeated name is an error.
func FromTensors(ts []tensor.Tensor) (Source, error) {
	m := memorySource{tensors: make(map[string]tensor.Tensor, len(ts))}
	for _, t := range ts {
		if _, ok := m.tensors[t.Name]; ok {
			return nil, fmt.Errorf("tensor %q is given twice", t.Name)
		}
		m.names = append(m.names, t.Name)
		m.tensors[t.Name] = t
	}
	return m, nil
}

func (m memorySource) Names() []string { return slices.Clone(m.names) }

func (m memorySource) Tensor(name string) (tensor.Tensor, error) {
	t, ok := m.tensors[name]
	if !ok {
		return t, fmt.Errorf("tensor %q: %w", name, ErrNoTensor)
	}
	return t, nil
}

// All reads every tensor of a source, in its order.
func All(s Source) ([]tensor.Tensor, error) {
	names := s.Names()
	out := make([]tensor.Tensor, 0, len(names))
	for _, name := range names {
		t, err := s.Tensor(name)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}
