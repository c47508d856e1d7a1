package peft

import (
	"errors"
	"math/rand/v2"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// bottleneck adds a small network after a layer, before its residual: y + up(gelu(down(y))). Houlsby et al., 2019, "Parameter-Efficient
// Transfer Learning for NLP". The last layer starts at zero, so that a fresh adapter changes nothing. It is not linear and cannot be merged.
type bottleneck struct{ down, up dense }

func newBottleneck(cfg *Config, l *model.Linear, r *rand.Rand) *bottleneck {
	name := "base_model.model." + l.Name + ".adapter"
	o := &bottleneck{newDense(name+"_down", l.Out, cfg.Size, r), newDense(name+"_up", cfg.Size, l.Out, r)}
	fill(o.up.w, 0)
	fill(o.up.b, 0)
	return o
}

func (o *bottleneck) params() []*grad.Param {
	return []*grad.Param{o.down.w, o.down.b, o.up.w, o.up.b}
}

func (o *bottleneck) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	y := l.Base(c, x, act)
	h := c.Linear(y, o.down.w, o.down.b, backend.GELU, false)
	return c.Add(y, c.Linear(h, o.up.w, o.up.b, backend.None, false))
}

func (o *bottleneck) merge(*model.Linear, []float32, []float32) error {
	return errors.New("a bottleneck adapter is not linear and cannot be merged")
}
