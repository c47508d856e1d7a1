package main

import (
	"math"
	"strings"
	"unicode"
)

// bayes is multinomial naive Bayes over lower-cased words with add-one smoothing: the baseline beside which the demo puts a model.
type bayes struct {
	labels []string
	prior  []float64
	words  map[string][]float64 // log-likelihoods per label
	unseen []float64
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// trainBayes counts words per label; labels[i] belongs to texts[i].
func trainBayes(texts, labels []string) *bayes {
	b := &bayes{words: map[string][]float64{}}
	at := map[string]int{}
	for _, l := range labels {
		if _, ok := at[l]; !ok {
			at[l] = len(b.labels)
			b.labels = append(b.labels, l)
		}
	}
	n := len(b.labels)
	total := make([]float64, n)
	b.prior, b.unseen = make([]float64, n), make([]float64, n)
	for i, t := range texts {
		l := at[labels[i]]
		b.prior[l]++
		for _, w := range words(t) {
			if b.words[w] == nil {
				b.words[w] = make([]float64, n)
			}
			b.words[w][l]++
			total[l]++
		}
	}
	for l := range n {
		b.prior[l] = math.Log(b.prior[l] / float64(len(texts)))
		denom := total[l] + float64(len(b.words)) + 1
		b.unseen[l] = math.Log(1 / denom)
		for _, c := range b.words {
			c[l] = math.Log((c[l] + 1) / denom)
		}
	}
	return b
}

// classify returns the most likely label.
func (b *bayes) classify(text string) string {
	best, at := math.Inf(-1), 0
	for l := range b.labels {
		s := b.prior[l]
		for _, w := range words(text) {
			if p, ok := b.words[w]; ok {
				s += p[l]
			} else {
				s += b.unseen[l]
			}
		}
		if s > best {
			best, at = s, l
		}
	}
	return b.labels[at]
}
