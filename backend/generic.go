package backend

import (
	"fmt"
	"sync"

	"github.com/temper-ml/temper/core/tensor"
)

// generic is the reference: plain loops over the contract, one obvious order of summation each.
type generic struct {
	threads int
	exact   bool
}

// Generic returns the reference kernels in plain Go, which split larger calls over the given number of goroutines (at least 1).
// It is safe for concurrent use.
func Generic(threads int) Kernels { return &generic{threads: max(threads, 1)} }

// GenericF32 is Generic, except that quantized weights are expanded to float32 and meet float32 activations: slower, and free of the error
// of quantizing activations. It serves comparisons.
func GenericF32(threads int) Kernels { return &generic{threads: max(threads, 1), exact: true} }

func (g *generic) Level() string { return "generic" }
func (g *generic) Threads() int  { return g.threads }
func (g *generic) Close()        {}

// split calls f over parts of [0, n). work estimates the operations for one item: small calls stay on this goroutine. f must give the same
// result for an item whatever part it falls into.
func (g *generic) split(n, work int, f func(lo, hi int)) {
	parts := min(g.threads, n)
	if parts <= 1 || n*work < 1<<15 {
		if n > 0 {
			f(0, n)
		}
		return
	}
	var wg sync.WaitGroup
	for p := 1; p < parts; p++ {
		wg.Go(func() { f(n*p/parts, n*(p+1)/parts) })
	}
	f(0, n/parts)
	wg.Wait()
}

// genericWeight keeps W [out, in] as float32.
type genericWeight struct {
	out, in, held int
	w             []float32
}

func (w *genericWeight) Shape() (out, in int) { return w.out, w.in }
func (w *genericWeight) Bytes() int           { return w.held }

// HoldsSource implements SourceHolder.
func (w *genericWeight) HoldsSource() bool { return w.held == 0 }

func (g *generic) Pack(w Weight) Packed {
	w.Check()
	if w.RunsInIntegers() && !g.exact {
		return g.packInt8(w)
	}
	if w.RunsInBlocks() && !g.exact {
		return packBlocks(w)
	}
	v, err := w.Values()
	if err != nil {
		panic(fmt.Sprintf("backend: pack: %v", err))
	}
	p := &genericWeight{out: w.Out, in: w.In, w: v}
	if w.DType != tensor.F32 {
		p.held = 4 * len(v)
	}
	return p
}

// Values returns the weight as float32 [Out, In], a view where it is stored so.
func (w Weight) Values() ([]float32, error) {
	if w.DType == tensor.Q8Row {
		if len(w.Scales) < w.Out {
			return nil, fmt.Errorf("q8_row weight has %d scales for %d rows", len(w.Scales), w.Out)
		}
		v := make([]float32, w.Out*w.In)
		for o := range w.Out {
			for i := range w.In {
				v[o*w.In+i] = w.Scales[o] * float32(int8(w.Data[o*w.In+i]))
			}
		}
		return v, nil
	}
	return Dequantize(tensor.Tensor{Name: "weight", DType: w.DType, Shape: []int{w.Out, w.In}, Data: w.Data, Scales: w.Scales})
}

func (g *generic) Linear(dst, x []float32, rows int, p Packed, ep Epilogue) {
	if q, ok := p.(*int8Weight); ok {
		CheckLinear(dst, x, rows, q.out, q.in, ep)
		g.linearInt8(dst, x, rows, q, ep)
		return
	}
	if q, ok := p.(*blockWeight); ok {
		CheckLinear(dst, x, rows, q.out, q.in, ep)
		g.linearBlocks(dst, x, rows, q, ep)
		return
	}
	w, ok := p.(*genericWeight)
	if !ok {
		panic(fmt.Sprintf("backend: linear: weight of type %T was packed by another backend", p))
	}
	CheckLinear(dst, x, rows, w.out, w.in, ep)
	g.split(rows*w.out, 2*w.in, func(lo, hi int) {
		for lo < hi {
			r, o := lo/w.out, lo%w.out
			n := min(hi-lo, w.out-o)
			row := dst[r*w.out+o : r*w.out+o+n]
			// Residual may be dst itself, so the product stands apart until the epilogue.
			for j := range row {
				s := dotSeq(x[r*w.in:(r+1)*w.in], w.w[(o+j)*w.in:(o+j+1)*w.in])
				row[j] = ep.apply(s, o+j, r*w.out+o+j)
			}
			lo += n
		}
	})
}

// dotSeq is Σ aᵢ·bᵢ in eight interleaved sums (i mod 8), which are then added pairwise: an order fixed by len(a) alone.
func dotSeq(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := a[i:i+8:i+8], b[i:i+8:i+8]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		s4 += x[4] * y[4]
		s5 += x[5] * y[5]
		s6 += x[6] * y[6]
		s7 += x[7] * y[7]
	}
	s := ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
	for ; i < len(a); i++ {
		s += a[i] * b[i]
	}
	return s
}

func (g *generic) MatMul(a MatMulArgs) {
	a.Check()
	alpha := a.Alpha
	if alpha == 0 {
		alpha = 1
	}
	g.split(a.M, 2*a.N*a.K, func(lo, hi int) {
		row := make([]float32, a.K)
		acc := make([]float32, a.N)
		for m := lo; m < hi; m++ {
			ra := row
			if a.TransA {
				for k := range ra {
					ra[k] = a.A[k*a.LDA+m]
				}
			} else if a.K > 0 {
				ra = a.A[m*a.LDA : m*a.LDA+a.K]
			}
			clear(acc)
			if a.TransB {
				for n := range acc {
					if a.K > 0 {
						acc[n] = dotSeq(ra, a.B[n*a.LDB:n*a.LDB+a.K])
					}
				}
			} else if a.N > 0 {
				for k, v := range ra {
					b := a.B[k*a.LDB : k*a.LDB+a.N]
					for n := range acc {
						acc[n] += v * b[n]
					}
				}
			}
			if a.N == 0 {
				continue
			}
			c := a.C[m*a.LDC : m*a.LDC+a.N]
			if a.Accumulate {
				for n := range c {
					c[n] += alpha * acc[n]
				}
			} else {
				for n := range c {
					c[n] = alpha * acc[n]
				}
			}
		}
	})
}
