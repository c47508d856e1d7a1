package harden

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"math"

	"github.com/temper-ml/temper/core/train"
)

// Free is free adversarial training (Shafahi et al., NeurIPS 2019): each batch is trained on Replays times in a row, and the gradient that
// trains the weights also moves the change of the embeddings for the next replay, so a step costs one pass. The change lives on from replay
// to replay and starts anew with a batch of other lengths (the paper carries it between images of one size).
//
// An optimiser step that replays takes the batch of the first one: of a pass over the data, one batch in Replays is seen. Train that many
// times as long to see all of it (the paper divides its epochs instead).
type Free struct {
	Replays int
	// Epsilon is the step, and the bound in the largest norm, as a share of the embeddings' root mean square.
	Epsilon float64
	// Ramp is the share of a run's steps over which Epsilon grows from nothing, as in Embedding.
	Ramp    float64
	Observe func(step int, loss float64, delta []float32)

	held []freeBatch
	at   int // the next micro-batch to play back
	step int // the optimiser step that the last call belonged to, −1 before the first
}

// freeBatch is a micro-batch that is played again, with the change that it has so far.
type freeBatch struct {
	Examples []train.Example
	Weight   float64
	Delta    []float32
}

// NewFree returns the method with its default settings.
func NewFree() *Free { return &Free{Replays: 3, Epsilon: 0.02, Ramp: defaultRamp, step: -1} }

// Micro implements train.Objective.
func (m *Free) Micro(_ context.Context, s *train.Step) (float64, error) {
	first := m.Replays <= 1 || s.Index%m.Replays == 0
	if s.Index != m.step {
		m.step, m.at = s.Index, 0
		if first {
			m.held = m.held[:0]
		}
	}
	if first || m.at >= len(m.held) {
		m.held = append(m.held[:m.at], freeBatch{Examples: s.Examples, Weight: s.Weight})
	}
	b := &m.held[m.at]
	m.at++
	t := *s
	t.Examples, t.Weight = b.Examples, b.Weight
	p := newPasses(&t, b.Examples)
	if p.cols == 0 {
		return 0, fmt.Errorf("free: the model has no word-embedding table")
	}
	if b.Delta == nil {
		b.Delta = p.zeros()
	}
	loss, g, err := p.run("free", b.Delta, true)
	if err != nil {
		return 0, err
	}
	s.Passes = t.Passes
	if m.Observe != nil {
		m.Observe(s.Index, loss, b.Delta)
	}
	began := s.Index - s.Index%max(1, m.Replays) // one bound for all replays of a batch
	eps := ramp(m.Ramp, began, s.Total) * m.Epsilon * embeddingNorm(&t) / math.Sqrt(float64(max(1, p.cols)))
	signs(g, eps)
	add(b.Delta, g)
	clamp(b.Delta, eps)
	return loss, nil
}

// freeState is what a checkpoint holds.
type freeState struct {
	Held     []freeBatch
	At, Step int
}

// State implements train.Stateful.
func (m *Free) State() []byte {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(freeState{m.held, m.at, m.step}); err != nil {
		panic(err) // plain data into memory
	}
	return b.Bytes()
}

// Restore implements train.Stateful.
func (m *Free) Restore(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	var s freeState
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return fmt.Errorf("state of free adversarial training: %w", err)
	}
	m.held, m.at, m.step = s.Held, s.At, s.Step
	return nil
}
