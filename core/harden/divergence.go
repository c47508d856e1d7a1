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

// Smooth trains the model to say the same nearby: the ordinary loss plus Weight times a divergence D between its predictions and those at
// a disturbed point. D(a, b) is the mean over examples of KL(a‖b) + KL(b‖a) of the softmaxes.
//
//	smart   one gradient ascent step of D from a small normal draw, scaled per token to Radius in the largest norm (Jiang et al., 2020)
//	vat     the same with one power iteration and an L2 ball per example (Miyato et al., 2018); the clean prediction is a constant
//	r-drop  no disturbance but dropout: two passes with different masks, both trained (Wu et al., 2021)
type Smooth struct {
	Kind             string
	Weight           float64
	NoiseStd         float64
	StepSize, Radius float64
	// Start, when not nil, gives the standard normal draws [tokens, cols].
	Start   func(tokens, cols int) []float32
	Observe func(pass string, loss float64, delta []float32)
}

// NewSmooth returns the method with its default settings.
func NewSmooth(kind string) (*Smooth, error) {
	switch kind {
	case "smart":
		return &Smooth{Kind: kind, Weight: 1, NoiseStd: 1e-3, StepSize: 1, Radius: 0.01}, nil
	case "vat":
		return &Smooth{Kind: kind, Weight: 1, NoiseStd: 1e-3, Radius: 0.5}, nil
	case "r-drop":
		return &Smooth{Kind: kind, Weight: 1}, nil
	}
	return nil, fmt.Errorf("method %q: expected smart, vat or r-drop", kind)
}

// Micro implements train.Objective.
func (m *Smooth) Micro(_ context.Context, s *train.Step) (float64, error) {
	if m.Kind == "r-drop" {
		return m.rdrop(s)
	}
	p := newPasses(s, s.Examples)
	if p.cols == 0 {
		return 0, fmt.Errorf("%s: the model has no word-embedding table", m.Kind)
	}
	share := float64(len(s.Examples)) / s.Weight // this micro-batch's part of the mean over the batch
	n := m.start(s, p.tokens, p.cols)
	for i := range n {
		n[i] *= float32(m.NoiseStd)
	}
	m.observe("noise", 0, n)

	// The clean logits, once without a tape: they are a constant while the disturbance is sought.
	clean, err := p.logits()
	if err != nil {
		return 0, err
	}
	cols := len(clean) / len(s.Examples)
	held := p.hold()
	d, g, err := p.divergence(n, clean, cols, share)
	p.release(held)
	if err != nil {
		return 0, err
	}
	m.observe("inner", d, g)
	if m.Kind == "vat" {
		copy(n, g)
		p.normalise(n, m.Radius)
	} else {
		for i := range n {
			n[i] += float32(m.StepSize) * g[i]
		}
		for t := range p.tokens { // per token: v·Radius/(max|v| + 1e-6)
			row := n[t*p.cols : (t+1)*p.cols]
			var top float32
			for _, v := range row {
				top = max(top, float32(math.Abs(float64(v))))
			}
			f := float32(m.Radius) / (top + 1e-6)
			for i := range row {
				row[i] *= f
			}
		}
	}
	m.observe("noise", 0, n)

	// One batch holds each example twice, clean and disturbed, so that both receive gradients from one tape.
	twice := append(append([]train.Example(nil), s.Examples...), s.Examples...)
	b := s.Pack(twice)
	delta := make([]float32, len(b.IDs)*p.cols)
	copy(delta[p.tokens*p.cols:], n)
	s.Passes += 3
	b.Perturb = func(c *grad.Ctx, in *grad.Value) *grad.Value {
		return c.Add(in, c.Input(delta, in.Rows, in.Cols, false))
	}
	return m.pair(s, b, len(s.Examples), m.Kind == "vat", share)
}

func (m *Smooth) rdrop(s *train.Step) (float64, error) {
	twice := append(append([]train.Example(nil), s.Examples...), s.Examples...)
	s.Passes++
	// Both halves are trained on the labels, each by half.
	c := s.Record(s.Seed)
	out, err := s.Model.Forward(c, s.Pack(twice))
	if err != nil {
		return 0, err
	}
	z := out.Logits
	half := len(z.Data) / 2
	dz := s.Arena.Alloc(len(z.Data))
	clear(dz)
	loss := s.Loss.Sum(z.Data, z.Rows, z.Cols, train.TargetsOf(twice), 2*s.Weight, dz)
	share := float64(len(s.Examples)) / s.Weight
	d := symmetricKL(z.Data[:half], z.Data[half:], z.Cols, dz[:half], dz[half:], m.Weight*share/2)
	c.Backward(z, dz)
	return loss + m.Weight*share/2*d, nil
}

