package backend

import "github.com/temper-ml/temper/core/tensor"

// Dequantize returns the values of t as float32: a view where it is stored so, otherwise a new slice. Block types are expanded exactly
// as GGUF's reference does.
func Dequantize(t tensor.Tensor) ([]float32, error) {
	return t.F32()
}
