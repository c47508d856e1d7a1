package grad

import (
	"fmt"
	"sync"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// Stack is several linear layers over the same input (queries, keys and values), which run as one product while they are constants. Results
// equal those of the layers one by one, to the bit.
type Stack struct {
	ws, bs []*Param // bs may hold nil

	mu      sync.Mutex
	version int // sum of the parameters' when packed was made
	packed  backend.Packed
	owner   backend.Kernels
	bias    []float32
	apart   bool // not worth it: the backend would hold a second copy
}

// NewStack makes a stack of weights [Out_i, In] with their biases (nil for none).
func NewStack(ws, bs []*Param) *Stack { return &Stack{ws: ws, bs: bs} }

// constant returns the storage of p, how often it has changed, and whether it is frozen.
func (p *Param) constant() (tensor.Tensor, int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.T, p.version, p.Grad == nil
}

// forKernels returns the joined weight, or false where the layers must run one by one.
func (s *Stack) forKernels(k backend.Kernels) (backend.Packed, []float32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, biased := 0, false
	var first tensor.Tensor
	for i, w := range s.ws {
		t, v, ok := w.constant()
		if i == 0 {
			first = t
		}
		if !ok || t.DType != first.DType || t.Cols() != first.Cols() || first.DType.Quantized() && first.DType != tensor.Q8Row {
			return nil, nil, false
		}
		version += v
		if b := s.bs[i]; b != nil {
			if _, v, ok = b.constant(); !ok {
				return nil, nil, false
			}
			version += v
			biased = true
		}
	}
	if s.owner == home(k) && s.version == version && (s.packed != nil || s.apart) {
		return s.packed, s.bias, !s.apart
	}
	joined := backend.Weight{DType: first.DType, In: first.Cols()}
	bytes := 0
	for _, w := range s.ws {
		bytes += len(w.T.Data)
	}
	joined.Data = make([]byte, 0, bytes)
	var bias []float32
	for i, w := range s.ws {
		joined.Out += w.T.Rows()
		joined.Data = append(joined.Data, w.T.Data...)
		joined.Scales = append(joined.Scales, w.T.Scales...)
		w.T.Release()
		if !biased {
			continue
		}
		if s.bs[i] != nil {
			bias = append(bias, s.bs[i].Values()...)
		} else {
			bias = append(bias, make([]float32, w.T.Rows())...)
		}
	}
	packed := k.Pack(joined)
	h, ok := packed.(backend.SourceHolder)
	s.apart = !ok || h.HoldsSource()
	s.version, s.owner, s.bias, s.packed = version, home(k), bias, packed
	if s.apart {
		s.packed, s.bias = nil, nil
	}
	return s.packed, s.bias, !s.apart
}

// Pack packs the joined weight for k ahead of its first use, where the layers run as one; it reports whether they do.
func (s *Stack) Pack(k backend.Kernels) bool {
	_, _, ok := s.forKernels(k)
	return ok
}

// Stacked computes x·Wᵀ + b of all layers of s side by side. It returns nil where they cannot run as one: some are trainable, say.
func (c *Ctx) Stacked(x *Value, s *Stack) *Value {
	packed, bias, ok := s.forKernels(c.K)
	if !ok {
		return nil
	}
	out, in := packed.Shape()
	if x.Cols != in {
		panic(fmt.Sprintf("grad.Stacked: %s wants %d columns, got %d", s.ws[0].Name, in, x.Cols))
	}
	y := c.New(x.Rows, out)
	c.K.Linear(y.Data, x.Data, x.Rows, packed, backend.Epilogue{Bias: bias})
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx, fresh := c.gradInto(x)
			at := 0
			m := c.arena.Mark()
			for _, w := range s.ws {
				n := w.T.Rows()
				c.K.MatMul(backend.MatMulArgs{M: x.Rows, N: in, K: n, A: y.Grad[at:], B: c.weights(w), C: dx, LDA: out, LDB: in, LDC: in, Accumulate: !fresh})
				at, fresh = at+n, false
				c.arena.Release(m)
			}
		})
	}
	return y
}