// pair does the forward and backward of a batch whose second half are disturbed copies of the first n examples.
func (m *Smooth) pair(s *train.Step, b *model.Batch, n int, constant bool, share float64) (float64, error) {
	c := s.Record(s.Seed)
	out, err := s.Model.Forward(c, b)
	if err != nil {
		return 0, err
	}
	z := out.Logits
	half := n * z.Cols
	dz := s.Arena.Alloc(len(z.Data))
	clear(dz)
	loss := s.Loss.Sum(z.Data[:half], n, z.Cols, train.TargetsOf(s.Examples), s.Weight, dz[:half])
	first := dz[:half]
	if constant {
		first = nil
	}
	d := symmetricKL(z.Data[half:], z.Data[:half], z.Cols, dz[half:], first, m.Weight*share)
	m.observe("regulariser", d, nil)
	m.observe("clean", loss, nil)
	c.Backward(z, dz)
	return loss + m.Weight*share*d, nil
}

func (m *Smooth) observe(pass string, loss float64, delta []float32) {
	if m.Observe != nil {
		m.Observe(pass, loss, delta)
	}
}

func (m *Smooth) start(s *train.Step, tokens, cols int) []float32 {
	if m.Start != nil {
		return m.Start(tokens, cols)
	}
	r := rand.New(rand.NewPCG(s.Seed, 0x5a47))
	v := make([]float32, tokens*cols)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// logits runs the plain batch without a tape, dropout off.
func (p *passes) logits() ([]float32, error) {
	s := p.step
	mark := s.Arena.Mark()
	defer s.Arena.Release(mark)
	out, err := s.Model.Forward(grad.Infer(s.K, s.Arena), p.batch)
	if err != nil {
		return nil, err
	}
	return append([]float32(nil), out.Logits.Data...), nil
}

// divergence returns D(f(E+delta), constant) and its gradient with respect to delta, for frozen parameters.
func (p *passes) divergence(delta, constant []float32, cols int, share float64) (float64, []float32, error) {
	s := p.step
	mark := s.Arena.Mark()
	defer s.Arena.Release(mark)
	c := grad.Record(s.K, s.Arena, false, s.Seed)
	var in *grad.Value
	b := *p.batch
	b.Perturb = func(c *grad.Ctx, e *grad.Value) *grad.Value {
		in = c.Input(delta, e.Rows, e.Cols, true)
		return c.Add(e, in)
	}
	out, err := s.Model.Forward(c, &b)
	if err != nil {
		return 0, nil, err
	}
	dz := s.Arena.Alloc(len(out.Logits.Data))
	clear(dz)
	d := symmetricKL(out.Logits.Data, constant, cols, dz, nil, share)
	c.Backward(out.Logits, dz)
	return d, append([]float32(nil), in.Grad...), nil
}

// symmetricKL returns the mean over rows of KL(a‖b) + KL(b‖a) of the softmaxes of logits a and b, and adds weight times its gradients to
// da and db (either may be nil).
func symmetricKL(a, b []float32, cols int, da, db []float32, weight float64) float64 {
	rows := len(a) / cols
	la, lb := make([]float64, cols), make([]float64, cols)
	var sum float64
	w := weight / float64(rows)
	for r := range rows {
		logSoftmax(la, a[r*cols:(r+1)*cols])
		logSoftmax(lb, b[r*cols:(r+1)*cols])
		var ab, ba float64
		for i := range la {
			ab += math.Exp(la[i]) * (la[i] - lb[i])
			ba += math.Exp(lb[i]) * (lb[i] - la[i])
		}
		sum += ab + ba
		for i := range la { // d KL(p‖q)/d(logits of p) = p·(log p − log q − KL); with respect to those of q: q − p
			p, q := math.Exp(la[i]), math.Exp(lb[i])
			if da != nil {
				da[r*cols+i] += float32(w * (p*(la[i]-lb[i]-ab) + p - q))
			}
			if db != nil {
				db[r*cols+i] += float32(w * (q*(lb[i]-la[i]-ba) + q - p))
			}
		}
	}
	return sum / float64(rows)
}

func logSoftmax(dst []float64, z []float32) {
	top := math.Inf(-1)
	for _, x := range z {
		top = max(top, float64(x))
	}
	var s float64
	for _, x := range z {
		s += math.Exp(float64(x) - top)
	}
	lse := top + math.Log(s)
	for i, x := range z {
		dst[i] = float64(x) - lse
	}
}
