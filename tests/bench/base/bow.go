package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode"

	"github.com/temper-ml/temper/core/train"
)

// A bag of words: lower-cased words, their logarithmic counts times inverse document frequency, rows of unit length, multinomial logistic
// regression by L-BFGS. It knows nothing but its training rows.

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

type sparse struct {
	at []int32
	v  []float32
}

type bag struct {
	ids map[string]int32
	idf []float64
}

func newBag(texts []string) *bag {
	b := &bag{ids: map[string]int32{}}
	var df []int
	for _, t := range texts {
		seen := map[int32]bool{}
		for _, w := range words(t) {
			id, ok := b.ids[w]
			if !ok {
				id = int32(len(df))
				b.ids[w] = id
				df = append(df, 0)
			}
			if !seen[id] {
				seen[id] = true
				df[id]++
			}
		}
	}
	for _, n := range df { // smoothed, as scikit-learn has it
		b.idf = append(b.idf, math.Log(float64(1+len(texts))/float64(1+n))+1)
	}
	return b
}

func (b *bag) vector(text string) sparse {
	counts := map[int32]float64{}
	var s sparse
	for _, w := range words(text) {
		if id, ok := b.ids[w]; ok {
			if counts[id] == 0 {
				s.at = append(s.at, id)
			}
			counts[id]++
		}
	}
	var norm float64
	for _, id := range s.at {
		v := (1 + math.Log(counts[id])) * b.idf[id]
		norm += v * v
		s.v = append(s.v, float32(v))
	}
	for i := range s.v {
		s.v[i] /= float32(math.Sqrt(norm))
	}
	return s
}

// bagOfWords trains on texts and returns the predicted classes of test.
func bagOfWords(ctx context.Context, texts []string, y []int, classes int, test []string, c float64) ([]int32, error) {
	b := newBag(texts)
	x := make([]sparse, len(texts))
	for i, t := range texts {
		x[i] = b.vector(t)
	}
	dim := len(b.idf)
	if dim == 0 {
		return nil, fmt.Errorf("no words")
	}
	z, p := make([]float64, classes), make([]float64, classes)
	objective := func(v, g []float64) float64 {
		copy(g, v)
		clear(g[dim*classes:])
		loss := 0.0
		for i := range v[:dim*classes] {
			loss += 0.5 * v[i] * v[i]
		}
		for i, row := range x {
			logits(z, v, row, dim)
			top := z[0]
			for _, q := range z {
				top = max(top, q)
			}
			sum := 0.0
			for j, q := range z {
				p[j] = math.Exp(q - top)
				sum += p[j]
			}
			loss += c * (top + math.Log(sum) - z[y[i]])
			for j := range p {
				d := p[j] / sum
				if j == y[i] {
					d--
				}
				d *= c
				g[dim*classes+j] += d
				for k, id := range row.at {
					g[int(id)*classes+j] += d * float64(row.v[k])
				}
			}
		}
		return loss
	}
	v := make([]float64, (dim+1)*classes)
	if err := train.Minimise(ctx, v, objective, 1e-4*c*math.Sqrt(float64(len(x))), 200); err != nil {
		return nil, err
	}
	out := make([]int32, len(test))
	for i, t := range test {
		logits(z, v, b.vector(t), dim)
		for j, q := range z {
			if q > z[out[i]] {
				out[i] = int32(j)
			}
		}
	}
	return out, nil
}

func logits(z, v []float64, row sparse, dim int) {
	classes := len(z)
	copy(z, v[dim*classes:])
	for k, id := range row.at {
		w := v[int(id)*classes : (int(id)+1)*classes]
		for j := range z {
			z[j] += float64(row.v[k]) * w[j]
		}
	}
}
