package main

import "math"

// order is the length of the n-grams.
const order = 5

// gram is up to five tokens, those that are there at the end; the others are −1.
type gram [order]int32

// stats are what a context knows of the tokens after it.
type stats struct {
	total float64
	n     [3]float64 // tokens after it seen once, twice, more often
}

// kneserNey is a 5-gram model with interpolated modified Kneser–Ney smoothing (Chen & Goodman, 1999, section 4.1): raw counts at the highest
// order, numbers of different left neighbours below it, three discounts an order, interpolated down to the uniform distribution.
type kneserNey struct {
	vocab    float64
	counts   [order + 1]map[gram]float64 // by length of the gram
	contexts [order + 1]map[gram]*stats
	discount [order + 1][4]float64
}

// last returns the n tokens before and with position i.
func last(ids []int32, i, n int) (g gram, ok bool) {
	for k := range g {
		g[k] = -1
	}
	if i+1 < n {
		return g, false
	}
	copy(g[order-n:], ids[i+1-n:i+1])
	return g, true
}

// context drops the last token of a gram.
func (g gram) context() (c gram) {
	c[0] = -1
	copy(c[1:], g[:order-1])
	return c
}

// shorter drops the first token of a gram of n tokens.
func (g gram) shorter(n int) gram {
	g[order-n] = -1
	return g
}

func newKneserNey(ids []int32, vocab int) *kneserNey {
	m := &kneserNey{vocab: float64(vocab)}
	for n := range m.counts {
		m.counts[n], m.contexts[n] = map[gram]float64{}, map[gram]*stats{}
	}
	for i := range ids {
		if g, ok := last(ids, i, order); ok {
			m.counts[order][g]++
		}
	}
	for n := order; n > 1; n-- { // each different gram is one left neighbour of its end
		for g := range m.counts[n] {
			m.counts[n-1][g.shorter(n)]++
		}
	}
	for n := 1; n <= order; n++ {
		var of [5]float64 // grams with count 1, 2, 3, 4
		for g, c := range m.counts[n] {
			if c <= 4 {
				of[int(c)]++
			}
			h := g.context()
			s := m.contexts[n][h]
			if s == nil {
				s = &stats{}
				m.contexts[n][h] = s
			}
			s.total += c
			s.n[min(int(c), 3)-1]++
		}
		y := of[1] / (of[1] + 2*of[2])
		for k := 1; k <= 3; k++ {
			d := float64(k)
			if of[k] > 0 {
				d = float64(k) - float64(k+1)*y*of[k+1]/of[k]
			}
			if math.IsNaN(d) || d <= 0 || d > float64(k) {
				d = 0.75
			}
			m.discount[n][k] = d
		}
	}
	return m
}

// probability of the last token of ids[:i+1] after those before it.
func (m *kneserNey) probability(ids []int32, i int) float64 {
	p := 1 / m.vocab
	for n := 1; n <= order; n++ {
		g, ok := last(ids, i, n)
		if !ok {
			break
		}
		s := m.contexts[n][g.context()]
		if s == nil {
			break // a longer context has not been seen either
		}
		d := m.discount[n]
		c := m.counts[n][g]
		share := 0.0
		if c > 0 {
			share = max(0, c-d[min(int(c), 3)])
		}
		p = (share + (d[1]*s.n[0]+d[2]*s.n[1]+d[3]*s.n[2])*p) / s.total
	}
	return p
}

// bits is the information of ids from position from on, in bits.
func (m *kneserNey) bits(ids []int32, from int) float64 {
	sum := 0.0
	for i := from; i < len(ids); i++ {
		sum -= math.Log2(m.probability(ids, i))
	}
	return sum
}
