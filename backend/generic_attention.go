package backend

import "math"

// AttentionIndex is the index for DropoutKeep of the weight that query row (its row in Q, over the whole packed batch) gives to key (its
// position within its sequence) in a head.
func AttentionIndex(row, heads, head, key int) uint64 {
	return uint64(row*heads+head)<<32 | uint64(key)
}

// score returns the biased score of query i and key j of sequence n, and tanh(s/Softcap) for the gradient of the cap.
func (a *AttentionArgs) score(n, h, i, j int, q, k []float32) (s, t float32) {
	s = dotSeq(q, k) * a.Scale
	if a.Softcap > 0 {
		t = float32(math.Tanh(float64(s / a.Softcap)))
		s = a.Softcap * t
	}
	if a.Bias != nil {
		seq := a.Seqs[n]
		s += a.Bias[a.BiasAt[n]+(h*seq.QLen+i)*seq.KLen+j]
	}
	return s, t
}

// Attention: a query that sees no key gets zeros and LSE -Inf. The bias is added after the cap.
func (g *generic) Attention(a AttentionArgs) {
	a.Check(false)
	group := a.Heads / a.KVHeads
	d := a.HeadDim
	for n, seq := range a.Seqs {
		g.split(seq.QLen*a.Heads, 6*seq.KLen*d, func(from, to int) {
			p := make([]float32, seq.KLen)
			for ih := from; ih < to; ih++ {
				i, h := ih/a.Heads, ih%a.Heads
				row := seq.QStart + i
				q := a.Q[row*a.QStride+h*d : row*a.QStride+(h+1)*d]
				lo, hi := a.KeyRange(seq, i)
				kh := h / group
				for j := lo; j < hi; j++ {
					at := (seq.KStart+j)*a.KStride + kh*d
					p[j], _ = a.score(n, h, i, j, q, a.K[at:at+d])
				}
				lse := softmaxRow(p[lo:hi], p[lo:hi])
				if a.LSE != nil {
					a.LSE[row*a.Heads+h] = float32(lse)
				}
				out := a.Out[row*a.OStride+h*d : row*a.OStride+(h+1)*d]
				clear(out)
				for j := lo; j < hi; j++ {
					w := p[j] * a.keep(row, h, j)
					at := (seq.KStart+j)*a.VStride + kh*d
					for c, v := range a.V[at : at+d] {
						out[c] += w * v
					}
				}
			}
		})
	}
}

// keep is 1/(1-P) for a weight that dropout keeps, 0 for one that it drops.
func (a *AttentionArgs) keep(row, head, key int) float32 {
	if a.DropoutP <= 0 {
		return 1
	}
	if DropoutKeep(a.DropoutSeed, AttentionIndex(row, a.Heads, head, key), a.DropoutP) {
		return 1 / (1 - a.DropoutP)
	}
	return 0
}

// AttentionBackward follows Dao et al. 2022 (FlashAttention, appendix B.4): with P = exp(S - LSE) and D = rowsum(dOut∘Out),
// dV = Pᵀ·dOut, dS = P∘(dOut·Vᵀ - D), dQ = scale·dS·K, dK = scale·dSᵀ·Q; dropout scales P in dV and dOut·Vᵀ in dS.
func (g *generic) AttentionBackward(a AttentionArgs) {
	a.Check(true)
	group := a.Heads / a.KVHeads
	d := a.HeadDim
	work := 0
	for _, seq := range a.Seqs {
		work += seq.QLen * seq.KLen * d * 10 * group
	}
	// By key heads: heads of a group add to the same keys, and sequences may share keys and biases.
	g.split(a.KVHeads, work, func(from, to int) {
		longest := 0
		for _, seq := range a.Seqs {
			longest = max(longest, seq.KLen)
		}
		ps, dps, ts := make([]float32, longest), make([]float32, longest), make([]float32, longest)
		for n, seq := range a.Seqs {
			for h := from * group; h < to*group; h++ {
				kh := h / group
				for i := range seq.QLen {
					row := seq.QStart + i
					q := a.Q[row*a.QStride+h*d : row*a.QStride+(h+1)*d]
					do := a.DOut[row*a.OStride+h*d : row*a.OStride+(h+1)*d]
					lse := float64(a.LSE[row*a.Heads+h])
					lo, hi := a.KeyRange(seq, i)
					// D from the same P that dS is made of, so that each row of dS sums to zero up to one rounding: the gradient of a key
					// bias, which is zero in exact arithmetic, stays small.
					var sum, delta float64
					for j := lo; j < hi; j++ {
						ka, va := (seq.KStart+j)*a.KStride+kh*d, (seq.KStart+j)*a.VStride+kh*d
						s, t := a.score(n, h, i, j, q, a.K[ka:ka+d])
						p, dp := float32(math.Exp(float64(s)-lse)), dotSeq(do, a.V[va:va+d])*a.keep(row, h, j)
						ps[j], dps[j], ts[j] = p, dp, t
						sum += float64(p)
						delta += float64(p) * float64(dp)
					}
					if sum > 0 {
						delta /= sum
					}
					for j := lo; j < hi; j++ {
						ka, va := (seq.KStart+j)*a.KStride+kh*d, (seq.KStart+j)*a.VStride+kh*d
						k := a.K[ka : ka+d]
						p, t := ps[j], ts[j]
						if p == 0 {
							continue
						}
						keep := a.keep(row, h, j)
						if a.DV != nil {
							for c := range d {
								a.DV[va+c] += p * keep * do[c]
							}
						}
						ds := float32(float64(p) * (float64(dps[j]) - delta))
						if a.DBias != nil {
							a.DBias[a.BiasAt[n]+(h*seq.QLen+i)*seq.KLen+j] += ds
						}
						if a.Softcap > 0 {
							ds *= 1 - t*t
						}
						ds *= a.Scale
						if a.DQ != nil {
							for c := range d {
								a.DQ[row*a.QStride+h*d+c] += ds * k[c]
							}
						}
						if a.DK != nil {
							for c := range d {
								a.DK[ka+c] += ds * q[c]
							}
						}
					}
				}
			}
		}
	})
}
