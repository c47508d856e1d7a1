package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/generate"
)

// dialogue is a talk in a terminal.
type dialogue struct {
	a      *app
	d      *generate.Decoder
	gen    *generate.Generator
	flags  *genFlags
	system string
	turns  []chat.Message
	last   generate.Result
	// sums over the talk
	answers, read, cached, tokens int
	tokenSeconds                  float64
}

const chatHelp = `/system TEXT  set the system message (without TEXT: show it; /system - removes it)
/reset        forget the talk so far
/undo         take back the last question and answer
/save FILE    append the talk to FILE, one JSON object a line, as temper tune reads it
/stats        tokens and speed
/help         this
/exit         leave (also Ctrl-D)
Ctrl-C stops an answer. A line that ends with \ goes on in the next.`

func (a *app) chatCmd() *cobra.Command {
	var g genFlags
	var system string
	cmd := &cobra.Command{
		Use:   "chat MODEL",
		Short: "Talk with a decoder in the terminal",
		Long: "Talk with a decoder in the terminal. Dialogues are written with the model's own chat template. A base model has none and gets a plain\n" +
			"one: the system message, then \"User: …\" and \"Assistant: …\" a line each; its answers end where it would write the user's next line.\n\n" + chatHelp,
		Example: "  temper chat model/ --temperature 0.7 --top-p 0.9",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			t := &dialogue{a: a, d: d, gen: gen, flags: &g, system: system}
			if d.Plain {
				g.stop = append(g.stop, generate.PlainStops...)
				a.logf("%s has no chat template: a plain one stands in, and a base model may ramble", args[0])
			}
			return t.run(cmd.Context())
		},
	}
	g.add(cmd)
	for name, value := range map[string]string{"temperature": "0.7", "top-p": "0.9", "max-tokens": "1024"} {
		f := cmd.Flags().Lookup(name)
		f.DefValue = value
		_ = f.Value.Set(value) // the values are numbers
	}
	cmd.Flags().StringVar(&system, "system", "", "system message")
	return cmd
}

