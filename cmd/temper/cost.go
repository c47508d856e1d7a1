package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/train"
)

// ledgerFile stands in every folder that temper has trained: what each step of the model's life took.
const ledgerFile = "temper_cost.json"

// ledger is the life of a model, oldest step first.
type ledger struct {
	Steps []ledgerStep `json:"steps"`
}

type ledgerStep struct {
	Step    string     `json:"step"` // tune, harden, distill
	Method  string     `json:"method,omitempty"`
	Base    string     `json:"base,omitempty"`
	Seconds float64    `json:"seconds"`
	Cost    train.Cost `json:"cost"`
}

func readLedger(dir string) (l ledger, err error) {
	b, err := os.ReadFile(filepath.Join(dir, ledgerFile))
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w", filepath.Join(dir, ledgerFile), err)
	}
	return l, nil
}

// addCost appends a step to the ledger of out, after the steps of the base it came from.
func addCost(base, out string, s ledgerStep) error {
	l, err := readLedger(base)
	if err != nil {
		return err
	}
	s.Base = filepath.Base(filepath.Clean(base))
	l.Steps = append(l.Steps, s)
	return checkpoint.WriteFile(filepath.Join(out, ledgerFile), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(l)
	})
}

// prices is the file that users give: what an API asks for a million tokens.
type prices struct {
	Currency string `json:"currency"`
	APIs     []struct {
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
	TextsPerSecond float64      `json:"texts_per_second"`
	Serving        train.Cost   `json:"serving_per_million_texts"`
	APIs           []apiCost    `json:"apis,omitempty"`
}

func (a *app) costCmd() *cobra.Command {
	var tokens, outTokens int
	var file string
	cmd := &cobra.Command{
		Use:   "cost MODEL",
		Short: "What a model has cost and what it costs to use",
		Long: "cost adds up what each step of a model's life took, measures what a million texts take on this machine, and compares that with the\n" +
			"prices of APIs that --prices gives: a JSON file {\"currency\":\"USD\",\"apis\":[{\"name\":…,\"input_per_million_tokens\":…,\"output_per_million_tokens\":…}]}.\n" +
			"Energy and money are estimates from CPU time at 10 W and 0.04 USD a core and hour.",
		Example: "  temper cost hard/ --prices prices.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tokens < 1 || outTokens < 0 {
				return usagef("--tokens %d, --answer-tokens %d: want 1 or more, and 0 or more", tokens, outTokens)
			}
			var p prices
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
			}
			r, err := a.cost(cmd, args[0], tokens)
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
			return a.result(r, func(w io.Writer) error { return printCost(w, r) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&tokens, "tokens", 32, "tokens of a text")
	f.IntVar(&outTokens, "answer-tokens", 5, "tokens that an API would answer with")
	f.StringVar(&file, "prices", "", "prices of APIs to compare with")
	return cmd
}

// cost reads the ledger and measures a batch of texts.
func (a *app) cost(cmd *cobra.Command, ref string, tokens int) (*costResult, error) {
	b, err := a.openBundle(cmd, ref, peft.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	l, err := readLedger(b.Dir)
	if err != nil {
		return nil, err
	}
	r := &costResult{Steps: l.Steps, Tokens: tokens}
	for _, s := range l.Steps {
		r.Made = r.Made.Add(s.Cost)
	}
	if b.MaxTokens > 0 && tokens > b.MaxTokens {
		return nil, usagef("--tokens %d: the model takes at most %d", tokens, b.MaxTokens)
	}
	const batch = 16
	in := randomBatch(b.Model.Config().Vocab, batch, tokens)
	var arena grad.Arena
	best := math.Inf(1)
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		if err := cmd.Context().Err(); err != nil {
			return nil, err
		}
		arena.Reset()
		t := time.Now()
		if _, err := b.Model.Forward(grad.Infer(k, &arena), in); err != nil {
			return nil, err
		}
		best = min(best, time.Since(t).Seconds())
	}
	r.TextsPerSecond = batch / best
	const million = 1e6
	var rates train.Rates
	r.Serving = rates.Fill(train.Cost{CPUSeconds: best / batch * million * float64(k.Threads()), Tokens: million * int64(tokens),
		FLOPs: forwardFLOPs(b.Model, batch, tokens) / batch * million})
	return r, nil
}

func printCost(w io.Writer, r *costResult) error {
	t := newTable(w, "step", "time", "tokens", "CPU", "energy", "money (estimate)")
	row := func(name string, sec float64, c train.Cost) {
		t.AppendRow([]any{name, seconds(sec), humanize.Comma(c.Tokens), seconds(c.CPUSeconds), fmt.Sprintf("%.0f J", c.Joules), fmt.Sprintf("%.4f %s", c.Money, c.Currency)})
	}
	for _, s := range r.Steps {
		row(s.Step+" "+s.Method, s.Seconds, s.Cost)
	}
	if len(r.Steps) == 0 {
		t.AppendRow([]any{"(no record of its making)"})
	}
	row(fmt.Sprintf("a million texts of %d tokens", r.Tokens), 1e6/r.TextsPerSecond, r.Serving)
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
	return nil
}
