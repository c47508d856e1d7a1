package peft

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// ia3 rescales activations: the output of keys and values, the input of feed-forward layers. Liu et al., 2022, "Few-Shot Parameter-Efficient
// Fine-Tuning is Better and Cheaper than In-Context Learning".
type ia3 struct {
	l           *grad.Param // [1, In] for feed-forward layers, else [Out, 1]
	feedForward bool
}

func newIA3(cfg *Config, l *model.Linear) (*ia3, error) {
	ff, err := cfg.FeedForward.Match(l.Name)
	if err != nil {
		return nil, err
	}
	o := &ia3{feedForward: ff}
	if ff {
		o.l = newParam("base_model.model."+l.Name+".ia3_l", 1, l.In)
	} else {
		o.l = newParam("base_model.model."+l.Name+".ia3_l", l.Out, 1)
	}
	fill(o.l, 1)
	return o, nil
}

func (o *ia3) params() []*grad.Param { return []*grad.Param{o.l} }

func (o *ia3) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	s := c.Param(o.l)
	if o.feedForward {
		return l.Base(c, c.MulRow(x, s), act)
	}
	y := c.MulRow(l.Base(c, x, backend.None), c.Reshape(s, 1, l.Out))
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

func (o *ia3) merge(l *model.Linear, w, b []float32) error {
	s := o.l.Values()
	for i := range l.Out {
		for j := range l.In {
			if o.feedForward {
				w[i*l.In+j] *= s[j]
			} else {
				w[i*l.In+j] *= s[i]
			}
		}
		if b != nil && !o.feedForward {
			b[i] *= s[i]
		}
	}
	return nil
}
