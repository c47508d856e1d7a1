package zeroshot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Scorer is a causal language model: generate.Scorer.
type Scorer interface {
	Continuations(ctx context.Context, prompt []int32, texts [][]int32) ([][]float64, error)
}

// Codec turns texts into ids as the decoder wants them.
type Codec struct {
	// Prompt encodes the beginning of a text, Plain what follows.
	Prompt, Plain func(text string) []int32
	// Decode is the text of ids; it cuts long texts.
	Decode func(ids []int32) string
}

// PromptOptions change how a decoder is asked. Zero values mean the defaults in brackets.
type PromptOptions struct {
	// Shots is the number of examples shown in the prompt [16]; negative is none.
	Shots int
	// Context bounds the tokens of a prompt [2048]; texts and examples are cut to fit.
	Context int
	// Raw leaves the labels' likelihoods as they are: no calibration.
	Raw bool
	// Keep uses the first prompt instead of choosing one on the examples.
	Keep bool
}

// TaskError is a mistake of those who set the task: its words do not fit the model.
type TaskError struct{ Err error }

func (e *TaskError) Error() string { return e.Err.Error() }
func (e *TaskError) Unwrap() error { return e.Err }

func wrong(format string, args ...any) error { return &TaskError{fmt.Errorf(format, args...)} }

