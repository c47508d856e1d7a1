package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
)

type attentionCase struct {
	name                string
	heads, kvHeads, dim int
	seqs                [][2]int // query and key lengths
	causal              bool
	window              int
	softcap             float32
	bias                bool
	dropout             float32
	fused               bool // Q, K and V are slices of one matrix
}

var attentionCases = []attentionCase{
	{name: "one token", heads: 1, kvHeads: 1, dim: 8, seqs: [][2]int{{1, 1}}},
	{name: "minilm", heads: 12, kvHeads: 12, dim: 32, seqs: [][2]int{{5, 5}, {17, 17}, {1, 1}, {33, 33}}, fused: true},
	{name: "long", heads: 2, kvHeads: 2, dim: 32, seqs: [][2]int{{130, 130}}, fused: true},
	{name: "odd dim", heads: 3, kvHeads: 3, dim: 20, seqs: [][2]int{{7, 7}, {0, 0}, {9, 9}}},
	{name: "tiny dim", heads: 2, kvHeads: 1, dim: 3, seqs: [][2]int{{4, 6}}, causal: true},
	{name: "causal", heads: 2, kvHeads: 2, dim: 16, seqs: [][2]int{{19, 19}, {40, 40}}, causal: true},
	{name: "cache", heads: 4, kvHeads: 2, dim: 64, seqs: [][2]int{{1, 50}, {3, 70}}, causal: true},
	{name: "grouped", heads: 8, kvHeads: 2, dim: 48, seqs: [][2]int{{11, 11}, {35, 35}}, causal: true, fused: true},
	{name: "one key head", heads: 4, kvHeads: 1, dim: 128, seqs: [][2]int{{18, 18}}, causal: true, window: 5},
	{name: "gemma", heads: 4, kvHeads: 1, dim: 256, seqs: [][2]int{{9, 9}, {1, 33}}, causal: true, window: 20},
	{name: "long cache", heads: 4, kvHeads: 1, dim: 64, seqs: [][2]int{{1, 700}}, causal: true, window: 650},
	{name: "long cache of two heads", heads: 4, kvHeads: 2, dim: 96, seqs: [][2]int{{1, 1100}}, causal: true, softcap: 5},
	{name: "two-sided window", heads: 2, kvHeads: 2, dim: 32, seqs: [][2]int{{50, 50}, {3, 3}}, window: 4},
	{name: "softcap", heads: 2, kvHeads: 1, dim: 24, seqs: [][2]int{{20, 20}}, causal: true, softcap: 2},
	{name: "bias", heads: 3, kvHeads: 3, dim: 16, seqs: [][2]int{{12, 12}, {21, 21}}, bias: true},
	{name: "bias and softcap", heads: 2, kvHeads: 2, dim: 16, seqs: [][2]int{{12, 15}}, bias: true, softcap: 3, causal: true},
	{name: "dropout", heads: 2, kvHeads: 2, dim: 32, seqs: [][2]int{{18, 18}, {35, 35}}, dropout: 0.2},
	{name: "everything", heads: 4, kvHeads: 2, dim: 40, seqs: [][2]int{{6, 9}, {33, 34}}, causal: true, window: 7, softcap: 4, bias: true, dropout: 0.3},
	{name: "queries before all keys", heads: 1, kvHeads: 1, dim: 16, seqs: [][2]int{{5, 2}}, causal: true},
}

