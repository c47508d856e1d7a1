package peft

import (
	"fmt"
	"math/rand/v2"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// vera is y = act(x·Wᵀ + b + λb ⊙ B·(λd ⊙ A·x)) with random A [r, widest In] and B [widest Out, r] that all layers share and that stay as
// they are. Kopiczko et al., 2023, "VeRA: Vector-based Random Matrix Adaptation".
type vera struct {
	lb, ld *grad.Param // [Out], [r]
	shared *veraShared
}

type veraShared struct{ a, b *grad.Param }

func newVeRA(cfg *Config, l *model.Linear, s *veraShared) *vera {
	name := "base_model.model." + l.Name
	o := &vera{lb: newParam(name+".vera_lambda_b", l.Out), ld: newParam(name+".vera_lambda_d", cfg.R), shared: s}
	fill(o.ld, float32(cfg.DInitial)) // λb starts at zero: a fresh adapter changes nothing
	return o
}

// newVeRAShared draws the shared matrices for the widest of the layers.
func newVeRAShared(cfg *Config, layers []*model.Linear, r *rand.Rand) *veraShared {
	in, out := 0, 0
	for _, l := range layers {
		in, out = max(in, l.In), max(out, l.Out)
	}
	s := &veraShared{newParam("base_model.vera_A", cfg.R, in), newParam("base_model.vera_B", out, cfg.R)}
	kaiming(s.a, in, r)
	kaiming(s.b, cfg.R, r)
	return s
}

func (o *vera) params() []*grad.Param { return []*grad.Param{o.lb, o.ld} }

func (o *vera) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	r := o.ld.T.Len()
	a, b := o.shared.a, o.shared.b
	y := l.Base(c, x, backend.None)
	h := product(c, x, a.Values(), r, l.In, a.T.Cols())
	h = c.MulRow(h, c.Param(o.ld))
	h = product(c, h, b.Values(), l.Out, r, r)
	y = c.Add(y, c.MulRow(h, c.Param(o.lb)))
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

// product is x·Mᵀ for the first in columns of a constant matrix [out, stride].
func product(c *grad.Ctx, x *grad.Value, m []float32, out, in, stride int) *grad.Value {
	if x.Cols != in {
		panic(fmt.Sprintf("peft: product of %d columns with %d", x.Cols, in))
	}
	y := c.New(x.Rows, out)
	c.K.MatMul(backend.MatMulArgs{M: x.Rows, N: out, K: in, A: x.Data, LDA: in, B: m, LDB: stride, TransB: true, C: y.Data, LDC: out})
	return c.Op(y, func() {
		c.K.MatMul(backend.MatMulArgs{M: x.Rows, N: in, K: out, A: y.Grad, LDA: out, B: m, LDB: stride, C: c.GradOf(x), LDC: in, Accumulate: true})
	}, x)
}

func (o *vera) merge(l *model.Linear, w, _ []float32) error {
	r := o.ld.T.Len()
	a, b, lb, ld := o.shared.a.Values(), o.shared.b.Values(), o.lb.Values(), o.ld.Values()
	stride := o.shared.a.T.Cols()
	sum := make([]float64, l.In)
	for i := range l.Out {
		clear(sum)
		for j := range r {
			f := float64(lb[i]) * float64(b[i*r+j]) * float64(ld[j])
			for k := range l.In {
				sum[k] += f * float64(a[j*stride+k])
			}
		}
		for k, v := range sum {
			w[i*l.In+k] += float32(v)
		}
	}
	return nil
}
