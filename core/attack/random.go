package attack

import "hash/fnv"

// Rand is a small deterministic generator (SplitMix64, Steele, Lea and Flood 2014). Its sequence is part of the engine's contract: the same
// seed gives the same candidates on every platform and in every release of the same recipe version.
type Rand struct{ state uint64 }

// NewRand returns a generator for seed.
func NewRand(seed uint64) *Rand { return &Rand{state: seed} }

// Uint64 returns the next 64 bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// IntN returns a number in [0, n), 0 when n is below 2.
func (r *Rand) IntN(n int) int {
	if n < 2 {
		return 0
	}
	return int(r.Uint64() % uint64(n)) // the bias is below n / 2^64
}

// Float64 returns a number in [0, 1).
func (r *Rand) Float64() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// Shuffle permutes n elements by Fisher and Yates.
func (r *Rand) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, r.IntN(i+1))
	}
}

// Weighted draws an index with probability proportional to its weight, or -1 when no weight is positive.
func (r *Rand) Weighted(weights []float64) int {
	sum := 0.0
	for _, w := range weights {
		if w > 0 {
			sum += w
		}
	}
	if !(sum > 0) {
		return -1
	}
	x, last := r.Float64()*sum, -1
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		last = i
		if x -= w; x < 0 {
			return i
		}
	}
	return last
}

// mix folds numbers into one seed.
func mix(values ...uint64) uint64 {
	r := Rand{}
	for _, v := range values {
		r.state ^= v
		r.state = r.Uint64()
	}
	return r.state
}

func hashText(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