// args builds guarded operands for the case; gradients too when backward is set.
func (c attentionCase) args(o *operands, backward bool) backend.AttentionArgs {
	a := backend.AttentionArgs{Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.dim, Scale: float32(1 / math.Sqrt(float64(c.dim))),
		Causal: c.causal, Window: c.window, Softcap: c.softcap, DropoutP: c.dropout, DropoutSeed: 99}
	q, k, bias := 0, 0, 0
	for _, s := range c.seqs {
		a.Seqs = append(a.Seqs, backend.Seq{QStart: q, QLen: s[0], KStart: k, KLen: s[1]})
		a.BiasAt = append(a.BiasAt, bias)
		q, k, bias = q+s[0], k+s[1], bias+c.heads*s[0]*s[1]
	}
	hd, kd := c.heads*c.dim, c.kvHeads*c.dim
	cut := func(v []float32, from, rows, cols int) []float32 { // rows at stride: ends with the last value
		if rows == 0 {
			return v[:0]
		}
		return v[from : from+(rows-1)*(hd+2*kd)+cols]
	}
	if c.fused {
		x := o.normal(q * (hd + 2*kd))
		a.Q, a.K, a.V = cut(x, 0, q, hd), cut(x, hd, q, kd), cut(x, hd+kd, q, kd)
		a.QStride, a.KStride, a.VStride = hd+2*kd, hd+2*kd, hd+2*kd
	} else {
		a.Q, a.K, a.V = o.normal(q*hd), o.normal(k*kd), o.normal(k*kd)
		a.QStride, a.KStride, a.VStride = hd, kd, kd
	}
	a.OStride = hd
	a.Out, a.LSE = o.zeros(q*hd), o.zeros(q*c.heads)
	if c.bias {
		a.Bias = o.normal(bias)
	}
	if backward {
		a.DOut = o.normal(q * hd)
		a.DQ, a.DK, a.DV = o.normal(len(a.Q)), o.normal(len(a.K)), o.normal(len(a.V))
		if c.bias {
			a.DBias = o.normal(bias)
		}
	}
	return a
}

// oracleAttention returns out [rows, Heads·HeadDim], dense, and the log-sum-exps, in float64, from widened operands.
func oracleAttention(a *backend.AttentionArgs, q, k, v, bias []float64) (out, lse []float64) {
	rows := 0
	for _, s := range a.Seqs {
		rows = max(rows, s.QStart+s.QLen)
	}
	d := a.HeadDim
	out, lse = make([]float64, rows*a.Heads*d), make([]float64, rows*a.Heads)
	for n, s := range a.Seqs {
		for i := range s.QLen {
			for h := range a.Heads {
				kh := h * a.KVHeads / a.Heads
				score := make([]float64, s.KLen)
				top := math.Inf(-1)
				pos := s.KLen - s.QLen + i
				for j := range score {
					seen := true
					if a.Causal {
						seen = j <= pos && (a.Window == 0 || j > pos-a.Window)
					} else if a.Window > 0 {
						seen = j >= pos-a.Window && j <= pos+a.Window
					}
					if !seen {
						score[j] = math.Inf(-1)
						continue
					}
					for c := range d {
						score[j] += q[(s.QStart+i)*a.QStride+h*d+c] * k[(s.KStart+j)*a.KStride+kh*d+c]
					}
					score[j] *= float64(a.Scale)
					if a.Softcap > 0 {
						score[j] = float64(a.Softcap) * math.Tanh(score[j]/float64(a.Softcap))
					}
					if bias != nil {
						score[j] += bias[a.BiasAt[n]+(h*s.QLen+i)*s.KLen+j]
					}
					top = max(top, score[j])
				}
				row := s.QStart + i
				if math.IsInf(top, -1) {
					lse[row*a.Heads+h] = top
					continue
				}
				sum := 0.0
				for j := range score {
					score[j] = math.Exp(score[j] - top)
					sum += score[j]
				}
				lse[row*a.Heads+h] = top + math.Log(sum)
				for j, p := range score {
					p /= sum
					if a.DropoutP > 0 {
						if !backend.DropoutKeep(a.DropoutSeed, uint64(row*a.Heads+h)<<32|uint64(j), a.DropoutP) {
							continue
						}
						p /= 1 - float64(a.DropoutP)
					}
					for c := range d {
						out[(row*a.Heads+h)*d+c] += p * v[(s.KStart+j)*a.VStride+kh*d+c]
					}
				}
			}
		}
	}
	return out, lse
}

func attention(t *testing.T, k backend.Kernels) {
	for i, c := range attentionCases {
		t.Run(c.name, func(t *testing.T) {
			a := c.args(newOperands(t, uint64(i)), false)
			k.Attention(a)
			var bias []float64
			if a.Bias != nil {
				bias = wide(a.Bias)
			}
			out, lse := oracleAttention(&a, wide(a.Q), wide(a.K), wide(a.V), bias)
			for j := range out {
				near(t, a.Out[j], out[j], 4e-6*(1+math.Abs(out[j])), "out[%d]", j)
			}
			for j := range lse {
				near(t, a.LSE[j], lse[j], 3e-6*(1+math.Abs(lse[j])), "lse[%d]", j)
			}
			want := append([]float32(nil), a.Out...)
			clear(a.Out)
			a.LSE = nil
			k.Attention(a)
			same(t, a.Out, want, "without lse")
		})
	}
}

