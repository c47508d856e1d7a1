package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/chart"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/train"
)

// ledgerFile stands in every folder that temper has made: what each step of the model's life took. A GGUF file has it beside it.
const ledgerFile = "temper_cost.json"

// ledger is the life of a model, oldest step first.
type ledger struct {
	Steps []ledgerStep `json:"steps"`
}

type ledgerStep struct {
	Step    string     `json:"step"` // pretrain, distill, label, tune, harden
	Method  string     `json:"method,omitempty"`
	Base    string     `json:"base,omitempty"`
	Seconds float64    `json:"seconds"`
	Cost    train.Cost `json:"cost"`
}

func ledgerPath(model string) string {
	if strings.HasSuffix(model, ".gguf") {
		return model + "." + ledgerFile
	}
	return filepath.Join(model, ledgerFile)
}

// readLedger reads what is known of a folder, a GGUF file or a built-in model; a model without a record has no steps.
func readLedger(model string) (l ledger, err error) {
	var b []byte
	path := ledgerPath(model)
	if dir := builtins[model]; dir != "" {
		path = dir + "/" + ledgerFile
		b, err = builtinFiles.ReadFile(path)
	} else {
		b, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// addCost appends steps to the ledger of out, after those of the base it came from.
func addCost(base, out string, steps ...ledgerStep) error {
	l, err := readLedger(base)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.Base == "" && base != "" {
			s.Base = filepath.Base(filepath.Clean(base))
		}
		l.Steps = append(l.Steps, s)
	}
	return l.write(out)
}

func (l ledger) write(out string) error {
	return checkpoint.WriteFile(ledgerPath(out), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(l)
	})
}

// keepCost gives out, another form of the same model, the record of from.
func keepCost(from, out string) error {
	l, err := readLedger(from)
	if err != nil || len(l.Steps) == 0 {
		return err
	}
	return l.write(out)
}

// keepCost is keepCost for what MODEL names.
func (a *app) keepCost(cmd *cobra.Command, ref, out string) error {
	path, err := a.decoderPath(cmd, ref)
	if err != nil {
		return err
	}
	return keepCost(path, out)
}

// rates are the prices of work: an ordinary cloud machine's, or electricity alone with --price-kwh.
func (a *app) rates() train.Rates {
	r := train.DefaultRates()
	if a.priceKWh > 0 {
		r.MoneyPerCoreHour = r.WattsPerCore / 1000 * a.priceKWh
	}
	return r
}

// prices is the file that users give: what an API asks for a million tokens, and, if they like, what their own machine costs.
type prices struct {
	Currency string `json:"currency"`
	Machine  struct {
		CoreHour float64 `json:"core_hour"`
		Watts    float64 `json:"watts_per_core"`
	} `json:"machine"`
	APIs []struct {
		Name   string  `json:"name"`
		Input  float64 `json:"input_per_million_tokens"`
		Output float64 `json:"output_per_million_tokens"`
	} `json:"apis"`
}

type apiCost struct {
	Name       string  `json:"name"`
	PerMillion float64 `json:"money_per_million_texts"`
	// BreakEven is the number of texts from which this model is cheaper, −1 when never.
	BreakEven float64 `json:"cheaper_from_texts"`
}

type costResult struct {
	Steps          []ledgerStep `json:"steps"`
	Made           train.Cost   `json:"made"`
	Tokens         int          `json:"tokens_per_text"`
	Answer         int          `json:"answer_tokens,omitempty"` // that a decoder writes
	TextsPerSecond float64      `json:"texts_per_second"`
	Serving        train.Cost   `json:"serving_per_million_texts"`
	APIs           []apiCost    `json:"apis,omitempty"`
	Plot           string       `json:"plot,omitempty"`
}

