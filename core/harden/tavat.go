package harden

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/core/train"
)

// Tavat is token-aware virtual adversarial training (Li & Qiu, AAAI 2021): beside a change per example, as in FreeLB, every token of the
// vocabulary carries a change of its own from batch to batch, so that the words that matter start from where they were attacked last.
// The gradients of Steps passes are averaged.
//
// With η the tokens' part and δ the examples': η_i ← n_i·(η_i + α·g_i/‖g_i‖) per token, n_i = ‖η_i‖/max_j ‖η_j‖ over the example, and
// δ ← Π_{‖δ‖ ≤ Radius}(δ + α·g/‖g‖).
type Tavat struct {
	Steps int
	// StepSize, Radius and InitMagnitude are multiples of the mean norm of the batch's word embeddings.
	StepSize, Radius, InitMagnitude float64
	// Ramp is the share of a run's steps over which these grow from nothing, as in Embedding.
	Ramp    float64
	Observe func(step int, loss float64, delta []float32)

	vocab map[int32][]float32
}

// NewTavat returns the method with its default settings.
func NewTavat() *Tavat {
	return &Tavat{Steps: 2, StepSize: 0.05, Radius: 0.15, InitMagnitude: 0.05, Ramp: defaultRamp}
}

// Micro implements train.Objective.
func (m *Tavat) Micro(_ context.Context, s *train.Step) (float64, error) {
	p := newPasses(s, s.Examples)
	if p.cols == 0 {
		return 0, fmt.Errorf("tavat: the model has no word-embedding table")
	}
	norm := ramp(m.Ramp, s.Index, s.Total) * embeddingNorm(s)
	if m.vocab == nil {
		m.vocab = map[int32][]float32{}
	}
	r := rand.New(rand.NewPCG(s.Seed, 0x7a7a))
	draw := func(v []float32) {
		f := m.InitMagnitude * norm / math.Sqrt(float64(len(v)))
		for i := range v {
			v[i] = float32((2*r.Float64() - 1) * f)
		}
	}
	delta, eta := p.zeros(), p.zeros()
	for i := range p.sequences() {
		from, to := p.span(i)
		draw(delta[from:to])
	}
	for t, id := range p.batch.IDs {
		row := eta[t*p.cols : (t+1)*p.cols]
		if v, ok := m.vocab[id]; ok {
			copy(row, v)
		} else {
			draw(row)
		}
	}
	alpha := m.StepSize * norm
	sum := p.zeros()
	var loss float64
	p.weight = s.Weight * float64(m.Steps)
	for k := range m.Steps {
		copy(sum, delta)
		add(sum, eta)
		l, g, err := p.run("step", sum, true)
		if err != nil {
			return 0, err
		}
		loss += l
		if m.Observe != nil {
			m.Observe(k, l*float64(m.Steps), sum)
		}
		m.move(p, eta, g, alpha)
		p.normalise(g, alpha)
		add(delta, g)
		p.project(delta, m.Radius*norm)
	}
	for t, id := range p.batch.IDs { // of a token that occurs twice the last one stays
		m.vocab[id] = append(m.vocab[id][:0], eta[t*p.cols:(t+1)*p.cols]...)
	}
	return loss, nil
}

// move takes a step of every token's change along its own gradient and scales it by its share of the example's largest.
func (m *Tavat) move(p *passes, eta, g []float32, alpha float64) {
	k := p.step.K
	for i := range p.sequences() {
		from, to := int(p.batch.Offsets[i]), int(p.batch.Offsets[i+1])
		var top float64
		norms := make([]float64, to-from)
		for t := from; t < to; t++ {
			norms[t-from] = math.Sqrt(k.SumSquares(eta[t*p.cols : (t+1)*p.cols]))
			top = max(top, norms[t-from])
		}
		for t := from; t < to; t++ {
			row, d := eta[t*p.cols:(t+1)*p.cols], g[t*p.cols:(t+1)*p.cols]
			if n := math.Sqrt(k.SumSquares(d)); n > 0 {
				f := float32(alpha / n)
				for j, x := range d {
					row[j] += f * x
				}
			}
			if top > 0 {
				k.Scale(row, float32(norms[t-from]/top))
			}
		}
	}
}

// State implements train.Stateful.
func (m *Tavat) State() []byte {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(m.vocab); err != nil {
		panic(err) // plain data into memory
	}
	return b.Bytes()
}

// Restore implements train.Stateful.
func (m *Tavat) Restore(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	m.vocab = nil
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&m.vocab); err != nil {
		return fmt.Errorf("state of token-aware adversarial training: %w", err)
	}
	return nil
}
