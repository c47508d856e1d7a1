package quant

import (
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// Report says what a model was turned into.
type Report struct {
	Type    string         `json:"type"`
	Tensors []TensorReport `json:"tensors"`
	// Bytes of all tensors, before and after.
	Before int64 `json:"bytes_before"`
	After  int64 `json:"bytes_after"`
	// Parameters is the number of elements.
	Parameters int64 `json:"parameters"`
}

// BitsPerWeight is the mean size of an element after.
func (r *Report) BitsPerWeight() float64 { return 8 * float64(r.After) / float64(max(r.Parameters, 1)) }

// TensorReport compares a tensor with what it was.
type TensorReport struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	From  string `json:"from"`
	To    string `json:"to"`
	Bytes int    `json:"bytes"`
	// RMSE is the root mean square of the differences, Relative the same over the root mean square of the values, Max the largest.
	RMSE     float64 `json:"rmse"`
	Relative float64 `json:"relative"`
	Max      float64 `json:"max"`
}

func (r *Report) add(t TensorReport, from tensor.DType, n int) {
	r.Tensors = append(r.Tensors, t)
	r.Before += int64(from.RowBytes(n))
	r.After += int64(t.Bytes)
	r.Parameters += int64(n)
}

// compare measures what storing values as t lost. Rows are expanded one at a time.
func compare(values []float32, t tensor.Tensor) (TensorReport, error) {
	r := TensorReport{Name: t.Name, Shape: t.Shape, To: t.DType.String(), Bytes: len(t.Data) + 4*len(t.Scales)}
	if t.DType == tensor.F32 {
		return r, nil
	}
	rows, cols := t.Rows(), t.Cols()
	row := make([]float32, cols)
	width := t.DType.RowBytes(cols)
	var sum, ref float64
	for i := range rows {
		backend.DequantizeRow(row, t.DType, t.Data[i*width:(i+1)*width])
		for j, got := range row {
			if t.DType == tensor.Q8Row {
				got *= t.Scales[i]
			}
			v := float64(values[i*cols+j])
			d := float64(got) - v
			sum += d * d
			ref += v * v
			r.Max = max(r.Max, math.Abs(d))
		}
	}
	if n := float64(rows * cols); n > 0 {
		r.RMSE = math.Sqrt(sum / n)
	}
	if ref > 0 {
		r.Relative = math.Sqrt(sum / ref)
	}
	return r, nil
}

// finite refuses weights that no block type can hold.
func finite(name string, values []float32) error {
	for i, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("tensor %q: value %d is %g; only finite weights can be quantized", name, i, v)
		}
	}
	return nil
}
