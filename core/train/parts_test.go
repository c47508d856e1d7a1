package train_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/train"
)

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    train.Schedule
		step int
		want float64
	}{
		{train.Schedule{Kind: "linear", Warmup: 5, Total: 30}, 0, 0},
		{train.Schedule{Kind: "linear", Warmup: 5, Total: 30}, 4, 0.8},
		{train.Schedule{Kind: "linear", Warmup: 5, Total: 30}, 5, 1},
		{train.Schedule{Kind: "linear", Warmup: 5, Total: 30}, 30, 0},
		{train.Schedule{Kind: "linear", Warmup: 5, Total: 30}, 40, 0},
		{train.Schedule{Kind: "linear", Total: 10}, 0, 1},
		{train.Schedule{Kind: "constant", Warmup: 2, Total: 10}, 1, 0.5},
		{train.Schedule{Kind: "constant", Warmup: 2, Total: 10}, 9, 1},
		{train.Schedule{Kind: "cosine", Total: 10}, 5, 0.5},
		{train.Schedule{Kind: "cosine", Total: 10, MinRatio: 0.1}, 10, 0.1},
		{train.Schedule{Kind: "wsd", Warmup: 2, Total: 20, Decay: 4}, 15, 1},
		{train.Schedule{Kind: "wsd", Warmup: 2, Total: 20, Decay: 4}, 18, 0.5},
		{train.Schedule{Kind: "wsd", Warmup: 2, Total: 20, Decay: 4, MinRatio: 0.2}, 25, 0.2},
	} {
		require.NoError(t, c.s.Validate())
		assert.InDelta(t, c.want, c.s.At(c.step), 1e-12, "%+v at %d", c.s, c.step)
	}
	assert.Error(t, train.Schedule{Kind: "steps"}.Validate())
	assert.Error(t, train.Schedule{Kind: "linear", Warmup: -1}.Validate())
}

// Gradients of the losses are those of finite differences.
func TestLossGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rows, cols := 5, 4
	logits := make([]float32, rows*cols)
	values := make([]float32, rows*cols)
	for i := range logits {
		logits[i], values[i] = float32(r.NormFloat64()*2), float32(r.IntN(2))
	}
	for name, l := range map[string]train.Loss{
		"plain": {}, "smooth": {Smoothing: 0.1}, "weighted": {ClassWeights: []float64{1, 2, 0.5, 3}},
		"both": {Smoothing: 0.2, ClassWeights: []float64{1, 2, 0.5, 3}}, "mse": {Kind: "mse"}, "bce": {Kind: "bce"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, l.Validate(cols))
			target := train.Targets{Classes: []int32{0, 3, -100, 2, 1}}
			if l.Kind != "" {
				target = train.Targets{Values: values}
			}
			w := l.Weight(target)
			g := make([]float32, len(logits))
			l.Sum(logits, rows, cols, target, w, g)
			for i := range logits {
				at := logits[i]
				const h = 1e-2
				logits[i] = at + h
				up := l.Sum(logits, rows, cols, target, w, nil)
				logits[i] = at - h
				down := l.Sum(logits, rows, cols, target, w, nil)
				logits[i] = at
				assert.InDelta(t, (up-down)/(2*h), g[i], 2e-5, "element %d", i)
			}
		})
	}
	assert.Error(t, train.Loss{Kind: "hinge"}.Validate(2))
	assert.Error(t, train.Loss{ClassWeights: []float64{1}}.Validate(2))
	assert.Error(t, train.Loss{Kind: "mse", Smoothing: 0.1}.Validate(2))
}

// Known values: cross-entropy with weights and smoothing as torch computes it, by hand.
func TestLossValues(t *testing.T) {
	z := []float32{2, 0}
	lse := math.Log(math.Exp(2) + 1)
	assert.InDelta(t, lse-2, train.Loss{}.Sum(z, 1, 2, train.Targets{Classes: []int32{0}}, 1, nil), 1e-7)
	s := train.Loss{Smoothing: 0.1}
	assert.InDelta(t, 0.95*(lse-2)+0.05*lse, s.Sum(z, 1, 2, train.Targets{Classes: []int32{0}}, 1, nil), 1e-7)
	assert.InDelta(t, math.Log1p(math.Exp(-2)), train.Loss{Kind: "bce"}.Sum([]float32{2}, 1, 1, train.Targets{Values: []float32{1}}, 1, nil), 1e-7)
	assert.Zero(t, train.Loss{}.Sum(z, 1, 2, train.Targets{Classes: []int32{-100}}, 0, nil))
}

