package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/quant"
)

func (a *app) quantizeCmd() *cobra.Command {
	var out, typ string
	var again, skip bool
	var text textFlags
	cmd := &cobra.Command{
		Use:   "quantize MODEL --type T -o PATH",
		Short: "Store a model's weights in fewer bits",
		Long: "quantize writes an encoder's folder with int8 rows (int8), which temper maps and multiplies in integers, or a decoder as a GGUF file\n" +
			"(the other types), mixed as llama.cpp mixes them. For a decoder it measures the perplexity before and after, on --text or, without it, on\n" +
			"dialogues that temper brings along.\n\nTypes: " + strings.Join(quant.Types(), ", "),
		Example: "  temper quantize out/ --type int8 -o out-int8/\n  temper quantize llama/ --type q4_k_m -o llama-q4_k_m.gguf",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ = strings.ToLower(typ)
			if !slices.Contains(quant.Types(), typ) {
				return usagef("--type %q: expected one of %s", typ, strings.Join(quant.Types(), ", "))
			}
			if typ == quant.Int8 && text.file != "" {
				return usagef("--text: the perplexity is of decoders, which %s is not for", typ)
			}
			if skip && text.file != "" {
				return usagef("give --text or --no-perplexity, not both")
			}
			if text.context < 0 || text.stride < 0 {
				return usagef("--context %d --stride %d: want 0 (the default) or more", text.context, text.stride)
			}
			sample, err := a.quantizeText(text.file)
			if err != nil {
				return err
			}
			bar := a.progress("quantizing", -1)
			o := quant.Options{Type: typ, Threads: a.threads, Requantize: again, Progress: func(done, total int, name string) { bar.set(done, total, name) }}
			r, err := a.quantize(cmd, args[0], out, o)
			bar.done()
			if err == nil {
				err = a.keepCost(cmd, args[0], out)
			}
			if err != nil {
				return err
			}
			res := quantizeResult{Report: r}
			if typ != quant.Int8 && !skip {
				path, err := a.modelPath(cmd, args[0])
				if err != nil {
					return err
				}
				if res.Perplexity, err = a.compareText(cmd, path, out, &text, sample); err != nil {
					return fmt.Errorf("wrote %s; its perplexity: %w", out, err)
				}
			}
			return a.result(res, func(w io.Writer) error {
				worst := quant.TensorReport{}
				for _, t := range r.Tensors {
					if t.Relative > worst.Relative {
						worst = t
					}
				}
				_, err := fmt.Fprintf(w, "%s → %s, %.2f bits a weight; largest relative error %.4f (%s)\nwrote %s\n",
					humanize.Bytes(uint64(r.Before)), humanize.Bytes(uint64(r.After)), r.BitsPerWeight(), worst.Relative, worst.Name, out)
				if p := res.Perplexity; p != nil && err == nil {
					_, err = fmt.Fprintf(w, "perplexity of %d tokens of %s: %.3f → %.3f (%+.2f %%)\n", p.Tokens, p.Text, p.Before, p.After, 100*(p.After/p.Before-1))
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "folder (int8) or .gguf file to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&typ, "type", "int8", "element type")
	f.StringVar(&text.file, "text", "", "plain text to measure the perplexity of a decoder on, before and after")
	f.IntVar(&text.context, "context", 0, "tokens of a window of that (default: 1024, or what the model takes if that is less)")
	f.IntVar(&text.stride, "stride", 0, "tokens that a window scores (default: half of it)")
	f.BoolVar(&skip, "no-perplexity", false, "do not measure the perplexity")
	f.BoolVar(&again, "requantize", false, "allow a model that is quantized already: its loss adds up")
	return cmd
}

// quantizeResult is the contract of temper quantize.
type quantizeResult struct {
	*quant.Report
	Perplexity *perplexityChange `json:"perplexity,omitempty"`
}

// perplexityChange is what quantizing did to a decoder's perplexity on a text.
type perplexityChange struct {
	Text   string  `json:"text"`
	Tokens int     `json:"tokens"`
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// quantizeText reads the text to measure on, or takes the built-in dialogues that nothing is tuned on.
func (a *app) quantizeText(file string) (string, error) {
	if file != "" {
		raw, err := readLimited(file)
		return string(raw), err
	}
	var b strings.Builder
	_, test := builtin.Dialogues()
	for _, d := range test {
		for _, t := range d.Messages {
			fmt.Fprintf(&b, "%s: %s\n", strings.ToUpper(t.Role[:1])+t.Role[1:], t.Content)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// compareText measures the perplexity of a text under two models, one after the other.
func (a *app) compareText(cmd *cobra.Command, before, after string, f *textFlags, text string) (*perplexityChange, error) {
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	c := &perplexityChange{Text: f.file}
	if c.Text == "" {
		c.Text = "the built-in dialogues"
	}
	for i, to := range []*float64{&c.Before, &c.After} {
		path := []string{before, after}[i]
		d, err := generate.Open(path, generate.OpenOptions{})
		if err != nil {
			return nil, err
		}
		r, err := a.measureText(cmd, d, f, text, func() (*generate.Scorer, error) { return generate.NewScorer(d.Model, k) })
		if err = errors.Join(err, d.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		*to, c.Tokens = r.Perplexity.Perplexity, r.Tokens
	}
	return c, nil
}

func (a *app) quantize(cmd *cobra.Command, ref, out string, o quant.Options) (*quant.Report, error) {
	path, err := a.modelPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".gguf") {
		if o.Type == quant.Int8 {
			return nil, fmt.Errorf("%s: int8 folders are made of Hugging Face folders; for GGUF files use q8_0", path)
		}
		g, err := checkpoint.OpenGGUF(path)
		if err != nil {
			return nil, err
		}
		defer g.Close()
		m, err := g.Model()
		if err != nil {
			return nil, err
		}
		return quant.GGUF(cmd.Context(), m, out, o)
	}
	f, err := checkpoint.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if o.Type == quant.Int8 {
		return quant.Int8Folder(cmd.Context(), f, out, o)
	}
	m, err := f.GGUFModel()
	if err != nil {
		return nil, err
	}
	return quant.GGUF(cmd.Context(), m, out, o)
}