func attentionGradients(t *testing.T, k backend.Kernels) {
	ref := backend.Generic(1)
	for i, c := range attentionCases {
		t.Run(c.name, func(t *testing.T) {
			a := c.args(newOperands(t, uint64(i)), true)
			k.Attention(a)
			was := [4][]float32{}
			grads := [4][]float32{a.DQ, a.DK, a.DV, a.DBias}
			for g := range grads {
				was[g] = append([]float32(nil), grads[g]...)
			}
			k.AttentionBackward(a)

			// Generic from the same starting values.
			b := a
			b.DQ, b.DK, b.DV = append([]float32(nil), was[0]...), append([]float32(nil), was[1]...), append([]float32(nil), was[2]...)
			if a.DBias != nil {
				b.DBias = append([]float32(nil), was[3]...)
			}
			ref.AttentionBackward(b)
			for g, want := range [4][]float32{b.DQ, b.DK, b.DV, b.DBias} {
				for j := range want {
					near(t, grads[g][j], float64(want[j]), 3e-5*(1+math.Abs(float64(want[j]))), "gradient %d [%d], against generic", g, j)
				}
			}
			if len(a.Q)+len(a.K) > 1600 { // finite differences of the smaller cases
				return
			}
			var bias []float64
			if a.Bias != nil {
				bias = wide(a.Bias)
			}
			in := [4][]float64{wide(a.Q), wide(a.K), wide(a.V), bias}
			for g := range in {
				want := slope(func([]float64) float64 {
					out, _ := oracleAttention(&a, in[0], in[1], in[2], in[3])
					sum := 0.0
					for j, v := range out {
						sum += v * float64(a.DOut[j])
					}
					return sum
				}, in[g])
				for j := range want {
					near(t, grads[g][j]-was[g][j], want[j], finite(want[j], 1), "gradient %d [%d], against finite differences", g, j)
				}
			}
			// Each gradient may be left out.
			only := a
			only.DK, only.DV, only.DBias = nil, nil, nil
			copy(only.DQ, was[0])
			k.AttentionBackward(only)
			for j := range only.DQ {
				near(t, only.DQ[j], float64(b.DQ[j]), 3e-5*(1+math.Abs(float64(b.DQ[j]))), "dq alone")
			}
		})
	}
}

// attentionAlone checks that a sequence has the same bits alone as in a packed batch.
func attentionAlone(t *testing.T, k backend.Kernels) {
	for i, c := range attentionCases {
		if c.dropout > 0 { // dropout is numbered by the row of the batch
			continue
		}
		o := newOperands(t, uint64(i))
		a := c.args(o, true)
		k.Attention(a)
		k2 := a
		k2.DQ, k2.DK, k2.DV = o.zeros(len(a.DQ)), o.zeros(len(a.DK)), o.zeros(len(a.DV))
		k2.DBias = nil
		k.AttentionBackward(k2)
		b := k2
		b.Out, b.LSE = o.zeros(len(a.Out)), o.zeros(len(a.LSE))
		b.DQ, b.DK, b.DV = o.zeros(len(a.DQ)), o.zeros(len(a.DK)), o.zeros(len(a.DV))
		for n, s := range a.Seqs {
			b.Seqs = []backend.Seq{s}
			b.BiasAt = a.BiasAt[n : n+1]
			k.Attention(b)
			k.AttentionBackward(b)
		}
		same(t, b.Out, a.Out, "%s: sequences one by one", c.name)
		same(t, b.LSE, a.LSE, "%s: log-sum-exp one by one", c.name)
		same(t, b.DQ, k2.DQ, "%s: dq one by one", c.name)
		same(t, b.DK, k2.DK, "%s: dk one by one", c.name)
		same(t, b.DV, k2.DV, "%s: dv one by one", c.name)
	}
}