// run reads and answers until the input ends.
func (t *dialogue) run(outer context.Context) error {
	// The program's own handler ends it at Ctrl-C; here only an answer is to end, so the talk runs outside of that.
	ctx := context.WithoutCancel(outer)
	interrupts, quit := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	signal.Notify(quit, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	defer signal.Stop(quit)
	terminal := interactiveIn(t.a.in)
	lines := make(chan string)
	gone := make(chan struct{})
	defer close(gone)
	var readErr error
	go func() {
		defer close(lines)
		r := bufio.NewReaderSize(t.a.in, 1<<16)
		for {
			line, err := readLine(r)
			if line != "" || err == nil {
				select {
				case lines <- line:
				case <-gone:
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					readErr = err
				}
				return
			}
		}
	}()
	for {
		if terminal {
			fmt.Fprint(t.a.err, "> ")
		}
		select {
		case <-quit:
			return nil
		case <-interrupts:
			fmt.Fprintln(t.a.err, "\n(/exit or Ctrl-D to leave)")
			continue
		case line, ok := <-lines:
			if !ok {
				if terminal {
					fmt.Fprintln(t.a.err)
				}
				return readErr
			}
			leave, err := t.line(ctx, line, interrupts, quit)
			if err != nil {
				if !terminal {
					return err
				}
				fmt.Fprintf(t.a.err, "temper: %v\n", err)
			}
			if leave {
				return nil
			}
		}
	}
}

// readLine reads a line, and those after it while they end with a backslash.
func readLine(r *bufio.Reader) (string, error) {
	const most = 4 << 20
	var b strings.Builder
	for {
		part, err := r.ReadSlice('\n')
		b.Write(part)
		switch {
		case b.Len() > most:
			return "", fmt.Errorf("a line is longer than %d bytes", most)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil && strings.HasSuffix(strings.TrimRight(b.String(), "\r\n"), "\\"):
			s := strings.TrimSuffix(strings.TrimRight(b.String(), "\r\n"), "\\") + "\n"
			b.Reset()
			b.WriteString(s)
			continue
		}
		return strings.TrimRight(b.String(), "\r\n"), err
	}
}

// line obeys a command or answers a message.
func (t *dialogue) line(ctx context.Context, line string, interrupts, quit <-chan os.Signal) (leave bool, err error) {
	text := strings.TrimSpace(line)
	if text == "" {
		return false, nil
	}
	if !strings.HasPrefix(text, "/") {
		return t.answer(ctx, line, interrupts, quit)
	}
	verb, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch verb {
	case "/help", "/?":
		fmt.Fprintln(t.a.err, chatHelp)
	case "/exit", "/quit", "/bye":
		return true, nil
	case "/reset":
		t.turns, t.last = nil, generate.Result{}
	case "/undo":
		t.turns = t.turns[:max(0, len(t.turns)-2)]
	case "/system":
		switch rest {
		case "":
			fmt.Fprintf(t.a.err, "system: %q\n", t.system)
		case "-":
			t.system = ""
		default:
			t.system = rest
		}
	case "/save":
		if rest == "" {
			return false, errors.New("/save: want a file name")
		}
		return false, t.save(rest)
	case "/stats":
		t.stats()
	default:
		return false, fmt.Errorf("%s is no command; /help lists them", verb)
	}
	return false, nil
}

func (t *dialogue) messages(turns []chat.Message) []chat.Message {
	if t.system == "" {
		return turns
	}
	return append([]chat.Message{{Role: "system", Content: t.system}}, turns...)
}

// prompt renders the talk. The oldest turns are left out when the context would not leave a quarter of itself, or the answer's length, for the answer.
func (t *dialogue) prompt() ([]int32, error) {
	room := t.gen.Context() / 4
	if n := t.flags.maxTokens; n > 0 {
		room = min(room, n)
	}
	dropped, turns := 0, t.turns
	for {
		text, err := t.d.Render(chat.Messages(t.messages(turns)...), nil, nil)
		if err != nil {
			return nil, err
		}
		ids := t.d.Encode(text, true)
		if len(ids)+room <= t.gen.Context() || len(turns) < 3 {
			if dropped > 0 {
				t.a.logf("(the talk is longer than the context of %d tokens: %d old messages are left out)", t.gen.Context(), dropped)
			}
			return ids, nil
		}
		turns = turns[2:]
		dropped += 2
	}
}

func (t *dialogue) answer(outer context.Context, text string, interrupts, quit <-chan os.Signal) (leave bool, err error) {
	t.turns = append(t.turns, chat.Message{Role: "user", Content: text})
	ids, err := t.prompt()
	if err != nil {
		t.turns = t.turns[:len(t.turns)-1]
		return false, err
	}
	constraint, err := t.flags.constraint(t.d)
	if err != nil {
		t.turns = t.turns[:len(t.turns)-1]
		return false, err
	}
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	ended := make(chan struct{})
	watched := make(chan bool, 1)
	go func() {
		select {
		case <-interrupts:
			cancel()
			watched <- false
		case <-quit:
			cancel()
			watched <- true
		case <-ended:
			watched <- false
		}
	}()
	t.flags.sample.Seed++ // every answer draws anew, and a run can be repeated
	var b strings.Builder
	res, err := t.gen.Generate(ctx, generate.Request{Prompt: ids, MaxTokens: t.flags.maxTokens, Sample: t.flags.sample, Stop: t.flags.stop,
		LogProbs: -1, Adapter: t.flags.adapter, Constraint: constraint}, func(p generate.Piece) error {
		text := p.Text
		if b.Len() == 0 {
			text = strings.TrimLeft(text, " \n")
		}
		b.WriteString(text)
		if t.a.json {
			return nil
		}
		_, err := io.WriteString(t.a.out, text)
		return err
	})
	close(ended)
	leave = <-watched
	if !t.a.json {
		fmt.Fprintln(t.a.out)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
		if !leave {
			t.a.logf("(stopped)")
		}
	}
	if err != nil {
		t.turns = t.turns[:len(t.turns)-1]
		return leave, err
	}
	answer := strings.TrimRight(b.String(), " \n")
	t.turns = append(t.turns, chat.Message{Role: "assistant", Content: answer})
	t.last = res
	t.answers++
	t.read += res.Prompt
	t.cached += res.Cached
	t.tokens += res.Tokens
	t.tokenSeconds += res.TokenSeconds
	if t.a.json {
		return leave, t.a.printJSON(generateResult{Text: answer, Tokens: res.Tokens, PromptTokens: res.Prompt, Finish: res.Finish,
			PromptTokensPerSecond: rate(res.Prompt-res.Cached, res.PromptSeconds), TokensPerSecond: rate(res.Tokens-1, res.TokenSeconds),
			FirstTokenSeconds: res.PromptSeconds})
	}
	return leave, nil
}

func (t *dialogue) stats() {
	r := t.last
	fmt.Fprintf(t.a.err, "messages %d, context %d of %d tokens\n", len(t.turns), r.Prompt+r.Tokens, t.gen.Context())
	fmt.Fprintf(t.a.err, "last answer: %d prompt tokens (%d from the cache) in %s, %d tokens at %.1f tokens/s\n",
		r.Prompt, r.Cached, seconds(r.PromptSeconds), r.Tokens, rate(r.Tokens-1, r.TokenSeconds))
	fmt.Fprintf(t.a.err, "all %d answers: %d prompt tokens (%d from the cache), %d tokens at %.1f tokens/s\n",
		t.answers, t.read, t.cached, t.tokens, rate(t.tokens-t.answers, t.tokenSeconds))
}

// save appends the talk to a file of dialogues.
func (t *dialogue) save(file string) error {
	raw, err := json.Marshal(map[string]any{"messages": t.messages(t.turns)})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(raw, '\n')); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	t.a.logf("saved %d messages to %s", len(t.messages(t.turns)), file)
	return nil
}
