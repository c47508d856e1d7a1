package harden

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/train"
)

// Embedding trains on worst-case changes of the word embeddings E (before positions, types and norm). A change is one matrix per example;
// its norm is taken over all tokens and dimensions of the example.
//
//	fgm          one step of length Epsilon along the gradient (Miyato et al., 2017), after an ordinary step
//	fgm-matrix   the same on the whole embedding table, as it is often written: table += Epsilon·G/‖G‖_F
//	fgsm         one step of Epsilon times the gradient's sign (Goodfellow et al., 2015)
//	pgd          Steps steps of length StepSize, projected on the ball of Radius (Madry et al., 2018), after an ordinary step
//	pgd-linf     the same in the largest norm, from a random start within Radius
//	freelb       Steps gradients averaged along the way, from a random start; no clean pass (Zhu et al., 2020)
type Embedding struct {
	Kind             string
	Epsilon          float64
	Steps            int
	StepSize, Radius float64
	InitMagnitude    float64
	// Relative takes Epsilon, StepSize, Radius and InitMagnitude as multiples of the size of the word embeddings of the batch: their mean
	// norm, or their root mean square where a change is measured per element (fgsm, pgd-linf). A fixed length that is right for one model
	// drowns another whose table is smaller.
	Relative bool
	// Ramp is the share of a run's steps over which these lengths grow from nothing to what is given: a model that has learnt nothing yet learns
	// nothing under full attack. Only with Relative; 0 is the full length at once.
	Ramp float64
	// Start, when not nil, gives the random start of pgd-linf and freelb: rows [tokens, cols] of draws, uniform on [-1, 1] before scaling
	// (freelb) or within Radius (pgd-linf). Tests inject it; nil draws from the step's seed.
	Start func(tokens, cols int) []float32
	// Observe, when not nil, sees the loss and the change of each pass.
	Observe func(pass string, loss float64, delta []float32)
}

// defaultRamp is the Ramp of methods that move embeddings.
const defaultRamp = 0.5

// ramp is the part of its full length that a change has at step index of a run of total steps. Runs of unknown length have it in full.
func ramp(share float64, index, total int) float64 {
	if share <= 0 || total <= 0 {
		return 1
	}
	return min(1, float64(index+1)/(share*float64(total)))
}

// NewEmbedding returns the method with settings relative to the model's own embeddings.
func NewEmbedding(kind string) (*Embedding, error) {
	switch kind {
	case "fgm", "fgm-matrix":
		return &Embedding{Kind: kind, Epsilon: 0.1, Relative: true, Ramp: defaultRamp}, nil
	case "fgsm": // over a text of 25 tokens as long as fgm's step
		return &Embedding{Kind: kind, Epsilon: 0.02, Relative: true, Ramp: defaultRamp}, nil
	case "pgd":
		return &Embedding{Kind: kind, Steps: 3, StepSize: 0.05, Radius: 0.1, Relative: true, Ramp: defaultRamp}, nil
	case "pgd-linf":
		return &Embedding{Kind: kind, Steps: 3, StepSize: 0.01, Radius: 0.02, Relative: true, Ramp: defaultRamp}, nil
	case "freelb":
		return &Embedding{Kind: kind, Steps: 3, StepSize: 0.05, Radius: 0.15, InitMagnitude: 0.05, Relative: true, Ramp: defaultRamp}, nil
	}
	return nil, fmt.Errorf("method %q: expected fgm, fgm-matrix, fgsm, pgd, pgd-linf or freelb", kind)
}

