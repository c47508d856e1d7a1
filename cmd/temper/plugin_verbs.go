package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/author"
	"github.com/temper-ml/temper/plugins/host"
)

func (a *app) pluginCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Write your own perturbation strategy: new, build, check, bench, run",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.pluginNew(), a.pluginBuild(), a.pluginCheck(), a.pluginBench(), a.pluginRun())
	return cmd
}

func (a *app) pluginNew() *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use:     "new NAME --lang go|rust|c|assemblyscript",
		Short:   "Make a folder with a plugin that builds and works",
		Example: "  temper plugin new my-typos --lang c && temper plugin build my-typos && temper plugin check my-typos/my-typos.wasm",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := author.New(args[0], lang)
			if err != nil {
				return err
			}
			r := struct {
				Dir   string   `json:"dir"`
				Files []string `json:"files"`
			}{args[0], files}
			return a.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "wrote %s: %s\nnext: temper plugin build %s\n", r.Dir, strings.Join(files, ", "), r.Dir)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "go", "language: "+strings.Join(author.Languages, ", "))
	return cmd
}

func (a *app) pluginBuild() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "build DIR",
		Short: "Compile a plugin to WebAssembly",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := author.Build(cmd.Context(), args[0], out)
			if err != nil {
				return err
			}
			return a.printWritten("wasm", path)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default DIR/NAME.wasm)")
	return cmd
}

func (a *app) pluginCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE.wasm",
		Short: "Hold a plugin against the contract: hostile texts, repeats, limits",
		Long:  "check exits with 3 when the plugin does not keep the contract (plugins/ABI.md).",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := author.Check(cmd.Context(), args[0], host.Options{})
			if err != nil {
				return err
			}
			if err := a.result(r, func(w io.Writer) error {
				t := newTable(w, r.Name, "", "")
				for _, f := range r.Findings {
					mark := "ok"
					if !f.OK {
						mark = "FAILED"
						if f.Warning {
							mark = "warning"
						}
					}
					t.AppendRow([]any{f.Name, mark, clip(f.Detail, 100)})
				}
				t.Render()
				return nil
			}); err != nil {
				return err
			}
			if !r.OK() {
				return errGate
			}
			return nil
		},
	}
}

func (a *app) pluginBench() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "bench FILE.wasm",
		Short: "Measure how fast a plugin is",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := author.Bench(cmd.Context(), args[0], host.Options{}, length)
			if err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "opens in %.1f ms; %.0f texts/s, %.0f candidates/s; %.1f µs a call of one text, %.1f µs a text in batches\n",
					r.OpenMilliseconds, r.TextsPerSecond, r.CandidatesPerSecond, r.MicrosecondsPerCall, r.MicrosecondsPerText)
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&length, "time", 2*time.Second, "how long to measure")
	return cmd
}

func (a *app) pluginRun() *cobra.Command {
	var most int
	var params map[string]string
	cmd := &cobra.Command{
		Use:     "run FILE.wasm TEXT…",
		Short:   "Show the candidates that a plugin makes of texts",
		Example: `  temper plugin run plugins/examples/homoglyphs/homoglyphs.wasm "Claim your prize"`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 1 {
				return usagef("--max %d: want 1 or more", most)
			}
			if _, err := os.Stat(args[0]); err != nil {
				return err
			}
			texts, err := a.inputTexts(args[1:], &dataFlags{})
			if err != nil {
				return err
			}
			p, err := a.openPlugin(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			reqs := make([]attack.Request, len(texts))
			for i, t := range texts {
				words := attack.Words(t)
				reqs[i] = attack.Request{Text: t, Words: words, Max: most, Seed: a.seed, Params: params}
				for j := range words {
					reqs[i].May = append(reqs[i].May, j)
				}
			}
			got, err := p.Perturb(cmd.Context(), reqs, nil)
			if err != nil {
				return err
			}
			type result struct {
				Text       string   `json:"text"`
				Candidates []string `json:"candidates"`
			}
			var out struct {
				Plugin  string   `json:"plugin"`
				Results []result `json:"results"`
			}
			out.Plugin = p.Name()
			for i, t := range texts {
				out.Results = append(out.Results, result{t, got[i]})
			}
			return a.result(out, func(w io.Writer) error {
				for _, r := range out.Results {
					fmt.Fprintln(w, r.Text)
					for _, c := range r.Candidates {
						fmt.Fprintln(w, "  "+c)
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&most, "max", 10, "candidates a text")
	f.StringToStringVar(&params, "param", nil, "name=value passed to the plugin")
	return cmd
}
