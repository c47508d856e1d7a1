package grad

import "github.com/temper-ml/temper/backend"

// RelativeBias returns attention biases from a table [buckets, heads]: for each sequence a block [heads, QLen, KLen] that begins at at[i]
// of the data, whose element (h, i, j) is table[bucket(j−i), h] with positions counted so that the last query stands at the last key.
func (c *Ctx) RelativeBias(table *Param, seqs []backend.Seq, bucket func(distance int) int) (v *Value, at []int) {
	heads := table.T.Cols()
	total := 0
	at = make([]int, len(seqs))
	for i, s := range seqs {
		at[i] = total
		total += heads * s.QLen * s.KLen
	}
	y := c.New(total, 1)
	each := func(f func(h, bucket, at int)) {
		for n, s := range seqs {
			for i := range s.QLen {
				for j := range s.KLen {
					b := bucket(j - i - (s.KLen - s.QLen))
					for h := range heads {
						f(h, b, at[n]+(h*s.QLen+i)*s.KLen+j)
					}
				}
			}
		}
	}
	w := table.Values()
	each(func(h, b, to int) { y.Data[to] = w[b*heads+h] })
	if table.Trainable() && c.Recording() {
		c.push(y, func() {
			each(func(h, b, from int) { table.Grad[b*heads+h] += y.Grad[from] })
		})
	}
	return y, at
}
