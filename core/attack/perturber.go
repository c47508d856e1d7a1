// Package attack searches for small changes of a text that change what a classifier says of it. It knows a Victim, never a model.
package attack

import "context"

// Victim scores texts. Optional capabilities are found by type assertion (GradientVictim, GuideVictim, FlipVictim,
// EmbeddingVictim, MaskVictim, TokenVictim).
type Victim interface {
	// Labels are the class names, in the order of scores.
	Labels() []string
	// Scores returns one row of class probabilities per text.
	Scores(ctx context.Context, texts []string) ([][]float32, error)
}

// GradientVictim gives the importance of each byte span of a text by the gradient of the loss of label.
type GradientVictim interface {
	Victim
	// SpanImportance returns, per span, the L2 norm of the gradient of the loss with respect to the word embeddings of the tokens in it.
	SpanImportance(ctx context.Context, text string, label int, spans []Span) ([]float32, error)
}

// EmbeddingVictim embeds texts (for sentence similarity) and finds nearest words.
type EmbeddingVictim interface {
	Victim
	Embed(ctx context.Context, texts []string) ([][]float32, error)
	// Nearest returns up to n words close to word in embedding space, closest first.
	Nearest(ctx context.Context, word string, n int) ([]string, error)
}

// MaskVictim predicts words for a masked span.
type MaskVictim interface {
	Victim
	// Fill returns up to n words for the span, most likely first.
	Fill(ctx context.Context, text string, at Span, n int) ([]Candidate, error)
}

// FlipVictim ranks substitutions of a span by their first-order effect on the loss of label: the gradient at the span's tokens times the
// difference of word embeddings (Ebrahimi et al. 2018).
type FlipVictim interface {
	Victim
	// Flips returns, per span taken alone, up to n words, the most harmful first. P is any score that falls along the list.
	Flips(ctx context.Context, text string, label int, spans []Span, n int) ([][]Candidate, error)
}

// Edit puts To in place of one span of a text.
type Edit struct {
	At Span
	To string
}

// GuideVictim estimates from gradients what edits do, without scoring the edited texts.
type GuideVictim interface {
	Victim
	// Gains returns per edit, taken alone, by how much it lowers the score of label to first order, in any unit that is the same for all edits of
	// a call.
	Gains(ctx context.Context, text string, label int, edits []Edit) ([]float32, error)
	// Passes is how often the model runs forward and backward for one call of Gains.
	Passes() int
}

// TokenVictim shows the tokenization.
type TokenVictim interface {
	Victim
	Tokens(text string) ([]Span, []string)
}

// Span is a byte range [Start, End) of a text.
type Span struct{ Start, End int }

// Candidate is a word with its probability.
type Candidate struct {
	Text string
	P    float32
}

// Request is what a Perturber gets for one text.
type Request struct {
	Text string
	// Words are the byte spans of the words; May lists the indices of those that may change.
	Words []Span
	May   []int
	// Max is the largest number of candidates wanted.
	Max int
	// Label is the class to get away from (or the original one), Labels the names.
	Label  int
	Labels []string
	Seed   uint64
	Params map[string]string
}

// Perturber makes candidate texts: a built-in transformation or a plugin. The same requests and seeds give the same candidates.
type Perturber interface {
	Name() string
	// Perturb returns candidate texts for each request, many requests at a time. v may be asked for scores and its optional
	// capabilities; it is nil where the caller has none.
	Perturb(ctx context.Context, reqs []Request, v Victim) ([][]string, error)
}