// short cuts a name for a message.
func short(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// prompted labels a text by the likelihood of each label's word after a prompt, divided by its likelihood after the same prompt over texts that
// say nothing: contextual calibration (Zhao et al., 2021), which takes out what the prompt and the words' own frequency favour.
type prompted struct {
	s       Scorer
	codec   Codec
	t       *Task
	o       PromptOptions
	words   [][]int32 // of each label, with the space before
	head    string
	format  string
	demos   []Example
	neutral []float64 // log-probabilities of the labels on texts that say nothing
	about   string
}

// empties are the texts that say nothing, as in the paper.
var empties = []string{"N/A", "", "[MASK]"}

// formats are prompts for tasks that bring none.
var formats = []string{"Text: {text}\nLabel:", "Input: {text}\nCategory:", "{text}\nThis is about", "{text}\nType:"}

// choiceSamples bounds the examples that a prompt is chosen on.
const choiceSamples = 16

// NewPrompted prepares a prompt. With examples it chooses among the task's prompts, and whether to show examples, by how likely the examples'
// labels are; those shown are not counted.
func NewPrompted(ctx context.Context, s Scorer, codec Codec, t *Task, examples []Example, o PromptOptions) (Classifier, error) {
	if err := t.checkExamples(examples); err != nil {
		return nil, err
	}
	if o.Shots == 0 {
		o.Shots = 16
	}
	if o.Context <= 0 {
		o.Context = 2048
	}
	c := &prompted{s: s, codec: codec, t: t, o: o, head: header(t)}
	for _, l := range t.Labels {
		ids := codec.Plain(" " + l.word())
		if len(ids) == 0 {
			return nil, wrong("label %q has no tokens", short(l.Name))
		}
		if len(ids) > o.Context/8 {
			return nil, wrong("label %q has %d tokens: give it a shorter word", short(l.Name), len(ids))
		}
		c.words = append(c.words, ids)
	}
	candidates := t.Prompts
	if len(candidates) == 0 {
		candidates = formats
	}
	shown, rest := c.share(examples)
	tries := []*prompted{}
	for i, format := range candidates {
		if i > 0 && (o.Keep || len(rest) == 0) {
			break
		}
		one := *c
		one.format, one.demos = format, nil
		tries = append(tries, &one)
	}
	if len(shown) > 0 {
		if len(rest) == 0 || o.Keep {
			tries[0].demos = shown
		} else {
			// The prompt is chosen without examples in it, then the examples are tried with the best.
			best, _, err := choose(ctx, tries, rest)
			if err != nil {
				return nil, err
			}
			with := *best
			with.demos = shown
			tries = []*prompted{best, &with}
		}
	}
	best, right, err := choose(ctx, tries, rest)
	if err != nil {
		return nil, err
	}
	best.about = fmt.Sprintf("likelihood of the label after %q, %d examples shown", best.format, len(best.demos))
	if right >= 0 {
		best.about += fmt.Sprintf("; %d of %d others right", right, len(rest))
	}
	return best, nil
}

// choose returns the candidate under which the examples' labels are likeliest, ready to use, and how many it gets right (−1 when there is
// nothing to choose).
func choose(ctx context.Context, tries []*prompted, examples []Example) (*prompted, int, error) {
	best, bestLoss, bestRight := tries[0], math.Inf(1), -1
	for _, c := range tries {
		if err := c.calibrate(ctx); err != nil {
			return nil, 0, err
		}
		if len(tries) == 1 {
			return c, -1, nil
		}
		loss, right := 0.0, 0
		for _, x := range examples {
			p, err := c.classify(ctx, x.Text)
			if err != nil {
				return nil, 0, err
			}
			loss -= math.Log(max(p[x.Label], 1e-12))
			if argMax(p) == x.Label {
				right++
			}
		}
		if loss < bestLoss {
			best, bestLoss, bestRight = c, loss, right
		}
	}
	return best, bestRight, nil
}

// share divides examples: some to show, as evenly over labels as they allow and in turn, and a few others to choose on.
func (c *prompted) share(examples []Example) (shown, rest []Example) {
	by := make([][]Example, len(c.t.Labels))
	for _, x := range examples {
		by[x.Label] = append(by[x.Label], x)
	}
	var turn []Example
	for i := 0; len(turn) < len(examples); i++ {
		for _, list := range by {
			if i < len(list) {
				turn = append(turn, list[i])
			}
		}
	}
	n := min(max(c.o.Shots, 0), len(turn))
	// Half of the prompt at most is examples.
	room := c.o.Context/2 - len(c.codec.Plain(c.head))
	for i, x := range turn[:n] {
		if room -= len(c.codec.Plain(x.Text)) + 16; room < 0 {
			n = i
			break
		}
	}
	shown, rest = turn[:n], turn[n:]
	return shown, rest[:min(len(rest), choiceSamples)]
}

// header tells the task, when there is something to tell.
func header(t *Task) string {
	var b strings.Builder
	if t.About != "" {
		b.WriteString("Decide " + strings.TrimSuffix(t.About, ".") + ".\n")
	}
	described := false
	for _, l := range t.Labels {
		described = described || l.Description != ""
	}
	if described {
		for _, l := range t.Labels {
			b.WriteString("- " + l.word())
			if l.Description != "" {
				b.WriteString(": " + l.Description)
			}
			b.WriteString("\n")
		}
	} else if len(t.Labels) <= 20 {
		words := make([]string, len(t.Labels))
		for i, l := range t.Labels {
			words[i] = l.word()
		}
		b.WriteString("Labels: " + strings.Join(words, ", ") + "\n")
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

func (c *prompted) About() string { return c.about }

// prompt writes the question for one text.
func (c *prompted) prompt(text string) string {
	var b strings.Builder
	b.WriteString(c.head)
	for _, x := range c.demos {
		b.WriteString(strings.Replace(c.format, "{text}", oneLine(x.Text), 1))
		b.WriteString(" " + c.t.Labels[x.Label].word() + "\n\n")
	}
	b.WriteString(strings.Replace(c.format, "{text}", oneLine(text), 1))
	return b.String()
}

// oneLine keeps a text from looking like the next example.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (c *prompted) logProbs(ctx context.Context, text string) ([]float64, error) {
	longest := 0
	for _, w := range c.words {
		longest = max(longest, len(w))
	}
	ids := c.codec.Prompt(c.prompt(text))
	if over := len(ids) + longest - c.o.Context; over > 0 {
		body := c.codec.Plain(text)
		if len(body) <= over+1 {
			return nil, wrong("the prompt without its text has %d tokens: the context of %d is too small; show fewer examples or describe less", len(ids)-len(body), c.o.Context)
		}
		ids = c.codec.Prompt(c.prompt(c.codec.Decode(body[:len(body)-over-1])))
		if len(ids)+longest > c.o.Context+8 {
			return nil, wrong("the prompt has %d tokens: the context of %d is too small", len(ids), c.o.Context)
		}
	}
	lps, err := c.s.Continuations(ctx, ids, c.words)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(lps))
	for l, tokens := range lps {
		for _, lp := range tokens {
			out[l] += lp
		}
		if math.IsNaN(out[l]) {
			return nil, errors.New("the model's logits are not numbers")
		}
	}
	return out, nil
}

// calibrate measures the labels on texts that say nothing: the mean of their probabilities.
func (c *prompted) calibrate(ctx context.Context) error {
	c.neutral = make([]float64, len(c.words))
	if c.o.Raw {
		return nil
	}
	mean := make([]float64, len(c.words))
	for _, text := range empties {
		lps, err := c.logProbs(ctx, text)
		if err != nil {
			return err
		}
		for l, p := range softmax(lps) {
			mean[l] += p / float64(len(empties))
		}
	}
	for l, p := range mean {
		c.neutral[l] = math.Log(max(p, 1e-12))
	}
	return nil
}

func (c *prompted) classify(ctx context.Context, text string) ([]float64, error) {
	lps, err := c.logProbs(ctx, text)
	if err != nil {
		return nil, err
	}
	for l := range lps {
		lps[l] -= c.neutral[l]
	}
	return softmax(lps), nil
}

func (c *prompted) Classify(ctx context.Context, texts []string) ([][]float64, error) {
	out := make([][]float64, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = c.classify(ctx, text); err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
	}
	return out, nil
}
