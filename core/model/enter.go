package model

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// checkEnter checks a batch that enters the network above its embeddings, or leaves it before its end.
func (n *net) checkEnter(b *Batch) error {
	if b.Until < 0 || b.Until > n.depth || b.From < 0 || b.From > n.depth || b.Enter == nil && b.From != 0 {
		return fmt.Errorf("from block %d until %d: the model has %d", b.From, b.Until, n.depth)
	}
	if b.Enter == nil {
		return nil
	}
	if b.Enter.Rows != len(b.IDs) || b.Enter.Cols != n.cfg.Hidden {
		return fmt.Errorf("expected states of %dx%d, got %dx%d", len(b.IDs), n.cfg.Hidden, b.Enter.Rows, b.Enter.Cols)
	}
	if b.Until != 0 && b.Until < b.From {
		return fmt.Errorf("from block %d until %d: nothing to run", b.From, b.Until)
	}
	if b.Prefix != nil || b.Embeds != nil || b.Perturb != nil || b.Want&WantHidden != 0 {
		return fmt.Errorf("states that enter block %d go with no prefix, embeddings or hidden states", b.From)
	}
	if n.shares() {
		return fmt.Errorf("blocks of %s read more than the states before them", n.cfg.ModelType)
	}
	return nil
}

// shares reports whether blocks read what the embeddings have left beside the states.
func (n *net) shares() bool {
	e, ok := n.network.(*encoder)
	return n.together || ok && e.bias != nil
}

// FirstTrained is the number of the first block that gradients flow into: states before it do not change while m is trained, so that they may be
// computed once (Batch.Until) and entered again (Batch.Enter). It is Config.Layers when only what comes after the blocks is trained, and 0
// where states cannot be entered or nothing is to be gained.
func FirstTrained(k backend.Kernels, m Model) (int, error) {
	inner := m
	if w, ok := m.(interface{ Base() Model }); ok {
		inner = w.Base()
	}
	if n, ok := inner.(*net); !ok || n.shares() {
		return 0, nil
	}
	var arena grad.Arena
	out, err := m.Forward(grad.Record(k, &arena, false, 0), &Batch{IDs: []int32{0}, Offsets: []int32{0, 1}, Want: WantHidden})
	if err != nil {
		return 0, err
	}
	for i, x := range out.Layers {
		if x.Needs() {
			return max(0, i-1), nil
		}
	}
	return len(out.Layers) - 1, nil
}
