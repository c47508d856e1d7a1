package grad

import "github.com/temper-ml/temper/backend"

// AttentionStored is Attention over keys and values that are stored: stored[i] for sequence i, which begins at its first key. It has no gradient.
func (c *Ctx) AttentionStored(q *Value, stored []backend.Stored, s AttentionSpec) *Value {
	if c.Recording() && q.Needs() {
		panic("grad.AttentionStored: no gradient flows through stored keys and values")
	}
	y := c.New(q.Rows, s.Heads*s.HeadDim)
	backend.AttendStored(c.K, backend.AttentionArgs{Q: q.Data[s.QAt:], Out: y.Data, QStride: q.Cols, OStride: y.Cols, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim,
		Seqs: s.Seqs, Scale: s.Scale, Causal: s.Causal, Window: s.Window, Softcap: s.Softcap}, stored)
	return y
}
