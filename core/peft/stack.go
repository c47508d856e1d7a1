package peft

import (
	"errors"
	"fmt"
)

// Stack is the sum of LoRA adapters over one base, an adapter for inference: a layer's products side by side, as peft's add_weighted_adapter makes
// them with "cat" and weights of 1. It starts switched off, and its parts must be off while it is on.
func Stack(parts ...*Model) (*Model, error) {
	if len(parts) == 0 {
		return nil, errors.New("stack: no adapters")
	}
	cfg, err := Default(LoRA)
	if err != nil {
		return nil, err
	}
	cfg.TaskType, cfg.BaseModel, cfg.ModulesToSave = parts[0].cfg.TaskType, parts[0].cfg.BaseModel, []string{}
	cfg.RankPattern, cfg.AlphaPattern = map[string]rank{}, map[string]float64{}
	m := &Model{base: parts[0].base, cfg: cfg}
	sums := map[string]*lora{} // by layer
	for i, p := range parts {
		switch {
		case p.base != m.base:
			return nil, fmt.Errorf("stack: adapter %d is over another base", i)
		case p.merged:
			return nil, fmt.Errorf("stack: adapter %d is merged; unmerge it first", i)
		case p.prompt != nil || len(p.saved) > 0 || len(p.tables) > 0:
			return nil, fmt.Errorf("stack: adapter %d (%s) changes more than linear layers: only LoRA adapters add up", i, p.cfg.Type)
		}
		for _, l := range p.layers {
			one, ok := l.method.(*lora)
			if !ok {
				return nil, fmt.Errorf("stack: adapter %d is no plain LoRA (%s): only those add up", i, p.cfg.Type)
			}
			sum := sums[l.linear.Name]
			if sum == nil {
				sum = &lora{a: newParam(one.a.Name, 0, l.linear.In), b: newParam(one.b.Name, l.linear.Out, 0), scale: 1}
				sums[l.linear.Name] = sum
				m.layers = append(m.layers, &layer{linear: l.linear, method: sum})
			}
			sum.beside(one, l.linear.In, l.linear.Out)
		}
	}
	for _, l := range m.layers {
		r := l.method.(*lora).r
		m.cfg.R, m.cfg.Alpha = r, float64(r)
		m.cfg.RankPattern[l.linear.Name], m.cfg.AlphaPattern[l.linear.Name] = rank{N: r}, float64(r)
		m.cfg.Targets.Names = append(m.cfg.Targets.Names, l.linear.Name)
	}
	m.Freeze()
	return m, nil
}

// beside puts x's rows under those of A and its columns, scaled, beside those of B.
func (o *lora) beside(x *lora, in, out int) {
	r := o.r + x.r
	a, b := newParam(o.a.Name, r, in), newParam(o.b.Name, out, r)
	copy(a.Values()[copy(a.Values(), o.a.Values()):], x.a.Values())
	to, ours, theirs := b.Values(), o.b.Values(), x.b.Values()
	for i := range out {
		row := to[i*r : (i+1)*r]
		copy(row, ours[i*o.r:(i+1)*o.r])
		for j := range x.r {
			row[o.r+j] = x.scale * theirs[i*x.r+j]
		}
	}
	o.a, o.b, o.r = a, b, r
}
