package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
)

// openPipeline opens MODEL ready to run.
func (a *app) openPipeline(cmd *cobra.Command, ref string, o pipeline.Options) (*pipeline.Pipeline, error) {
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	if a.named(ref) {
		f, err := a.builtin(ref)
		if err != nil {
			return nil, err
		}
		return pipeline.OpenFolder(f, k, o)
	}
	path, err := a.modelPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".gguf") {
		return nil, fmt.Errorf("%s: a GGUF file holds a decoder: it is for temper generate, chat, serve, and classify with --labels", ref)
	}
	return pipeline.Open(path, k, o)
}

// inputTexts are the texts of a call: the arguments, the rows of --data, or the lines of standard input.
func (a *app) inputTexts(args []string, d *dataFlags) ([]string, error) {
	if d.file != "" {
		if len(args) > 0 {
			return nil, usagef("give texts as arguments or --data, not both")
		}
		set, err := d.open(a, d.file, d.rows, true)
		if err != nil {
			return nil, err
		}
		return set.Texts, nil
	}
	if len(args) > 0 && !(len(args) == 1 && args[0] == "-") {
		return args, nil
	}
	if len(args) == 0 && interactiveIn(a.in) {
		return nil, usagef("no texts: give them as arguments, with --data FILE, or on standard input")
	}
	var texts []string
	r := bufio.NewReaderSize(io.LimitReader(a.in, 1<<30), 1<<16)
	for {
		line, err := r.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			texts = append(texts, line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("no texts: standard input is empty")
	}
	return texts, nil
}

func (a *app) tokenizeCmd() *cobra.Command {
	var plain bool
	cmd := &cobra.Command{
		Use:     "tokenize MODEL TEXT…",
		Short:   "Show the tokens, ids and byte offsets of texts",
		Example: `  temper tokenize minilm/ "unbelievable prizes" --json`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			texts, err := a.inputTexts(args[1:], &dataFlags{})
			if err != nil {
				return err
			}
			tok, err := a.openTokenizer(cmd, args[0])
			if err != nil {
				return err
			}
			type encoding struct {
				IDs     []int32  `json:"ids"`
				Tokens  []string `json:"tokens"`
				Offsets [][2]int `json:"offsets"`
			}
			var out struct {
				Encodings []encoding `json:"encodings"`
			}
			encs, err := tok.EncodeBatch(texts, token.Options{NoSpecial: plain, NoLimits: true})
			if err != nil {
				return err
			}
			for _, e := range encs {
				offsets := make([][2]int, len(e.Offsets))
				for i, o := range e.Offsets {
					offsets[i] = [2]int{o.Start, o.End}
				}
				out.Encodings = append(out.Encodings, encoding{e.IDs, e.Tokens, offsets})
			}
			return a.result(out, func(w io.Writer) error {
				for i, e := range out.Encodings {
					t := newTable(w, "id", "token", "bytes", "text")
					for j, id := range e.IDs {
						o := e.Offsets[j]
						t.AppendRow([]any{id, e.Tokens[j], fmt.Sprintf("%d:%d", o[0], o[1]), fmt.Sprintf("%q", texts[i][o[0]:o[1]])})
					}
					t.Render()
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&plain, "no-special", false, "leave out the tokens that the model's template adds")
	return cmd
}

// openTokenizer reads the tokenizer of a folder or GGUF file without its weights.
func (a *app) openTokenizer(cmd *cobra.Command, ref string) (*token.Tokenizer, error) {
	var f *checkpoint.Folder
	if a.named(ref) {
		var err error
		if f, err = a.builtin(ref); err != nil {
			return nil, err
		}
	} else {
		path, err := a.modelPath(cmd, ref)
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(path, ".gguf") {
			g, err := checkpoint.OpenGGUF(path)
			if err != nil {
				return nil, err
			}
			defer g.Close()
			meta, err := token.GGUFFrom(g.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return token.FromGGUF(meta)
		}
		if f, err = checkpoint.OpenFolder(path); err != nil {
			return nil, err
		}
	}
	defer f.Close()
	var config struct {
		ModelType string `json:"model_type"`
	}
	if raw, err := f.Config(); err == nil {
		_ = json.Unmarshal(raw, &config) // a folder without a model may hold a tokenizer.json
	}
	tok, err := token.FromFiles(f.File, config.ModelType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	return tok, nil
}

func (a *app) embedCmd() *cobra.Command {
	var d dataFlags
	var maxTokens int
	cmd := &cobra.Command{
		Use:     "embed MODEL TEXT…|--data FILE",
		Short:   "Turn texts into vectors of unit length",
		Example: `  temper embed minilm/ "a cat" "a dog" --json`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			texts, err := a.inputTexts(args[1:], &d)
			if err != nil {
				return err
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{Head: model.HeadNone, MaxTokens: maxTokens, Eager: true})
			if err != nil {
				return err
			}
			defer p.Close()
			vs, err := p.Embed(cmd.Context(), texts)
			if err != nil {
				return err
			}
			out := struct {
				Dim        int         `json:"dim"`
				Embeddings [][]float32 `json:"embeddings"`
			}{p.Config().Hidden, vs}
			if len(vs) > 0 {
				out.Dim = len(vs[0])
			}
			return a.result(out, func(w io.Writer) error {
				if len(vs) > 1 && len(vs) <= 12 {
					header := []any{"cosine"}
					for i := range vs {
						header = append(header, i+1)
					}
					t := newTable(w, header...)
					for i := range vs {
						row := []any{fmt.Sprintf("%d %s", i+1, clip(texts[i], 40))}
						for j := range vs {
							row = append(row, fmt.Sprintf("%.3f", dot(vs[i], vs[j])))
						}
						t.AppendRow(row)
					}
					t.Render()
					return nil
				}
				for i, v := range vs {
					fmt.Fprintf(w, "%s\t%d values: %.4f …\n", clip(texts[i], 60), len(v), v[:min(4, len(v))])
				}
				return nil
			})
		},
	}
	d.add(cmd, false)
	cmd.Flags().IntVar(&maxTokens, "max-tokens", 0, "cut texts at this many tokens (default: what the model takes)")
	return cmd
}

func dot(a, b []float32) float64 {
	s := 0.0
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

// clip shortens a text for a table.
func clip(s string, n int) string {
	r := []rune(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}

func (a *app) fillCmd() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:     "fill MODEL TEXT",
		Short:   "Predict the word for a mask",
		Example: `  temper fill bert/ "The capital of France is [MASK]."`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 1 {
				return usagef("--top %d: want 1 or more", n)
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{Head: model.HeadMasked, Eager: true})
			if err != nil {
				return err
			}
			defer p.Close()
			if fresh := p.Bundle().Fresh; len(fresh) > 0 {
				return fmt.Errorf("%s: no trained tensor %q: the model was not trained to fill in masks", args[0], fresh[0])
			}
			words, err := p.Fill(cmd.Context(), args[1], n)
			if err != nil {
				return err
			}
			out := struct {
				Results []pipeline.Word `json:"results"`
			}{words}
			return a.result(out, func(w io.Writer) error {
				t := newTable(w, "token", "share", "text")
				for _, c := range words {
					t.AppendRow([]any{c.Token, percent(float64(c.Score)), c.Text})
				}
				t.Render()
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&n, "top", 5, "number of candidates")
	return cmd
}

func (a *app) classifyCmd() *cobra.Command {
	var d dataFlags
	var zero zeroFlags
	var maxTokens int
	cmd := &cobra.Command{
		Use:   "classify MODEL TEXT…|--data FILE",
		Short: "Label texts, with a tuned model or, given labels, with any",
		Example: `  temper classify out/ "You have won a prize, call now" --json
  temper classify minilm/ "Where is my parcel?" --labels refund,shipping,praise
  temper classify gemma-3-270m-q4_k_m.gguf "Where is my parcel?" --describe labels.yaml --examples few.csv`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			texts, err := a.inputTexts(args[1:], &d)
			if err != nil {
				return err
			}
			if zero.wanted() {
				return a.classifyZero(cmd, args[0], texts, &zero)
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{MaxTokens: maxTokens, Eager: true})
			if err != nil {
				return err
			}
			defer p.Close()
			if p.Config().Head == model.HeadToken {
				return a.printTags(cmd, p, texts)
			}
			preds, err := p.Classify(cmd.Context(), texts)
			if err != nil {
				return err
			}
			return a.printClasses(preds, p.Labels())
		},
	}
	d.add(cmd, false)
	zero.add(cmd)
	cmd.Flags().IntVar(&maxTokens, "max-tokens", 0, "cut texts at this many tokens (default: what the model takes)")
	return cmd
}

// printTags is classify for a model that labels tokens.
func (a *app) printTags(cmd *cobra.Command, p *pipeline.Pipeline, texts []string) error {
	tags, err := p.Tag(cmd.Context(), texts)
	if err != nil {
		return err
	}
	type result struct {
		Text   string          `json:"text"`
		Spans  []pipeline.Span `json:"spans"`
		Tokens []pipeline.Tag  `json:"tokens"`
	}
	var out struct {
		Results []result `json:"results"`
	}
	for i, t := range tags {
		out.Results = append(out.Results, result{texts[i], pipeline.Spans(texts[i], t), t})
	}
	return a.result(out, func(w io.Writer) error {
		t := newTable(w, "label", "share", "part of the text", "bytes")
		for _, r := range out.Results {
			for _, s := range r.Spans {
				t.AppendRow([]any{s.Label, percent(float64(s.Score)), clip(s.Text, 90), fmt.Sprintf("%d:%d", s.Start, s.End)})
			}
		}
		t.Render()
		return nil
	})
}

func (a *app) printClasses(preds []pipeline.Prediction, labels []string) error {
	type result struct {
		Text   string             `json:"text"`
		Label  string             `json:"label"`
		Score  float32            `json:"score"`
		Scores map[string]float32 `json:"scores"`
	}
	var out struct {
		Results []result `json:"results"`
	}
	for _, p := range preds {
		r := result{p.Text, p.Label, p.Score, map[string]float32{}}
		for i, s := range p.Scores {
			if i < len(labels) {
				r.Scores[labels[i]] = s
			}
		}
		out.Results = append(out.Results, r)
	}
	return a.result(out, func(w io.Writer) error {
		t := newTable(w, "label", "share", "text")
		for _, r := range out.Results {
			t.AppendRow([]any{r.Label, percent(float64(r.Score)), clip(r.Text, 90)})
		}
		t.Render()
		return nil
	})
}
