package train

import (
	"fmt"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// quantizeBase stores the matrices of a frozen base in blocks of d, for adapters over it (QLoRA: Dettmers et al., 2023, with GGUF's block
// types instead of NF4). Layers of the head, which are trained whole, and rows that are no whole number of blocks stay as they are.
func quantizeBase(m model.Model, d tensor.DType) (int, error) {
	n := 0
	for _, l := range m.Linears() {
		first, _, _ := strings.Cut(l.Name, ".")
		if l.Transposed || l.In%d.BlockLen() != 0 || first == "classifier" || first == "score" || l.W.T.DType.Quantized() {
			continue
		}
		v, err := backend.Dequantize(l.W.T)
		if err != nil {
			return n, fmt.Errorf("%s: %w", l.Name, err)
		}
		q := tensor.Tensor{Name: l.W.Name, DType: d, Shape: l.W.T.Shape, Data: make([]byte, l.Out*d.RowBytes(l.In))}
		if got := backend.Quantize(q.Data, d, v); got != len(q.Data) {
			return n, fmt.Errorf("%s: quantizing to %s made %d bytes, expected %d", l.Name, d, got, len(q.Data))
		}
		l.W.Replace(q)
		n++
	}
	if n == 0 {
		return 0, fmt.Errorf("no layer has rows of whole %s blocks (%d values)", d, d.BlockLen())
	}
	return n, nil
}
