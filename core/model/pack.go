package model

import "github.com/temper-ml/temper/backend"

// Pack packs the weights of m's blocks for k, which otherwise happens when each is first used: for callers that have something else to wait for
// meanwhile. It does nothing for networks whose weights mostly run as they are stored.
func Pack(m Model, k backend.Kernels) {
	n, ok := m.(*net)
	if !ok {
		return
	}
	e, ok := n.network.(*encoder)
	if !ok {
		return
	}
	for _, l := range e.blocks {
		list := []*Linear{l.q, l.k, l.v, l.o, l.up, l.down}
		if l.joined != nil && l.joined.Pack(k) {
			list = list[3:]
		}
		for _, l := range list {
			if !l.W.Trainable() && !l.Transposed && l.Adapter == nil {
				l.W.Packed(k)
			}
		}
	}
}
