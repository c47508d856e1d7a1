package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/temper-ml/temper/backend"
)

// Exit codes of the command-line contract.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitGate   = 3
)

// usageError is a mistake in how the command was called.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errGate is returned when a gate was not met.
var errGate = errors.New("gate not met")

// app is what every verb shares: streams and global flags.
type app struct {
	in       io.Reader
	out, err io.Writer

	json     bool
	quiet    bool
	seed     uint64
	threads  int
	bf16     bool // products round to bfloat16
	priceKWh float64

	kernels backend.Kernels
}

// run is the whole program as a function of its arguments and streams; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr}
	defer a.close()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := fang.Execute(ctx, root,
		fang.WithVersion(version),
		fang.WithErrorHandler(func(w io.Writer, _ fang.Styles, err error) {
			if errors.Is(err, errGate) {
				return
			}
			if errors.Is(err, context.Canceled) {
				fmt.Fprintln(w, "temper: stopped")
				return
			}
			fmt.Fprintf(w, "temper: %s\n", strings.TrimSpace(err.Error()))
			var u usageError
			if errors.As(err, &u) {
				fmt.Fprintln(w, "run temper --help for the verbs, temper VERB --help for its flags")
			}
		}))
	var u usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errGate):
		return exitGate
	case errors.As(err, &u):
		return exitUsage
	}
	return exitFailed
}

// verbs are filled in by one file each.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "temper",
		Short: "Fine-tune, harden and ship small language models on plain CPUs",
		Long: "temper fine-tunes small language models on a few labelled texts, measures how easily they are fooled, trains them to resist,\n" +
			"and ships them as one binary or inside a web page. Results go to stdout, progress to stderr.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown verb %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if a.threads > mostThreads {
				return usagef("--threads %d: want at most %d", a.threads, mostThreads)
			}
			return checkFlags(cmd, args)
		},
	}
	root.Long = unwrap(root.Long)
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print one JSON object")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress")
	f.Uint64Var(&a.seed, "seed", 0, "seed of everything random")
	f.IntVar(&a.threads, "threads", 0, "worker threads (0: all cores)")
	f.Float64Var(&a.priceKWh, "price-kwh", 0, "price of a kWh for the cost estimate (0: built-in estimate)")
	for _, v := range a.verbs() {
		root.AddCommand(usage(v))
	}
	// The two that the command library adds take any word, and show help for it.
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			c.Args = cobra.NoArgs
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			usage(c)
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if found, rest, err := root.Find(args); err != nil || len(rest) > 0 && found.HasSubCommands() {
					return usagef("unknown verb %q", strings.Join(args, " "))
				}
				return nil
			}
		}
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	return root
}

// unwrap joins the lines of each paragraph, since help wraps them to the terminal's width. Lists and indented lines stay.
func unwrap(text string) string {
	lines := strings.Split(text, "\n")
	out := lines[:1]
	for _, l := range lines[1:] {
		last := &out[len(out)-1]
		if l == "" || *last == "" || strings.HasPrefix(l, " ") || strings.HasPrefix(*last, " ") {
			out = append(out, l)
			continue
		}
		*last += " " + l
	}
	return strings.Join(out, "\n")
}

// mostThreads is more than any machine that temper runs on has use for.
const mostThreads = 1024

// checkFlags refuses what no verb can mean: a missing flag, numbers that are none, numbers below 0 where the help does not speak of negative ones, and
// an output that is the very model that is read.
func checkFlags(cmd *cobra.Command, args []string) error {
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return usagef("%s: %w", cmd.CommandPath(), err)
	}
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err != nil {
			return
		}
		var v float64
		switch f.Value.Type() {
		case "float64", "int":
			v, _ = strconv.ParseFloat(f.Value.String(), 64)
		default:
			return
		}
		below := strings.Contains(f.Usage, "negative") || strings.HasPrefix(f.DefValue, "-")
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			err = usagef("--%s %s: want a finite number", f.Name, f.Value)
		case v < 0 && !below:
			err = usagef("--%s %s: want 0 or more", f.Name, f.Value)
		}
	})
	if out := cmd.Flags().Lookup("out"); err == nil && out != nil && out.Changed {
		switch path := out.Value.String(); {
		case path == "":
			err = usagef("--out: want a name")
		case len(args) > 0 && sameFile(path, args[0]):
			err = usagef("--out %s: that is the model that is read; name another place", path)
		}
	}
	return err
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// usage makes wrong argument counts usage errors, in each verb and below.
func usage(c *cobra.Command) *cobra.Command {
	c.Long = unwrap(c.Long)
	if args := c.Args; args != nil {
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				var u usageError
				if errors.As(err, &u) {
					return err
				}
				return usagef("%s: %w; usage: %s", cmd.CommandPath(), err, cmd.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usage(sub)
	}
	return c
}

// backend returns the kernels, made at first use: commands that need none start no workers.
func (a *app) backend() (backend.Kernels, error) {
	if a.kernels == nil {
		n := a.threads
		if n == 0 {
			n = runtime.GOMAXPROCS(0)
		}
		k, err := newKernels(n, a.bf16)
		if err != nil {
			return nil, usageError{err}
		}
		a.kernels = k
	}
	return a.kernels, nil
}

func (a *app) close() {
	if a.kernels != nil {
		a.kernels.Close()
	}
}

// interactiveIn reports whether r is a terminal.
func interactiveIn(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && isTerminal(int(f.Fd()))
}

// interactive reports whether w is a terminal, so that progress bars are drawn.
func interactive(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(int(f.Fd()))
}
