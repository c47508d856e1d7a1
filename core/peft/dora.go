package peft

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// dora decomposes a weight into magnitude and direction: y = act(m/‖W + s·BA‖ ⊙ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ) + b), the norm per output row
// being a constant for gradients. Liu et al., 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", section 4.3.
type dora struct {
	*lora
	m *grad.Param // magnitude [Out]
}

func newDoRA(cfg *Config, l *model.Linear, r *rand.Rand) (*dora, error) {
	lo, err := newLoRA(cfg, l, r)
	if err != nil {
		return nil, err
	}
	if l.W.T.DType.Quantized() && l.Transposed {
		return nil, fmt.Errorf("dora over transposed %s weights is not possible", l.W.T.DType)
	}
	o := &dora{lora: lo, m: newParam("base_model.model."+l.Name+".lora_magnitude_vector", l.Out)}
	copy(o.m.Values(), o.norms(l)) // B is zero: the norm of W alone, and a fresh adapter changes nothing
	return o, nil
}

func (o *dora) params() []*grad.Param { return []*grad.Param{o.a, o.b, o.m} }

// norms are the L2 norms of the rows of W + s·BA.
func (o *dora) norms(l *model.Linear) []float32 {
	w := make([]float32, l.Out*l.In)
	turn(w, l.W.Values(), l.Transposed, l)
	addProduct(w, o.b.Values(), o.a.Values(), l.Out, l.In, o.r, o.scale)
	n := make([]float32, l.Out)
	for i := range n {
		var s float64
		for _, v := range w[i*l.In : (i+1)*l.In] {
			s += float64(v) * float64(v)
		}
		n[i] = float32(math.Sqrt(s))
	}
	return n
}

func (o *dora) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	inv := o.norms(l)
	for i, n := range inv {
		inv[i] = 1 / n
	}
	u := c.Linear(x, l.W, nil, backend.None, l.Transposed)
	o.add(c, l, x, u)
	y := c.MulRow(u, c.Mul(c.Param(o.m), c.Input(inv, 1, l.Out, false)))
	if l.B != nil {
		y = c.AddRow(y, c.Param(l.B))
	}
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

func (o *dora) merge(l *model.Linear, w, _ []float32) error {
	n := o.norms(l)
	addProduct(w, o.b.Values(), o.a.Values(), l.Out, l.In, o.r, o.scale)
	for i, m := range o.m.Values() {
		s := m / n[i]
		for j := range l.In {
			w[i*l.In+j] *= s
		}
	}
	return nil
}
