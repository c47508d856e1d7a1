package peft

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// adalora is y = act(x·Wᵀ + b + s·((x·Aᵀ) ⊙ E)·Bᵀ): a low-rank update in the form of a singular value decomposition, whose values E are
// pruned by importance while training. Zhang et al., 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning".
type adalora struct {
	a, e, b *grad.Param // [r, In], [r, 1], [Out, r]
	scale   float32
	dropout float32
}

func newAdaLoRA(cfg *Config, l *model.Linear, r *rand.Rand) *adalora {
	name := "base_model.model." + l.Name
	n := cfg.InitR
	o := &adalora{
		a: newParam(name+".lora_A", n, l.In), e: newParam(name+".lora_E", n, 1), b: newParam(name+".lora_B", l.Out, n),
		scale: float32(cfg.Alpha / (float64(n) + 1e-5)), dropout: float32(cfg.Dropout),
	}
	normal(o.a, 0.02, r)
	normal(o.b, 0.02, r) // E is zero: a fresh adapter changes nothing
	return o
}

func (o *adalora) params() []*grad.Param { return []*grad.Param{o.a, o.b, o.e} }

func (o *adalora) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	n := o.e.T.Len()
	y := l.Base(c, x, backend.None)
	h := c.Linear(c.Dropout(x, o.dropout), o.a, nil, backend.None, false)
	h = c.MulRow(h, c.Scale(c.Reshape(c.Param(o.e), 1, n), o.scale))
	y = c.Add(y, c.Linear(h, o.b, nil, backend.None, false))
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

func (o *adalora) merge(l *model.Linear, w, _ []float32) error {
	n := o.e.T.Len()
	ae := slices.Clone(o.a.Values())
	for j, e := range o.e.Values() {
		for i := range l.In {
			ae[j*l.In+i] *= e
		}
	}
	addProduct(w, o.b.Values(), ae, l.Out, l.In, n, o.scale)
	return nil
}

// Regularise adds the gradient of the adapter's own loss term to its parameters and returns its value: AdaLoRA's orthogonality, the mean
// over every A and B of ‖A·Aᵀ − I‖_F and ‖Bᵀ·B − I‖_F, times orth_reg_weight. Other methods have none.
func (m *Model) Regularise() float64 {
	if m.cfg.Type != AdaLoRA || m.cfg.OrthWeight == 0 {
		return 0
	}
	var total float64
	f := m.cfg.OrthWeight / float64(2*len(m.layers))
	for _, l := range m.layers {
		o, ok := l.method.(*adalora)
		if !ok {
			continue
		}
		n := o.e.T.Len()
		total += f * orthogonal(o.a, n, l.linear.In, l.linear.In, 1, f)
		total += f * orthogonal(o.b, n, l.linear.Out, 1, n, f)
	}
	return total
}

// orthogonal returns ‖V·Vᵀ − I‖_F for n vectors of the given length, element k of vector i at i·step + k·stride, and adds f times its
// gradient 2·(V·Vᵀ − I)·V/‖·‖.
func orthogonal(p *grad.Param, n, length, step, stride int, f float64) float64 {
	v := p.Values()
	gram := make([]float64, n*n)
	var sq float64
	for i := range n {
		for j := range n {
			var s float64
			for k := range length {
				s += float64(v[i*step+k*stride]) * float64(v[j*step+k*stride])
			}
			if i == j {
				s--
			}
			gram[i*n+j] = s
			sq += s * s
		}
	}
	norm := math.Sqrt(sq)
	if norm == 0 || !p.Trainable() {
		return norm
	}
	for i := range n {
		for k := range length {
			var s float64
			for j := range n {
				s += gram[i*n+j] * float64(v[j*step+k*stride])
			}
			p.Grad[i*step+k*stride] += float32(2 * f * s / norm)
		}
	}
	return norm
}

// allocator prunes AdaLoRA's singular values: from the rank it starts with (init_r a layer) to target_r a layer on average, along a cubic
// schedule between tinit and total_step − tfinal (section 3.3). Importance is sensitivity |p·grad| smoothed over steps, times its
// smoothed variation.
type allocator struct {
	layers       []*adalora
	cfg          *Config
	ipt, unc     [][]float32 // per parameter of layers, in the order A, B, E
	beta1, beta2 float32
	first, last  int // budgets
}

