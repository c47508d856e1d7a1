package zeroshot

import (
	"context"
	"fmt"
	"strings"
)

// Entailer is a classifier of pairs, premise and hypothesis (a pipeline over a model for natural language inference).
type Entailer interface {
	Logits(ctx context.Context, texts, pairs []string) ([][]float32, error)
	Labels() []string
}

// entailment asks of each label whether the text entails the template filled with its description (Yin, Hay & Roth, 2019); the labels'
// probabilities are the softmax over their entailment logits.
type entailment struct {
	e          Entailer
	yes        int
	hypotheses []string
}

// Entails is the index of the label that stands for entailment, −1 when there is none: the model is not for inference.
func Entails(labels []string) int {
	for i, l := range labels {
		if strings.HasPrefix(strings.ToLower(l), "entail") {
			return i
		}
	}
	return -1
}

// NewEntailment prepares one hypothesis per label.
func NewEntailment(e Entailer, t *Task) (Classifier, error) {
	c := &entailment{e: e, yes: Entails(e.Labels())}
	if c.yes < 0 {
		return nil, fmt.Errorf("expected a model with a label for entailment, got %s", strings.Join(e.Labels(), ", "))
	}
	template := t.Template
	if template == "" {
		template = "This text is about {}."
	}
	for _, l := range t.Labels {
		c.hypotheses = append(c.hypotheses, strings.Replace(template, "{}", l.describe(), 1))
	}
	return c, nil
}

func (c *entailment) About() string { return "entailment of each label's sentence" }

func (c *entailment) Classify(ctx context.Context, texts []string) ([][]float64, error) {
	out := make([][]float64, len(texts))
	for i, text := range texts {
		first := make([]string, len(c.hypotheses))
		for l := range first {
			first[l] = text
		}
		z, err := c.e.Logits(ctx, first, c.hypotheses)
		if err != nil {
			return nil, err
		}
		yes := make([]float64, len(z))
		for l, row := range z {
			yes[l] = float64(row[c.yes])
		}
		out[i] = softmax(yes)
	}
	return out, nil
}
