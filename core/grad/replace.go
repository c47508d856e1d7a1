package grad

import "github.com/temper-ml/temper/core/tensor"

// Replace gives p other values of the same number: a merged adapter, or the base's own again. Storage is t's, not a copy. A trainable p
// stays trainable: t must be f32 then, on the heap.
func (p *Param) Replace(t tensor.Tensor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.T, p.f32 = t, nil
	p.stale()
}
