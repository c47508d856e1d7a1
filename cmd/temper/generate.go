package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grammar"
	"github.com/temper-ml/temper/core/sample"
)

// genFlags are those of every verb that writes text.
type genFlags struct {
	sample    sample.Params
	bias      []string
	breakers  []string
	adapters  []string
	adapter   string // all of them together
	base      string
	maxTokens int
	context   int
	draft     int
	drafter   string
	cache     string
	small     *generate.Decoder
	stop      []string
	schema    string
	grammar   string
}

func (g *genFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	s := &g.sample
	f.IntVar(&g.maxTokens, "max-tokens", 256, "tokens to write at most (0: to the end of the context)")
	f.IntVar(&g.context, "context", 0, "tokens of prompt and answer together (default: what the model takes)")
	f.StringArrayVar(&g.adapters, "adapter", nil, "folder of a PEFT adapter over the model (repeatable: LoRA adapters add up)")
	f.StringVar(&g.base, "base", "", "base model of a PEFT folder, where it names none or another")
	f.IntVar(&g.draft, "draft", 0, "tokens to guess ahead by look-up in the text; the output stays the same")
	f.StringVar(&g.drafter, "draft-model", "", "smaller decoder with the same vocabulary that guesses ahead; the output stays the same")
	f.StringVar(&g.cache, "cache-type", "", "store keys and values as f32, f16 or q8_0 (default f16)")
	f.StringArrayVar(&g.stop, "stop", nil, "end where this text would come (repeatable)")
	f.StringVar(&g.schema, "json-schema", "", "file with a JSON schema that the output must meet")
	f.StringVar(&g.grammar, "grammar", "", "file with a GBNF grammar that the output must follow")
	f.Float64Var(&s.Temperature, "temperature", 0, "0 takes the likeliest token, 1 draws by the model's probabilities")
	f.IntVar(&s.TopK, "top-k", 0, "draw from the K likeliest tokens (0: all)")
	f.Float64Var(&s.TopP, "top-p", 0, "draw from the likeliest tokens with this share together (0: all)")
	f.Float64Var(&s.MinP, "min-p", 0, "leave out tokens below this share of the likeliest's")
	f.Float64Var(&s.TypicalP, "typical-p", 0, "locally typical sampling with this share (0: off)")
	f.Float64Var(&s.RepeatPenalty, "repeat-penalty", 0, "divide the logits of recent tokens by this (0 or 1: off)")
	f.Float64Var(&s.FrequencyPenalty, "frequency-penalty", 0, "subtracted from a token's logit for each recent occurrence (negative: encourages)")
	f.Float64Var(&s.PresencePenalty, "presence-penalty", 0, "subtracted from a token's logit if it occurred recently (negative: encourages)")
	f.IntVar(&s.RepeatLastN, "repeat-last-n", 0, "tokens that the penalties look back at (0: 64, negative: all)")
	f.Float64Var(&s.DRYMultiplier, "dry-multiplier", 0, "strength of DRY, which holds back repeated sequences (0: off)")
	f.Float64Var(&s.DRYBase, "dry-base", 0, "growth of DRY's penalty per repeated token (0: 1.75)")
	f.IntVar(&s.DRYAllowedLength, "dry-allowed-length", 0, "length of repetition that DRY lets pass (0: 2)")
	f.StringArrayVar(&g.breakers, "dry-breaker", nil, "text whose tokens end a repetition (repeatable; default: newline, :, \", *)")
	f.IntVar(&s.Mirostat, "mirostat", 0, "1 or 2: keep the surprise of tokens at a target")
	f.Float64Var(&s.MirostatTau, "mirostat-tau", 0, "target surprise in bits (0: 5)")
	f.Float64Var(&s.MirostatEta, "mirostat-eta", 0, "learning rate of mirostat (0: 0.1)")
	f.StringArrayVar(&g.bias, "logit-bias", nil, "a token, by id or text, = and what to add to its logit, such as 42=-5; -inf excludes it (repeatable)")
}

