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

	mu     sync.Mutex
	f32    []float32
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
	p.f32, p.packed = own, nil
	p.Grad = make([]float32, len(own))
	return nil
}

// Freeze drops the gradient.
func (p *Param) Freeze() { p.Grad, p.packed = nil, nil }

// Changed must be called after the values of p were written: packed forms are made anew.
func (p *Param) Changed() {
	p.mu.Lock()
	p.packed = nil
	p.mu.Unlock()
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

// Packed returns the weight [Out, In] packed for k, packing it at first use.
func (p *Param) Packed(k backend.Kernels) backend.Packed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.packed == nil || p.owner != k {
		p.packed, p.owner = k.Pack(backend.Weight{DType: p.T.DType, Out: p.T.Rows(), In: p.T.Cols(), Data: p.T.Data, Scales: p.T.Scales}), k
	}
	return p.packed
}
