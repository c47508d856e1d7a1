package zeroshot

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// Embedder turns texts into vectors of unit length (a pipeline over a sentence encoder).
type Embedder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// embedding labels a text by the cosine of its embedding with one prototype per label: the mean of the embeddings of the label's word and
// descriptions (Yin et al., 2019 call this label-fully-unseen classification by similarity), moved towards the mean of its examples, which
// is a prototypical network (Snell et al., 2017) without training. What share the examples get, which words stand for a label, and how sharp
// the probabilities are is chosen on the examples, each left out of its own prototype in turn; so is whether a linear classifier (see ridge) over
// words and examples takes their place.
type embedding struct {
	e     Embedder
	proto [][]float32
	sharp float64
	fit   *ridge // instead of prototypes, when it does better on the examples
	about string
}

// Sharpness of the softmax over cosines without examples to choose it on.
const defaultSharp = 20

// NewEmbedding prepares prototypes. examples may be empty.
func NewEmbedding(ctx context.Context, e Embedder, t *Task, examples []Example) (Classifier, error) {
	if err := t.checkExamples(examples); err != nil {
		return nil, err
	}
	template := t.Template
	if template == "" {
		template = "{}"
	}
	// Three ways to put a label; the first is the mean of the others.
	var texts []string
	for _, l := range t.Labels {
		texts = append(texts, l.word(), l.describe(), strings.Replace(template, "{}", l.describe(), 1))
	}
	for _, x := range examples {
		texts = append(texts, x.Text)
	}
	vs, err := e.Embed(ctx, texts)
	if err != nil {
		return nil, err
	}
	n := len(t.Labels)
	ways := [][][]float32{make([][]float32, n), make([][]float32, n), make([][]float32, n), make([][]float32, n)}
	for i := range n {
		one := vs[3*i : 3*i+3]
		ways[0][i] = unit(sum(one))
		for w := range 3 {
			ways[w+1][i] = one[w]
		}
	}
	c := &embedding{e: e, proto: ways[0], sharp: defaultSharp, about: "nearest description by sentence embeddings"}
	if len(examples) == 0 {
		return c, nil
	}
	shots := vs[3*n:]
	sums, counts := make([][]float32, n), make([]int, n)
	for i, x := range examples {
		if sums[x.Label] == nil {
			sums[x.Label] = make([]float32, len(shots[i]))
		}
		for k, v := range shots[i] {
			sums[x.Label][k] += v
		}
		counts[x.Label]++
	}
	names := []string{"words and descriptions", "words", "descriptions", "template"}
	bestLoss, bestRight := math.Inf(1), -1
	var bestShare, bestSharp float64
	var bestWay int
	for w, way := range ways {
		for _, share := range []float64{0, 0.25, 0.5, 0.75, 0.9, 1} {
			cos := make([][]float64, len(examples))
			for i, x := range examples {
				cos[i] = make([]float64, n)
				for l := range n {
					var without []float32
					if l == x.Label {
						without = shots[i]
					}
					cos[i][l] = dot(shots[i], blend(way[l], sums[l], without, counts[l], share))
				}
			}
			for _, sharp := range []float64{5, 10, 20, 40, 80} {
				loss, right := 0.0, 0
				for i, x := range examples {
					p := softmax(scaled(cos[i], sharp))
					loss -= math.Log(max(p[x.Label], 1e-12))
					if argMax(p) == x.Label {
						right++
					}
				}
				if right > bestRight || right == bestRight && loss < bestLoss {
					bestLoss, bestRight, bestShare, bestSharp, bestWay = loss, right, share, sharp, w
				}
			}
		}
	}
	c.sharp, c.proto = bestSharp, make([][]float32, n)
	for l := range n {
		c.proto[l] = blend(ways[bestWay][l], sums[l], nil, counts[l], bestShare)
	}
	c.about = fmt.Sprintf("sentence embeddings: %s for %.0f %%, %d examples for %.0f %%; %d of them right when left out", names[bestWay], 100*(1-bestShare), len(examples),
		100*bestShare, bestRight)
	if len(examples)+n > maxRidge {
		return c, nil
	}
	x, y := append(append([][]float32{}, shots...), ways[0]...), make([]int, len(examples)+n)
	for i, e := range examples {
		y[i] = e.Label
	}
	for l := range n {
		y[len(examples)+l] = l
	}
	penalties := []float64{0.1, 0.3, 1, 3}
	if len(x) > maxRidge/3 {
		penalties = []float64{0.3}
	}
	for _, penalty := range penalties {
		fit := fitRidge(x, y, n, len(examples), penalty)
		if fit == nil {
			continue
		}
		for _, sharp := range []float64{1, 2, 5, 10, 20} {
			loss, right := 0.0, 0
			for i, e := range examples {
				p := softmax(scaled(fit.left[i], sharp))
				loss -= math.Log(max(p[e.Label], 1e-12))
				if argMax(p) == e.Label {
					right++
				}
			}
			if right > bestRight || right == bestRight && loss < bestLoss {
				bestLoss, bestRight, c.sharp, c.fit = loss, right, sharp, fit
				c.about = fmt.Sprintf("sentence embeddings: least squares over words and %d examples, penalty %g; %d of them right when left out", len(examples), penalty, right)
			}
		}
	}
	return c, nil
}

// blend is a prototype: share of the mean of the examples (one of them left out), the rest from the label's words.
func blend(words, sum, without []float32, count int, share float64) []float32 {
	if without != nil {
		count--
	}
	if count == 0 || share == 0 {
		return words
	}
	mean := make([]float32, len(words))
	copy(mean, sum)
	for i, v := range without {
		mean[i] -= v
	}
	unit(mean)
	for i, v := range words {
		mean[i] = float32(share)*mean[i] + float32(1-share)*v
	}
	return unit(mean)
}

func (c *embedding) About() string { return c.about }

func (c *embedding) Classify(ctx context.Context, texts []string) ([][]float64, error) {
	vs, err := c.e.Embed(ctx, texts)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(texts))
	for i, v := range vs {
		if c.fit != nil {
			out[i] = softmax(scaled(c.fit.scores(v), c.sharp))
			continue
		}
		cos := make([]float64, len(c.proto))
		for l, p := range c.proto {
			cos[l] = dot(v, p)
		}
		out[i] = softmax(scaled(cos, c.sharp))
	}
	return out, nil
}

func sum(vs [][]float32) []float32 {
	out := make([]float32, len(vs[0]))
	for _, v := range vs {
		for i, x := range v {
			out[i] += x
		}
	}
	return out
}

// unit scales v to length 1 in place.
func unit(v []float32) []float32 {
	if n := math.Sqrt(dot(v, v)); n > 0 {
		for i := range v {
			v[i] = float32(float64(v[i]) / n)
		}
	}
	return v
}

func dot(a, b []float32) float64 {
	s := 0.0
	for i, v := range a {
		s += float64(v) * float64(b[i])
	}
	return s
}

func scaled(v []float64, by float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

func softmax(z []float64) []float64 {
	top := math.Inf(-1)
	for _, v := range z {
		top = max(top, v)
	}
	out, total := make([]float64, len(z)), 0.0
	for i, v := range z {
		out[i] = math.Exp(v - top)
		total += out[i]
	}
	for i := range out {
		out[i] /= total
	}
	return out
}

func argMax(v []float64) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}