// Budget returns what must run after each optimiser step of a run of the given length, and the tensors that it keeps between steps:
// AdaLoRA's rank allocation. Other methods have none.
func (m *Model) Budget(steps int) (func(step int) error, []tensor.Tensor) {
	if m.cfg.Type != AdaLoRA {
		return nil, nil
	}
	if m.cfg.TotalStep == 0 || m.cfg.TInit+m.cfg.TFinal >= m.cfg.TotalStep {
		m.cfg.TotalStep, m.cfg.TInit, m.cfg.TFinal = steps, steps/10, steps/3
	}
	s := &allocator{cfg: &m.cfg, beta1: float32(m.cfg.Beta1), beta2: float32(m.cfg.Beta2)}
	var keep []tensor.Tensor
	for _, l := range m.layers {
		o, ok := l.method.(*adalora)
		if !ok {
			continue
		}
		s.layers = append(s.layers, o)
		s.first += o.e.T.Len()
		s.last += m.cfg.TargetR
		for _, p := range []*grad.Param{o.a, o.b, o.e} {
			i, u := make([]float32, p.T.Len()), make([]float32, p.T.Len())
			s.ipt, s.unc = append(s.ipt, i), append(s.unc, u)
			keep = append(keep, tensor.FromF32("importance."+p.Name, i, len(i)), tensor.FromF32("uncertainty."+p.Name, u, len(u)))
		}
	}
	s.last = min(s.last, s.first)
	return s.after, keep
}

func (s *allocator) after(step int) error {
	c := s.cfg
	if step < c.TotalStep-c.TFinal {
		s.update()
	}
	budget, mask := s.last, true
	switch {
	case step <= c.TInit:
		return nil
	case step <= c.TotalStep-c.TFinal:
		f := 1 - float64(step-c.TInit)/float64(c.TotalStep-c.TFinal-c.TInit)
		budget = int(float64(s.first-s.last)*f*f*f + float64(s.last))
		mask = c.DeltaT <= 1 || step%c.DeltaT == 0
	}
	if !mask || budget >= s.first {
		return nil
	}
	return s.prune(budget)
}

func (s *allocator) update() {
	at := 0
	for _, o := range s.layers {
		for _, p := range []*grad.Param{o.a, o.b, o.e} {
			ipt, unc := s.ipt[at], s.unc[at]
			for i, v := range p.Values() {
				now := v * p.Grad[i]
				if now < 0 {
					now = -now
				}
				ipt[i] = s.beta1*ipt[i] + (1-s.beta1)*now
				d := now - ipt[i]
				if d < 0 {
					d = -d
				}
				unc[i] = s.beta2*unc[i] + (1-s.beta2)*d
			}
			at++
		}
	}
}

// prune zeroes the singular values of all but the budget most important triplets.
func (s *allocator) prune(budget int) error {
	var scores []float64
	for i, o := range s.layers {
		n := o.e.T.Len()
		score := func(part, k int) float64 { return float64(s.ipt[3*i+part][k]) * float64(s.unc[3*i+part][k]) }
		in, out := o.a.T.Cols(), o.b.T.Rows()
		for j := range n {
			var sa, sb float64
			for k := range in {
				sa += score(0, j*in+k)
			}
			for k := range out {
				sb += score(1, k*n+j)
			}
			scores = append(scores, score(2, j)+sa/float64(in)+sb/float64(out))
		}
	}
	if len(scores) != s.first {
		return fmt.Errorf("adalora: %d ranks, expected %d", len(scores), s.first)
	}
	sorted := slices.Clone(scores)
	slices.Sort(sorted)
	threshold := sorted[s.first-budget-1]
	at := 0
	for _, o := range s.layers {
		v := o.e.Values()
		for j := range v {
			if scores[at] <= threshold {
				v[j] = 0
			}
			at++
		}
		o.e.Changed()
	}
	return nil
}
