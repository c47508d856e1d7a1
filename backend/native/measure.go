package native

import "time"

// Limits are what this machine reaches on a number of threads, measured now: the bounds that kernels are judged by.
type Limits struct {
	Level    string  // of the measuring loops
	FlopRate float64 // float32 operations a second, a multiply-add counting as two; 0 where there is no assembly
	ReadRate float64 // bytes a second, read from memory beyond the caches
}

// Measure takes about a quarter of a second.
func Measure(threads int) Limits {
	return Limits{Level: Best(), FlopRate: PeakFMA(threads), ReadRate: Bandwidth(threads)}
}

// PeakFMA measures float32 multiply-adds at the best level: independent chains in registers, nothing loaded. It returns operations a second, a
// multiply-add counting as two, or 0 where there is no assembly.
func PeakFMA(threads int) float64 {
	if Best() == generic {
		return 0
	}
	o := table(Best())
	p := newPool(max(threads, 1))
	defer p.close()
	const rounds = 100000
	sink := make([]float32, 16*p.threads)
	loop := func(w, lo, hi int) {
		for range hi - lo {
			sink[16*w] += o.peakFMA(rounds)
		}
	}
	return best(60, float64(rounds*12*2*o.w*p.threads), func() { p.run(p.threads, 1, loop) })
}

// Bandwidth measures reading: bytes a second over 256 MB, which no cache of a small machine holds. Plain Go where there is no assembly.
func Bandwidth(threads int) float64 {
	sum := func(x *float32, n int) (s float32) {
		for i := 0; i < n; i += 16 {
			s += *off(x, i)
		}
		return s
	}
	if Best() != generic {
		sum = table(Best()).sum
	}
	p := newPool(max(threads, 1))
	defer p.close()
	data := aligned(64 << 20)
	for i := 0; i < len(data); i += 1024 {
		data[i] = 1 // or all of it would be the one page of zeros
	}
	sink := make([]float32, 16*p.threads)
	loop := func(w, lo, hi int) { sink[16*w] += sum(&data[lo], hi-lo) }
	return best(3, float64(4*len(data)), func() { p.run(len(data), 1<<20, loop) })
}

// best returns the highest rate of n runs that do the given work each.
func best(n int, work float64, f func()) (rate float64) {
	for range n {
		start := time.Now()
		f()
		rate = max(rate, work/time.Since(start).Seconds())
	}
	return rate
}