// Micro implements train.Objective.
func (m *Embedding) Micro(ctx context.Context, s *train.Step) (float64, error) {
	if m.Relative {
		f := embeddingNorm(s)
		if m.Kind == "fgsm" || m.Kind == "pgd-linf" {
			f /= math.Sqrt(float64(max(1, width(s.Model))))
		}
		f *= ramp(m.Ramp, s.Index, s.Total)
		own := *m
		own.Relative = false
		own.Epsilon, own.StepSize, own.Radius, own.InitMagnitude = f*m.Epsilon, f*m.StepSize, f*m.Radius, f*m.InitMagnitude
		return own.Micro(ctx, s)
	}
	p := newPasses(s, s.Examples)
	if p.cols == 0 {
		return 0, fmt.Errorf("%s: the model has no word-embedding table", m.Kind)
	}
	switch m.Kind {
	case "fgm", "fgsm":
		loss, g, err := p.run("clean", nil, true)
		if err != nil {
			return 0, err
		}
		delta := g
		m.observe("gradient", loss, g)
		if m.Kind == "fgm" {
			p.normalise(delta, m.Epsilon)
		} else {
			signs(delta, m.Epsilon)
		}
		m.observe("clean", loss, delta)
		adv, _, err := p.run("adversarial", delta, true)
		m.observe("adversarial", adv, delta)
		return loss, err
	case "fgm-matrix":
		return m.matrix(p)
	case "pgd", "pgd-linf":
		loss, _, err := p.run("clean", nil, true)
		if err != nil {
			return 0, err
		}
		delta := p.zeros()
		if m.Kind == "pgd-linf" {
			copy(delta, m.start(s, p.tokens, p.cols, m.Radius))
		}
		for k := range m.Steps {
			l, g, err := p.run("search", delta, false)
			if err != nil {
				return 0, err
			}
			m.observe(fmt.Sprintf("%d", k), l, delta)
			if m.Kind == "pgd" {
				p.normalise(g, m.StepSize)
				add(delta, g)
				p.project(delta, m.Radius)
			} else {
				signs(g, m.StepSize)
				add(delta, g)
				clamp(delta, m.Radius)
			}
		}
		adv, _, err := p.run("adversarial", delta, true)
		m.observe("adversarial", adv, delta)
		return loss, err
	case "freelb":
		delta := p.zeros()
		copy(delta, m.start(s, p.tokens, p.cols, 1))
		for i := range p.sequences() {
			from, to := p.span(i)
			f := float32(m.InitMagnitude / math.Sqrt(float64(to-from)))
			for j := from; j < to; j++ {
				delta[j] *= f
			}
		}
		var loss float64
		p.weight = s.Weight * float64(m.Steps) // each pass counts one part in Steps
		for k := range m.Steps {
			l, g, err := p.run("step", delta, true)
			if err != nil {
				return 0, err
			}
			m.observe(fmt.Sprintf("%d", k), l*float64(m.Steps), delta)
			loss += l
			if k == m.Steps-1 {
				break
			}
			p.normalise(g, m.StepSize)
			add(delta, g)
			p.project(delta, m.Radius)
		}
		return loss, nil
	}
	return 0, fmt.Errorf("adversarial method %q is not known", m.Kind)
}

func (m *Embedding) observe(pass string, loss float64, delta []float32) {
	if m.Observe != nil {
		m.Observe(pass, loss, delta)
	}
}

// embeddingNorm is the mean norm of the word embeddings of a step's tokens: a function of the weights and the batch alone, so that a resumed
// run goes on as an unbroken one.
func embeddingNorm(s *train.Step) float64 {
	table := wordTable(s.Model)
	if table == nil {
		return 1
	}
	v, cols := table.Values(), table.T.Cols()
	sum, n := 0.0, 0
	for _, e := range s.Examples {
		for _, id := range e.IDs {
			if at := int(id) * cols; id >= 0 && at+cols <= len(v) {
				sum += math.Sqrt(s.K.SumSquares(v[at : at+cols]))
				n++
			}
		}
	}
	if n == 0 || sum == 0 {
		return 1
	}
	return sum / float64(n)
}

// matrix is fgm on the embedding table itself: the parameter is moved for the second pass and put back, bit for bit.
func (m *Embedding) matrix(p *passes) (float64, error) {
	table := wordTable(p.step.Model)
	if table == nil || !table.Trainable() {
		return 0, fmt.Errorf("fgm-matrix needs a trainable word-embedding table; use fgm with adapters or frozen embeddings")
	}
	before := make([]float32, len(table.Grad)) // of earlier micro-batches
	copy(before, table.Grad)
	clear(table.Grad)
	loss, _, err := p.run("clean", nil, true)
	if err != nil {
		return 0, err
	}
	norm := math.Sqrt(p.step.K.SumSquares(table.Grad))
	v := table.Values()
	was := make([]float32, len(v))
	copy(was, v)
	r := make([]float32, len(v))
	if norm > 0 {
		for i, g := range table.Grad {
			r[i] = float32(m.Epsilon * (float64(g) / norm))
			v[i] += r[i]
		}
	}
	m.observe("clean", loss, r)
	adv, _, err := p.run("adversarial", nil, true)
	copy(v, was)
	add(table.Grad, before)
	m.observe("adversarial", adv, nil)
	return loss, err
}

func wordTable(m model.Model) *grad.Param {
	if w, ok := m.(interface{ Base() model.Model }); ok {
		m = w.Base()
	}
	for _, p := range m.Params() {
		for _, suffix := range []string{"embeddings.word_embeddings.weight", "embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "embed_in.weight"} {
			if len(p.Name) >= len(suffix) && p.Name[len(p.Name)-len(suffix):] == suffix {
				return p
			}
		}
	}
	return nil
}

// width is the number of columns of the word embeddings.
func width(m model.Model) int {
	if t := wordTable(m); t != nil {
		return t.T.Cols()
	}
	return 0
}