// open opens the model and checks the flags against it.
func (g *genFlags) open(a *app, cmd *cobra.Command, ref string) (*generate.Decoder, error) {
	if g.maxTokens < 0 {
		return nil, usagef("--max-tokens %d: want 0 (no limit) or more", g.maxTokens)
	}
	if g.context < 0 || g.draft < 0 {
		return nil, usagef("--context %d --draft %d: want 0 or more", g.context, g.draft)
	}
	if g.schema != "" && g.grammar != "" {
		return nil, usagef("give --json-schema or --grammar, not both")
	}
	for _, s := range g.stop {
		if s == "" {
			return nil, usagef("--stop \"\": want a text")
		}
	}
	if err := checkCacheType(g.cache); err != nil {
		return nil, err
	}
	if err := g.sample.Validate(); err != nil {
		return nil, usagef("--%w", err)
	}
	if g.sample.Temperature == 0 {
		for _, name := range []string{"top-k", "top-p", "min-p", "typical-p"} {
			if cmd.Flags().Changed(name) {
				return nil, usagef("--%s needs a --temperature above 0: at 0 the likeliest token is taken", name)
			}
		}
	}
	path, err := a.decoderPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	if writes, err := a.writes(path); err != nil {
		return nil, err
	} else if !writes {
		return nil, fmt.Errorf("%s is an encoder, which writes no text: give a decoder", ref)
	}
	d, err := a.openDecoder(path, generate.OpenOptions{Base: g.base, Adapters: g.adapters})
	if err != nil {
		return nil, err
	}
	if g.adapter, err = d.Together(); err == nil {
		err = g.resolve(d, a.seed)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// cacheTypes are those of keys and values.
var cacheTypes = []string{"f32", "f16", "q8_0"}

func checkCacheType(t string) error {
	if t != "" && !slices.Contains(cacheTypes, t) {
		return usagef("--cache-type %q: want one of %s", t, strings.Join(cacheTypes, ", "))
	}
	return nil
}

// start makes the generator, with its draft model if one is named; close gives that back.
func (g *genFlags) start(a *app, cmd *cobra.Command, d *generate.Decoder) (*generate.Generator, error) {
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	o := generate.Options{Parallel: 1, Context: g.context, Draft: g.draft, Cache: g.cache}
	if g.drafter != "" {
		path, err := a.decoderPath(cmd, g.drafter)
		if err != nil {
			return nil, fmt.Errorf("--draft-model: %w", err)
		}
		if g.small, err = a.openDecoder(path, generate.OpenOptions{}); err != nil {
			return nil, fmt.Errorf("--draft-model: %w", err)
		}
		o.DraftModel = g.small.Model
	}
	gen, err := d.Start(k, o)
	if err != nil {
		g.close()
	}
	return gen, err
}

// close gives back the draft model, after its generator has ended.
func (g *genFlags) close() {
	if g.small != nil {
		_ = g.small.Close()
		g.small = nil
	}
}

// resolve fills in what needs the vocabulary.
func (g *genFlags) resolve(d *generate.Decoder, seed uint64) error {
	g.sample.Seed = seed
	one := func(text string) (int32, error) {
		if id, err := strconv.ParseInt(text, 10, 32); err == nil {
			if id < 0 || int(id) >= d.Model.Config().Vocab {
				return 0, usagef("--logit-bias %d: the vocabulary has %d tokens", id, d.Model.Config().Vocab)
			}
			return int32(id), nil
		}
		if id, ok := d.Tokenizer.ID(text); ok {
			return id, nil
		}
		ids := d.Tokenizer.AppendPlainIDs(nil, text)
		if len(ids) != 1 {
			return 0, usagef("--logit-bias %q: want one token, that text has %d", text, len(ids))
		}
		return ids[0], nil
	}
	for _, b := range g.bias {
		i := strings.LastIndex(b, "=")
		if i < 1 {
			return usagef("--logit-bias %q: want TOKEN=VALUE", b)
		}
		v, err := strconv.ParseFloat(b[i+1:], 64)
		if err != nil || v != v {
			return usagef("--logit-bias %q: %q is not a number", b, b[i+1:])
		}
		id, err := one(b[:i])
		if err != nil {
			return err
		}
		if g.sample.Bias == nil {
			g.sample.Bias = map[int32]float64{}
		}
		g.sample.Bias[id] = v
	}
	if err := g.sample.Validate(); err != nil {
		return usagef("--%w", err)
	}
	if g.sample.DRYMultiplier > 0 {
		g.sample.DRYBreakers = d.DRYBreakers(g.breakers)
	}
	return nil
}

// constraint reads the schema or grammar, nil when there is none.
func (g *genFlags) constraint(d *generate.Decoder) (sample.Constraint, error) {
	file, parse := g.grammar, func(b []byte) (*grammar.Grammar, error) { return grammar.Parse(string(b)) }
	if g.schema != "" {
		file, parse = g.schema, grammar.FromSchema
	}
	if file == "" {
		return nil, nil
	}
	raw, err := readLimited(file)
	if err != nil {
		return nil, err
	}
	gr, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	m, err := d.Constrain(gr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// readLimited reads a small file: a grammar, a prompt.
func readLimited(file string) ([]byte, error) {
	const most = 16 << 20
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("%s: expected at most %d bytes", file, most)
	}
	return b, nil
}

// generateResult is the contract of temper generate.
type generateResult struct {
	Text                  string       `json:"text"`
	Tokens                int          `json:"tokens"`
	PromptTokens          int          `json:"prompt_tokens"`
	PromptTokensPerSecond float64      `json:"prompt_tokens_per_second"`
	TokensPerSecond       float64      `json:"tokens_per_second"`
	Finish                string       `json:"finish_reason"`
	FirstTokenSeconds     float64      `json:"first_token_seconds"`
	OpenSeconds           float64      `json:"open_seconds"`
	Drafted               int          `json:"drafted,omitempty"`
	Accepted              int          `json:"accepted,omitempty"`
	LogProbs              []tokenShare `json:"logprobs,omitempty"`
}

// tokenShare is a token with its natural log-probability and the likeliest ones in its place.
type tokenShare struct {
	ID      int32        `json:"id"`
	Token   string       `json:"token"`
	LogProb float64      `json:"logprob"`
	Top     []tokenShare `json:"top,omitempty"`
}

func (a *app) generateCmd() *cobra.Command {
	var g genFlags
	var prompt, promptFile string
	var logProbs int
	var noBOS bool
	cmd := &cobra.Command{
		Use:   "generate MODEL --prompt TEXT",
		Short: "Continue a text with a decoder",
		Example: `  temper generate gemma-3-270m-q4_k_m.gguf --prompt "The capital of France is" --max-tokens 32
  temper generate model/ --prompt "Write a haiku." --temperature 0.7 --top-p 0.9 --seed 1
  temper generate model/ --prompt "A person as JSON: " --json-schema person.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.promptText(cmd, prompt, promptFile)
			if err != nil {
				return err
			}
			if logProbs < -1 || logProbs > 100 {
				return usagef("--logprobs %d: want 0 to 100 alternatives, or -1 for none", logProbs)
			}
			start := time.Now()
			d, err := g.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			gen, err := g.start(a, cmd, d)
			if err != nil {
				return err
			}
			defer g.close()
			defer gen.Close()
			req := generate.Request{MaxTokens: g.maxTokens, Sample: g.sample, Stop: g.stop, LogProbs: logProbs, Adapter: g.adapter}
			if req.Prompt = d.Encode(text, false); noBOS {
				req.Prompt = d.Tokenizer.AppendIDs(nil, text, false)
			}
			if req.Constraint, err = g.constraint(d); err != nil {
				return err
			}
			opened := time.Since(start).Seconds()
			var out strings.Builder
			var shares []tokenShare
			res, err := gen.Generate(cmd.Context(), req, func(p generate.Piece) error {
				out.WriteString(p.Text)
				if logProbs >= 0 {
					shares = append(shares, tokenShares(d, p.Tokens)...)
				}
				if a.json {
					return nil
				}
				_, err := io.WriteString(a.out, p.Text)
				return err
			})
			if err != nil {
				if out.Len() > 0 && !a.json {
					fmt.Fprintln(a.out)
				}
				return err
			}
			r := generateResult{Text: out.String(), Tokens: res.Tokens, PromptTokens: res.Prompt, Finish: res.Finish,
				PromptTokensPerSecond: rate(res.Prompt-res.Cached, res.PromptSeconds), TokensPerSecond: rate(res.Tokens-1, res.TokenSeconds),
				FirstTokenSeconds: res.PromptSeconds, OpenSeconds: opened, Drafted: res.Drafted, Accepted: res.Accepted, LogProbs: shares}
			if a.json {
				return a.printJSON(r)
			}
			fmt.Fprintln(a.out)
			for _, s := range shares {
				fmt.Fprintf(a.out, "%8.4f  %-20q", s.LogProb, s.Token)
				for _, t := range s.Top {
					fmt.Fprintf(a.out, "  %q %.4f", t.Token, t.LogProb)
				}
				fmt.Fprintln(a.out)
			}
			a.logf("%d prompt tokens in %s, %d tokens at %.1f tokens/s", r.PromptTokens, seconds(res.PromptSeconds), r.Tokens, r.TokensPerSecond)
			return nil
		},
	}
	g.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&prompt, "prompt", "p", "", "text to continue")
	f.StringVar(&promptFile, "prompt-file", "", "file with the text to continue, - for standard input")
	f.IntVar(&logProbs, "logprobs", -1, "show log-probabilities, with this many alternatives")
	f.BoolVar(&noBOS, "no-bos", false, "do not put the model's beginning token before the prompt")
	return cmd
}

// rate is n per second, 0 where there is nothing to measure.
func rate(n int, sec float64) float64 {
	if n <= 0 || sec <= 0 {
		return 0
	}
	return float64(n) / sec
}

func tokenShares(d *generate.Decoder, tokens []generate.Token) []tokenShare {
	out := make([]tokenShare, len(tokens))
	show := func(id int32) string {
		if b := d.Tokenizer.Bytes(id); b != nil {
			return strings.ToValidUTF8(string(b), "\uFFFD")
		}
		name, _ := d.Tokenizer.Token(id)
		return name
	}
	for i, t := range tokens {
		out[i] = tokenShare{ID: t.ID, Token: show(t.ID), LogProb: t.Own.LP}
		for _, o := range t.Top {
			out[i].Top = append(out[i].Top, tokenShare{ID: o.ID, Token: show(o.ID), LogProb: o.LP})
		}
	}
	return out
}

// promptText is the text of --prompt, of --prompt-file, or of standard input when that is no terminal.
func (a *app) promptText(cmd *cobra.Command, prompt, file string) (string, error) {
	given := cmd.Flags().Changed("prompt")
	switch {
	case given && file != "":
		return "", usagef("give --prompt or --prompt-file, not both")
	case given:
		return prompt, nil
	case file != "" && file != "-":
		b, err := readLimited(file)
		return string(b), err
	case file == "" && interactiveIn(a.in):
		return "", usagef("give a text to continue with --prompt or --prompt-file")
	}
	const most = 16 << 20
	b, err := io.ReadAll(io.LimitReader(a.in, most+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("expected at most %d bytes", most)
	}
	if err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	if len(b) == 0 {
		return "", usagef("give a text to continue with --prompt, --prompt-file or on standard input")
	}
	return string(b), nil
}
