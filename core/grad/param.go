package grad

import (
	"fmt"
	"sync"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// Param is a named weight: its source (a mapped file, a buffer, the heap), its storage type and, made when first used, the form that the
// kernels want. Names are Hugging Face's.
type Param struct {
	Name string
	T    tensor.Tensor
	// Grad is nil while the parameter is frozen; Backward adds to it otherwise.
	Grad []float32

	mu      sync.Mutex
	f32     []float32
	forms   [2]form // packed as it is stored, and transposed
	version int     // counts changes of the values, for what is made from several parameters
}

// form is a weight packed for one backend.
type form struct {
	packed backend.Packed
	owner  backend.Kernels
}

// NewParam wraps a tensor.
func NewParam(t tensor.Tensor) *Param { return &Param{Name: t.Name, T: t} }

// Trainable reports whether gradients are wanted.
func (p *Param) Trainable() bool { return p != nil && p.Grad != nil }

// Train makes p trainable: its values move to the heap as f32 (a mapped file is read-only) and a zero gradient is attached.
func (p *Param) Train() error {
	if p.Grad != nil {
		return nil
	}
	v, err := p.floats()
	if err != nil {
		return err
	}
	own := make([]float32, len(v))
	copy(own, v)
	p.T = tensor.FromF32(p.Name, own, p.T.Shape...)
	p.f32 = own
	p.stale()
	p.Grad = make([]float32, len(own))
	return nil
}

// Freeze drops the gradient.
func (p *Param) Freeze() {
	p.Grad = nil
	p.Changed()
}

// Changed must be called after the values of p were written: packed forms are made anew.
func (p *Param) Changed() {
	p.mu.Lock()
	p.stale()
	p.mu.Unlock()
}

func (p *Param) stale() {
	p.forms = [2]form{}
	p.version++
}

// Values returns the f32 values: the storage itself where it is f32, otherwise a copy made once. It panics on storage that cannot be
// read, which loading has ruled out.
func (p *Param) Values() []float32 {
	v, err := p.floats()
	if err != nil {
		panic(fmt.Sprintf("grad: %v", err))
	}
	return v
}

func (p *Param) floats() ([]float32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f32 != nil {
		return p.f32, nil
	}
	v, err := backend.Dequantize(p.T)
	if err != nil {
		return nil, err
	}
	p.f32 = v
	return v, nil
}

// resident returns the f32 values without copying them, or nil when there are none to hand: storage in another type that nobody has
// asked to expand.
func (p *Param) resident() []float32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f32 == nil && p.T.DType == tensor.F32 {
		if v, err := p.T.F32(); err == nil {
			p.f32 = v
		}
	}
	return p.f32
}

// Packed returns the weight [Out, In] packed for k, packing it at first use.
func (p *Param) Packed(k backend.Kernels) backend.Packed { return p.packedFor(k, false) }

// packedFor is Packed; a transposed weight is stored [In, Out].
func (p *Param) packedFor(k backend.Kernels, transposed bool) backend.Packed {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &p.forms[0]
	if transposed {
		f = &p.forms[1]
	}
	if f.packed != nil && f.owner == home(k) {
		return f.packed
	}
	w := backend.Weight{DType: p.T.DType, Out: p.T.Rows(), In: p.T.Cols(), Data: p.T.Data, Scales: p.T.Scales}
	var t []float32
	if transposed {
		v, err := backend.Dequantize(p.T)
		if err != nil {
			panic(fmt.Sprintf("grad: %v", err)) // loading has ruled it out
		}
		t = turned(v, w.Out, w.In)
		w = backend.Weight{DType: tensor.F32, Out: w.In, In: w.Out, Data: tensor.Bytes(t)}
	}
	f.packed, f.owner = k.Pack(w), home(k)
	h, ok := f.packed.(backend.SourceHolder)
	copied := ok && !h.HoldsSource()
	if transposed || copied {
		p.T.Release()
	}
	if t != nil && copied {
		spare.Put(&t)
	}
	return f.packed
}

// spare holds the buffer of the last transposed weight that was packed into a copy, for the next: a model has many of a few sizes.
var spare sync.Pool

// turned returns v [rows, cols] transposed.
func turned(v []float32, rows, cols int) []float32 {
	const block = 16 // rows of a block stay in the first-level cache
	var t []float32
	if b, ok := spare.Get().(*[]float32); ok && cap(*b) >= len(v) {
		t = (*b)[:len(v)]
	} else {
		t = make([]float32, len(v))
	}
	for r0 := 0; r0 < rows; r0 += block {
		r1 := min(r0+block, rows)
		for c := range cols {
			for r := r0; r < r1; r++ {
				t[c*rows+r] = v[r*cols+c]
			}
		}
	}
	return t
}

// expand writes the f32 values of t to dst, which they fill. Loading has made sure that they can be read.
func expand(dst []float32, t tensor.Tensor) {
	backend.DequantizeRow(dst, t.DType, t.Data)
	if t.DType == tensor.Q8Row {
		cols := t.Cols()
		for r := range t.Rows() {
			for i := range dst[r*cols : (r+1)*cols] {
				dst[r*cols+i] *= t.Scales[r]
			}
		}
	}
}
