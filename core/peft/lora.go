package peft

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// lora is y = act(x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ) with A [r, In], B [Out, r], s = alpha/r, or alpha/sqrt(r) for rsLoRA.
// Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
type lora struct {
	a, b    *grad.Param
	r       int
	scale   float32
	dropout float32
}

func newLoRA(cfg *Config, l *model.Linear, r *rand.Rand) (*lora, error) {
	n := pattern(cfg.RankPattern, l.Name, rank{N: cfg.R}).N
	if n <= 0 {
		return nil, fmt.Errorf("rank %d: expected at least 1", n)
	}
	alpha := pattern(cfg.AlphaPattern, l.Name, cfg.Alpha)
	scale := alpha / float64(n)
	if cfg.RSLoRA {
		scale = alpha / math.Sqrt(float64(n))
	}
	name := "base_model.model." + l.Name
	o := &lora{
		a: newParam(name+".lora_A.weight", n, l.In), b: newParam(name+".lora_B.weight", l.Out, n),
		r: n, scale: float32(scale), dropout: float32(cfg.Dropout),
	}
	kaiming(o.a, l.In, r) // B stays zero: a fresh adapter changes nothing
	return o, nil
}

func (o *lora) params() []*grad.Param { return []*grad.Param{o.a, o.b} }

func (o *lora) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	y := l.Base(c, x, backend.None)
	o.add(c, l, x, y)
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

// add adds the low-rank product to y in place. That is safe on a tape: the backward of the linear layer below does not read y.
func (o *lora) add(c *grad.Ctx, l *model.Linear, x, y *grad.Value) {
	k := c.K
	rows, in, out, r := x.Rows, l.In, l.Out, o.r
	xd := c.Dropout(x, o.dropout)
	h := c.New(rows, r)
	k.MatMul(backend.MatMulArgs{M: rows, N: r, K: in, A: xd.Data, LDA: in, B: o.a.Values(), LDB: in, TransB: true, C: h.Data, LDC: r})
	k.MatMul(backend.MatMulArgs{M: rows, N: out, K: r, A: h.Data, LDA: r, B: o.b.Values(), LDB: r, TransB: true, C: y.Data, LDC: out,
		Accumulate: true, Alpha: o.scale})
	c.OpParam(y, func() {
		dy := y.Grad
		dh := c.Scratch(rows * r)
		k.MatMul(backend.MatMulArgs{M: rows, N: r, K: out, A: dy, LDA: out, B: o.b.Values(), LDB: r, C: dh, LDC: r, Alpha: o.scale})
		if o.b.Trainable() {
			k.MatMul(backend.MatMulArgs{M: out, N: r, K: rows, A: dy, LDA: out, TransA: true, B: h.Data, LDB: r, C: o.b.Grad, LDC: r,
				Accumulate: true, Alpha: o.scale})
		}
		if o.a.Trainable() {
			k.MatMul(backend.MatMulArgs{M: r, N: in, K: rows, A: dh, LDA: r, TransA: true, B: xd.Data, LDB: in, C: o.a.Grad, LDC: in,
				Accumulate: true})
		}
		if dx := c.GradOf(xd); dx != nil {
			k.MatMul(backend.MatMulArgs{M: rows, N: in, K: r, A: dh, LDA: r, B: o.a.Values(), LDB: in, C: dx, LDC: in, Accumulate: true})
		}
	}, o.a.Trainable() || o.b.Trainable(), xd)
}

func (o *lora) merge(l *model.Linear, w, _ []float32) error {
	addProduct(w, o.b.Values(), o.a.Values(), l.Out, l.In, o.r, o.scale)
	return nil
}

// addProduct adds s·B·A to w [out, in], accumulating in float64.
func addProduct(w, b, a []float32, out, in, r int, s float32) {
	sum := make([]float64, in)
	for o := range out {
		clear(sum)
		for j := range r {
			bj := float64(b[o*r+j])
			for i, v := range a[j*in : (j+1)*in] {
				sum[i] += bj * float64(v)
			}
		}
		for i, v := range sum {
			w[o*in+i] += float32(float64(s) * v)
		}
	}
}
