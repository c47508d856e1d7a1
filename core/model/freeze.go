package model

import (
	"fmt"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// TrainAll makes every parameter trainable.
func TrainAll(m Model) error {
	for _, p := range m.Params() {
		if err := p.Train(); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	return nil
}

// FreezeAll freezes every parameter.
func FreezeAll(m Model) {
	for _, p := range m.Params() {
		p.Freeze()
	}
}

// FreezeLayers freezes the embeddings and the first n blocks; what is above keeps its state. Blocks that share parameters (ALBERT) count
// as the first of them.
func FreezeLayers(m Model, n int) error {
	for _, p := range m.Params() {
		at, err := LayerOf(m, p)
		if err != nil {
			return err
		}
		if at < n {
			p.Freeze()
		}
	}
	return nil
}

// LayerOf tells where a parameter belongs: −1 the embeddings, then the number of its block, Config.Layers for what comes after.
func LayerOf(m Model, p *grad.Param) (int, error) {
	n, ok := m.(*net)
	if !ok {
		return 0, fmt.Errorf("layers: %T does not tell which layer a parameter belongs to", m)
	}
	for i, q := range n.params {
		if p == q {
			return n.layers[i], nil
		}
	}
	return 0, fmt.Errorf("layers: %s is not a parameter of this model", p.Name)
}

// IsHead reports whether a parameter belongs to what comes after the blocks: pooler, final norm, head.
func IsHead(m Model, p *grad.Param) bool {
	at, err := LayerOf(m, p)
	return err == nil && at >= m.Config().Layers
}

// Tensors lists the parameters as tensors to save.
func Tensors(m Model) []tensor.Tensor {
	out := make([]tensor.Tensor, 0, len(m.Params()))
	for _, p := range m.Params() {
		t := p.T
		t.Name = p.Name
		out = append(out, t)
	}
	return out
}

// Summary describes a model in numbers.
type Summary struct {
	Family    string `json:"family"`
	Head      Head   `json:"head"`
	Layers    int    `json:"layers"`
	Hidden    int    `json:"hidden"`
	Heads     int    `json:"heads"`
	KVHeads   int    `json:"kv_heads"`
	Vocab     int    `json:"vocabulary"`
	Length    int    `json:"max_positions"`
	Labels    int    `json:"labels,omitempty"`
	Params    int    `json:"total_parameters"`
	Trainable int    `json:"trainable_parameters"`
	Bytes     int    `json:"bytes"` // as stored
}

// Describe counts a model's parameters.
func Describe(m Model) Summary {
	c := m.Config()
	s := Summary{Family: c.ModelType, Head: c.Head, Layers: c.Layers, Hidden: c.Hidden, Heads: c.Heads, KVHeads: c.KVHeads,
		Vocab: c.Vocab, Length: c.MaxPositions}
	if c.Head == HeadSequence || c.Head == HeadToken {
		s.Labels = len(c.Labels)
	}
	for _, p := range m.Params() {
		n := p.T.Len()
		s.Params += n
		s.Bytes += len(p.T.Data) + 4*len(p.T.Scales)
		if p.Trainable() {
			s.Trainable += n
		}
	}
	return s
}
