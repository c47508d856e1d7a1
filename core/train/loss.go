package train

import (
	"fmt"
	"math"
)

// Loss turns logits [rows, cols] and targets into a mean loss and its gradient. The zero value is plain cross-entropy.
type Loss struct {
	// Kind is "cross_entropy" (one class per row), "mse" (real values) or "bce" (independent yes/no per column, on logits).
	Kind string
	// Smoothing mixes the target with the uniform distribution (Szegedy et al., 2016), cross-entropy only.
	Smoothing float64
	// ClassWeights, when not nil, weighs each class [cols]; the mean is over the weights, as in torch.
	ClassWeights []float64
}

// Targets of a batch: Classes for cross-entropy (negative entries are ignored), Values [rows·cols] for mse and bce.
type Targets struct {
	Classes []int32
	Values  []float32
}

// Validate reports settings that do not fit cols outputs.
func (l Loss) Validate(cols int) error {
	switch l.Kind {
	case "", "cross_entropy":
	case "mse", "bce":
		if l.Smoothing != 0 || l.ClassWeights != nil {
			return fmt.Errorf("loss %s: label smoothing and class weights need cross_entropy", l.Kind)
		}
	default:
		return fmt.Errorf("loss %q: expected cross_entropy, mse or bce", l.Kind)
	}
	if l.Smoothing < 0 || l.Smoothing >= 1 {
		return fmt.Errorf("label smoothing %g: expected at least 0 and below 1", l.Smoothing)
	}
	if l.ClassWeights != nil && len(l.ClassWeights) != cols {
		return fmt.Errorf("class weights: expected %d, got %d", cols, len(l.ClassWeights))
	}
	return nil
}

// Weight is the denominator of the mean over these targets: rows, elements, or the sum of class weights.
func (l Loss) Weight(t Targets) float64 {
	if l.Kind == "mse" || l.Kind == "bce" {
		return float64(len(t.Values))
	}
	var s float64
	for _, y := range t.Classes {
		if y >= 0 {
			s += l.weight(y)
		}
	}
	return s
}

func (l Loss) weight(y int32) float64 {
	if l.ClassWeights == nil {
		return 1
	}
	return l.ClassWeights[y]
}

// Sum returns the loss summed over the rows and divided by weight (Weight of the whole effective batch, so that micro-batches add up),
// and adds its gradient to dlogits when that is not nil.
func (l Loss) Sum(logits []float32, rows, cols int, t Targets, weight float64, dlogits []float32) float64 {
	if weight == 0 {
		return 0
	}
	var total float64
	switch l.Kind {
	case "mse":
		for i, y := range t.Values {
			d := float64(logits[i]) - float64(y)
			total += d * d
			if dlogits != nil {
				dlogits[i] += float32(2 * d / weight)
			}
		}
	case "bce":
		for i, y := range t.Values {
			z := float64(logits[i])
			total += max(z, 0) - z*float64(y) + math.Log1p(math.Exp(-math.Abs(z)))
			if dlogits != nil {
				dlogits[i] += float32((1/(1+math.Exp(-z)) - float64(y)) / weight)
			}
		}
	default:
		p := make([]float64, cols)
		for r := range rows {
			y := t.Classes[r]
			if y < 0 {
				continue
			}
			lse := logSoftmax(p, logits[r*cols:(r+1)*cols])
			// With smoothing e the target of class c is (1-e)·w_y·[c = y] + e/C·w_c, so that its sum scales the softmax.
			var mass float64
			for c := range cols {
				q := l.target(c, int(y), cols)
				mass += q
				if q != 0 {
					total -= q * (float64(logits[r*cols+c]) - lse)
				}
			}
			if dlogits != nil {
				for c := range cols {
					dlogits[r*cols+c] += float32((mass*p[c] - l.target(c, int(y), cols)) / weight)
				}
			}
		}
	}
	return total / weight
}

func (l Loss) target(c, y, cols int) float64 {
	q := l.Smoothing / float64(cols) * l.weight(int32(c))
	if c == y {
		q += (1 - l.Smoothing) * l.weight(int32(y))
	}
	return q
}

// logSoftmax writes softmax(z) to p and returns log Σ exp(z).
func logSoftmax(p []float64, z []float32) float64 {
	m := math.Inf(-1)
	for _, x := range z {
		m = max(m, float64(x))
	}
	var s float64
	for i, x := range z {
		p[i] = math.Exp(float64(x) - m)
		s += p[i]
	}
	for i := range p {
		p[i] /= s
	}
	return m + math.Log(s)
}