func (a *app) costCmd() *cobra.Command {
	var tokens, outTokens int
	var file, plot string
	cmd := &cobra.Command{
		Use:   "cost MODEL",
		Short: "What a model has cost and what it costs to use",
		Long: "cost adds up what each step of a model's life took, measures what a million texts take on this machine, and compares that with the\n" +
			"prices of APIs that --prices gives: a JSON file {\"currency\":\"USD\",\"apis\":[{\"name\":…,\"input_per_million_tokens\":…,\"output_per_million_tokens\":…}]}\n" +
			"and, for other machines than the default, \"machine\":{\"core_hour\":…,\"watts_per_core\":…}.\n" +
			"Energy and money are estimates from CPU time, by default at 10 W and 0.04 USD a core and hour.",
		Example: "  temper cost hard/ --prices prices.json --plot cost.svg",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tokens < 1 || outTokens < 0 {
				return usagef("--tokens %d, --answer-tokens %d: want 1 or more, and 0 or more", tokens, outTokens)
			}
			var p prices
			rates := a.rates()
			if file != "" {
				raw, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				if err := json.Unmarshal(raw, &p); err != nil {
					return fmt.Errorf("%s: expected {\"apis\":[…]}: %w", file, err)
				}
				if len(p.APIs) == 0 {
					return fmt.Errorf("%s: no \"apis\" in it", file)
				}
				if p.Currency != "" {
					rates.Currency = p.Currency
				}
				if p.Machine.CoreHour > 0 {
					rates.MoneyPerCoreHour = p.Machine.CoreHour
				}
				if p.Machine.Watts > 0 {
					rates.WattsPerCore = p.Machine.Watts
				}
			}
			r, err := a.cost(cmd, args[0], tokens, outTokens, rates)
			if err != nil {
				return err
			}
			for _, x := range p.APIs {
				c := apiCost{Name: x.Name, PerMillion: float64(tokens)*x.Input + float64(outTokens)*x.Output, BreakEven: -1}
				if saved := c.PerMillion - r.Serving.Money; saved > 0 {
					c.BreakEven = math.Ceil(r.Made.Money / saved * 1e6)
				}
				r.APIs = append(r.APIs, c)
			}
			if plot != "" {
				svg, err := r.plot(filepath.Base(filepath.Clean(args[0])))
				if err != nil {
					return err
				}
				if err := checkpoint.WriteFile(plot, func(w io.Writer) error { _, err := w.Write(svg); return err }); err != nil {
					return err
				}
				r.Plot = plot
			}
			return a.result(r, func(w io.Writer) error { return printCost(w, r) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&tokens, "tokens", 32, "tokens of a text")
	f.IntVar(&outTokens, "answer-tokens", 5, "tokens that an API, or a decoder, answers with")
	f.StringVar(&file, "prices", "", "prices of APIs to compare with")
	f.StringVar(&plot, "plot", "", "SVG file to draw the cost over the number of texts into")
	return cmd
}

// plot draws what it costs to have made the model and classified so many texts, beside the APIs.
func (r *costResult) plot(name string) ([]byte, error) {
	far := 1e8
	for _, x := range r.APIs {
		far = max(far, 10*x.BreakEven)
	}
	c := chart.Chart{Title: fmt.Sprintf("Cost of %d-token texts", r.Tokens), XLabel: "texts", YLabel: r.Serving.Currency, LogX: true, LogY: true}
	line := func(name string, made, perMillion float64) {
		s := chart.Series{Name: name}
		for n := 100.0; n <= far*1.01; n *= math.Sqrt(math.Sqrt(10)) {
			s.X, s.Y = append(s.X, n), append(s.Y, made+perMillion*n/1e6)
		}
		c.Series = append(c.Series, s)
	}
	line(name+", made and served", r.Made.Money, r.Serving.Money)
	for _, x := range r.APIs {
		line(x.Name, 0, x.PerMillion)
	}
	return c.SVG()
}

// cost reads the ledger and measures texts.
func (a *app) cost(cmd *cobra.Command, ref string, tokens, answer int, rates train.Rates) (*costResult, error) {
	path, err := a.decoderPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	l, err := readLedger(path)
	if err != nil {
		return nil, err
	}
	r := &costResult{Steps: l.Steps, Tokens: tokens, Made: rates.Fill(train.Cost{})}
	for i := range r.Steps { // at today's prices
		r.Steps[i].Cost = rates.Fill(r.Steps[i].Cost)
		r.Made = r.Made.Add(r.Steps[i].Cost)
	}
	decoder, err := a.writes(path)
	if err != nil {
		return nil, err
	}
	var seconds, flops float64 // of a text
	if decoder {
		r.Answer = answer
		d, err := a.openDecoder(path, generate.OpenOptions{})
		if err != nil {
			return nil, err
		}
		defer d.Close()
		if seconds, err = timeDecoder(cmd, k, d.Model, tokens, answer); err != nil {
			return nil, err
		}
		flops = forwardFLOPs(d.Model, 1, tokens+answer)
	} else {
		b, err := a.openBundle(cmd, ref, peft.OpenOptions{})
		if err != nil {
			return nil, err
		}
		defer b.Close()
		if b.MaxTokens > 0 && tokens > b.MaxTokens {
			return nil, usagef("--tokens %d: the model takes at most %d", tokens, b.MaxTokens)
		}
		const batch = 16
		in := randomBatch(b.Model.Config().Vocab, batch, tokens)
		var arena grad.Arena
		best, err := quickest(cmd, func() error {
			arena.Reset()
			_, err := b.Model.Forward(grad.Infer(k, &arena), in)
			return err
		})
		if err != nil {
			return nil, err
		}
		seconds, flops = best/batch, forwardFLOPs(b.Model, batch, tokens)/batch
	}
	r.TextsPerSecond = 1 / seconds
	const million = 1e6
	r.Serving = rates.Fill(train.Cost{CPUSeconds: seconds * million * float64(k.Threads()), Tokens: million * int64(tokens+r.Answer), FLOPs: flops * million})
	return r, nil
}

// quickest is the least time of a piece of work within two seconds.
func quickest(cmd *cobra.Command, work func() error) (float64, error) {
	best := math.Inf(1)
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		if err := cmd.Context().Err(); err != nil {
			return 0, err
		}
		t := time.Now()
		if err := work(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(t).Seconds())
	}
	return best, nil
}

// timeDecoder reads a prompt of tokens and writes answer tokens, one at a time.
func timeDecoder(cmd *cobra.Command, k backend.Kernels, m model.Model, tokens, answer int) (float64, error) {
	cfg := m.Config()
	if cfg.MaxPositions > 0 && tokens+answer > cfg.MaxPositions {
		return 0, usagef("--tokens %d and --answer-tokens %d: the model takes at most %d", tokens, answer, cfg.MaxPositions)
	}
	prompt := randomBatch(cfg.Vocab, 1, tokens)
	prompt.Want = model.WantLastLogits
	one := randomBatch(cfg.Vocab, 1, 1)
	one.Want = model.WantLastLogits
	var arena grad.Arena
	return quickest(cmd, func() error {
		cache := model.NewCache(cfg, 1, tokens+answer)
		in := prompt
		for range answer + 1 {
			arena.Reset()
			in.Cache = cache
			if _, err := m.Forward(grad.Infer(k, &arena), in); err != nil {
				return err
			}
			in = one
		}
		return nil
	})
}

func printCost(w io.Writer, r *costResult) error {
	t := newTable(w, "step", "time", "tokens", "FLOP", "CPU", "energy", "money (estimate)")
	row := func(name string, sec float64, c train.Cost) {
		took := ""
		if sec > 0 {
			took = seconds(sec)
		}
		t.AppendRow([]any{name, took, humanize.Comma(c.Tokens), fmt.Sprintf("%.2g", c.FLOPs), seconds(c.CPUSeconds), fmt.Sprintf("%.0f J", c.Joules), fmt.Sprintf("%.4f %s", c.Money, c.Currency)})
	}
	for _, s := range r.Steps {
		row(s.Step+" "+s.Method, s.Seconds, s.Cost)
	}
	if len(r.Steps) == 0 {
		t.AppendRow([]any{"(no record of its making)"})
	}
	if len(r.Steps) > 1 {
		row("made, in all", 0, r.Made)
	}
	serving := fmt.Sprintf("a million texts of %d tokens", r.Tokens)
	if r.Answer > 0 {
		serving += fmt.Sprintf(", %d written", r.Answer)
	}
	row(serving, 1e6/r.TextsPerSecond, r.Serving)
	t.Render()
	if len(r.APIs) > 0 {
		fmt.Fprintln(w)
		t = newTable(w, "a million texts through", "money", "this model is cheaper")
		for _, x := range r.APIs {
			from := "never"
			if x.BreakEven >= 0 {
				from = "from " + humanize.Comma(int64(x.BreakEven)) + " texts on"
			}
			t.AppendRow([]any{x.Name, fmt.Sprintf("%.2f %s", x.PerMillion, r.Serving.Currency), from})
		}
		t.Render()
	}
	if r.Plot != "" {
		fmt.Fprintf(w, "\nwrote %s\n", r.Plot)
	}
	return nil
}