func (m *Embedding) start(s *train.Step, tokens, cols int, radius float64) []float32 {
	if m.Start != nil {
		return m.Start(tokens, cols)
	}
	r := rand.New(rand.NewPCG(s.Seed, 0x5747))
	v := make([]float32, tokens*cols)
	for i := range v {
		v[i] = float32((2*r.Float64() - 1) * radius)
	}
	return v
}

// passes runs one micro-batch several times with different changes of its word embeddings. Memory of a pass is given back after it.
type passes struct {
	step     *train.Step
	examples []train.Example
	batch    *model.Batch
	weight   float64
	tokens   int
	cols     int
	n        int
	params   []*grad.Param
}

func newPasses(s *train.Step, examples []train.Example) *passes {
	b := s.Pack(examples)
	return &passes{step: s, examples: examples, batch: b, weight: s.Weight, tokens: len(b.IDs), cols: width(s.Model)}
}

func (p *passes) sequences() int { return p.batch.Sequences() }

// span is the range of a change that belongs to example i.
func (p *passes) span(i int) (from, to int) {
	return int(p.batch.Offsets[i]) * p.cols, int(p.batch.Offsets[i+1]) * p.cols
}

func (p *passes) zeros() []float32 { return make([]float32, p.tokens*p.cols) }

// run does a forward and a backward with E + delta (delta is constant) and returns the loss and its gradient with respect to E, in the arena. keep
// says whether the gradients of the parameters count; otherwise they are left as they were.
func (p *passes) run(_ string, delta []float32, keep bool) (float64, []float32, error) {
	s := p.step
	if p.n > 0 {
		s.Passes++
	}
	p.n++
	var held [][]float32
	if !keep {
		held = p.hold()
		defer p.release(held)
	}
	g := s.Arena.Alloc(p.tokens * p.cols) // for as long as the step
	mark := s.Arena.Mark()
	defer s.Arena.Release(mark)
	c := s.Record(s.Seed)
	var e *grad.Value
	b := *p.batch
	b.Want |= s.Want
	b.Perturb = func(c *grad.Ctx, in *grad.Value) *grad.Value {
		e = in
		if !e.Needs() { // a frozen table: the gradient stops at its output
			e = c.Input(in.Data, in.Rows, in.Cols, true)
		}
		if delta == nil {
			return e
		}
		return c.Add(e, c.Input(delta, in.Rows, in.Cols, false))
	}
	out, err := s.Model.Forward(c, &b)
	if err != nil {
		return 0, nil, err
	}
	z := out.Logits
	dz := s.Arena.Alloc(len(z.Data))
	clear(dz)
	loss := s.Loss.Sum(z.Data, z.Rows, z.Cols, train.TargetsOf(p.examples), p.weight, dz)
	if s.Extra != nil {
		loss += s.Extra(c, out, dz)
	}
	c.Backward(z, dz)
	if e.Grad == nil { // nothing flows down to the embeddings
		clear(g)
	}
	copy(g, e.Grad)
	return loss, g, nil
}

// hold sets the gradients of the trainable parameters aside and freezes them for a search pass, which then costs no more than it must.
func (p *passes) hold() [][]float32 {
	if p.params == nil {
		p.params = trainable(p.step.Model)
	}
	out := make([][]float32, len(p.params))
	for i, q := range p.params {
		out[i], q.Grad = q.Grad, nil
	}
	return out
}

func (p *passes) release(held [][]float32) {
	for i, q := range p.params {
		q.Grad = held[i]
	}
}

func trainable(m model.Model) []*grad.Param {
	var out []*grad.Param
	for _, p := range m.Params() {
		if p.Trainable() {
			out = append(out, p)
		}
	}
	return out
}

// normalise scales the change of each example to length r; a zero gradient stays zero.
func (p *passes) normalise(g []float32, r float64) {
	for i := range p.sequences() {
		from, to := p.span(i)
		v := g[from:to]
		if n := math.Sqrt(p.step.K.SumSquares(v)); n > 0 {
			p.step.K.Scale(v, float32(r/n))
		}
	}
}

// project scales the change of each example back to length r where it is longer.
func (p *passes) project(d []float32, r float64) {
	for i := range p.sequences() {
		from, to := p.span(i)
		v := d[from:to]
		if n := math.Sqrt(p.step.K.SumSquares(v)); n > r {
			p.step.K.Scale(v, float32(r/n))
		}
	}
}

func add(dst, src []float32) {
	for i, v := range src {
		dst[i] += v
	}
}

func signs(g []float32, eps float64) {
	for i, v := range g {
		switch {
		case v > 0:
			g[i] = float32(eps)
		case v < 0:
			g[i] = float32(-eps)
		default:
			g[i] = 0
		}
	}
}

func clamp(v []float32, r float64) {
	for i, x := range v {
		v[i] = max(float32(-r), min(float32(r), x))
	}
}