func TestConstant(t *testing.T) {
	labels := []string{"a", "b", "never"}
	for want, said := range map[string][]int32{"a": {0, 0, 0, 0}, "b": {1, 1, 1, 1}, "": {0, 0, 0, 1}} {
		s := train.Score(said, []int32{0, 1, 1, 1}, labels, 0)
		assert.Equal(t, want, s.Constant(), said)
	}
	for _, said := range [][]int32{{0, 0}, {1, 1}} {
		s := train.Score(said, []int32{0, 0}, labels, 0)
		assert.Empty(t, s.Constant(), "the texts have one label alone")
	}
	assert.Empty(t, (&train.Scores{}).Constant())
}

func TestScore(t *testing.T) {
	s := train.Score([]int32{0, 0, 1, 1}, []int32{0, 1, 1, 1}, []string{"a", "b", "never"}, 0.5)
	assert.Equal(t, 0.75, s.Accuracy)
	// F1 of a: precision 1/2, recall 1; of b: precision 1, recall 2/3; the third label does not occur.
	assert.InDelta(t, (2.0/3+0.8)/2, s.MacroF1, 1e-12)
	assert.Equal(t, 3, s.Labels[1].Support)
	assert.InDelta(t, 2.0/3, s.Labels[1].Recall, 1e-12)
	assert.Zero(t, train.Score(nil, nil, []string{"a"}, 0).Accuracy)
}

func TestClipScale(t *testing.T) {
	assert.Equal(t, float32(1), train.ClipScale(0.5, 1))
	assert.InDelta(t, 1/(4+1e-6), train.ClipScale(4, 1), 1e-7)
	assert.Equal(t, float32(1), train.ClipScale(4, 0))
}

// The fit is at the optimum of scikit-learn's objective: its gradient vanishes.
func TestFitLogistic(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	r := rand.New(rand.NewPCG(3, 4))
	for _, classes := range []int{2, 5} {
		const n, dim, c = 200, 6, 10.0
		x, y := make([]float32, n*dim), make([]int32, n)
		for i := range y {
			y[i] = int32(r.IntN(classes))
			for j := range dim {
				x[i*dim+j] = float32(r.NormFloat64())
			}
			x[i*dim+int(y[i])%dim] += 1
		}
		fit, err := train.FitLogistic(context.Background(), k, x, dim, y, classes, c, nil)
		require.NoError(t, err)
		right := 0
		gw, gb := make([]float64, classes*dim), make([]float64, classes)
		for i, label := range y {
			p := make([]float64, classes)
			var sum float64
			best := 0
			for q := range classes {
				z := float64(fit.B[q])
				for j := range dim {
					z += float64(fit.W[q*dim+j]) * float64(x[i*dim+j])
				}
				p[q] = math.Exp(z)
				sum += p[q]
				if p[q] > p[best] {
					best = q
				}
			}
			if best == int(label) {
				right++
			}
			for q := range classes {
				d := p[q] / sum
				if q == int(label) {
					d--
				}
				gb[q] += c * d
				for j := range dim {
					gw[q*dim+j] += c * d * float64(x[i*dim+j])
				}
			}
		}
		first := 0
		if classes == 2 { // one weight vector, on the second class
			first = 1
			assert.Zero(t, fit.B[0])
		}
		for q := first; q < classes; q++ {
			assert.InDelta(t, 0, gb[q], 0.05)
			for j := range dim {
				assert.InDelta(t, 0, gw[q*dim+j]+float64(fit.W[q*dim+j]), 0.05)
			}
		}
		assert.Greater(t, right, n/classes+20)
	}
	_, err := train.FitLogistic(context.Background(), k, nil, 3, nil, 2, 1, nil)
	assert.Error(t, err)
}
