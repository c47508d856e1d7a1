// Command turns measures how well a decoder keeps to the format of turns: it answers each of the held-out built-in dialogues' questions, greedily and
// with nothing to stop it but its own end of turn, and counts how the answers end, without an adapter and with it.
//
//	temper tune gemma-3-270m-q4_k_m.gguf --data builtin:dialogues --method qlora --epochs 1 -o adapter/
//	go run ./tests/bench/turns -model gemma-3-270m-q4_k_m.gguf -adapter adapter/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/generate"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "turns:", err)
		os.Exit(1)
	}
}

// parallel is the number of answers written at once.
const parallel = 16

func run() error {
	dir, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	path := flag.String("model", filepath.Join(dir, "temper-test", "gemma-3-270m-q4_k_m.gguf"), "decoder")
	adapter := flag.String("adapter", "", "PEFT folder over it")
	tokens := flag.Int("tokens", 96, "tokens in which an answer is to end")
	threads := flag.Int("threads", 0, "threads (0: all)")
	verbose := flag.Bool("v", false, "print the answers")
	flag.Parse()
	k, err := native.New(native.Options{Threads: *threads})
	if err != nil {
		return err
	}
	defer k.Close()
	o := generate.OpenOptions{}
	names := []string{""}
	if *adapter != "" {
		o.Adapters, names = []string{"tuned=" + *adapter}, append(names, "tuned")
	}
	d, err := generate.Open(*path, o)
	if err != nil {
		return err
	}
	defer d.Close()
	g, err := d.Start(k, generate.Options{Parallel: parallel, Context: 2048})
	if err != nil {
		return err
	}
	defer g.Close()
	prompts, err := questions(d)
	if err != nil {
		return err
	}
	fmt.Printf("| model | answers | end their turn | another role speaks | go on in other lines | do not end in %d tokens | say nothing |\n|---|---|---|---|---|---|---|\n", *tokens)
	for _, name := range names {
		counts := map[ending]int{}
		answers, err := answer(d, g, prompts, name, *tokens)
		if err != nil {
			return err
		}
		for _, a := range answers {
			how := a.ending(d.Plain)
			counts[how]++
			if *verbose {
				fmt.Fprintf(os.Stderr, "%s %q\n", how, a.text)
			}
		}
		what := "as it is"
		if name != "" {
			what = "tuned"
		}
		fmt.Printf("| %s | %d | %.1f %% | %d | %d | %d | %d |\n", what, len(answers), 100*float64(counts[ended])/float64(len(answers)),
			counts[otherRole], counts[moreLines], counts[endless], counts[silent])
	}
	return nil
}

// questions are the prompts before each of the assistant's turns in the held-out dialogues.
func questions(d *generate.Decoder) ([][]int32, error) {
	_, held := builtin.Dialogues()
	var out [][]int32
	for _, talk := range held {
		var turns []chat.Message
		for _, m := range talk.Messages {
			if m.Role == "assistant" {
				text, err := d.Render(chat.Messages(turns...), nil, nil)
				if err != nil {
					return nil, err
				}
				out = append(out, d.Encode(text, true))
			}
			turns = append(turns, chat.Message{Role: m.Role, Content: m.Content})
		}
	}
	return out, nil
}

type reply struct {
	text   string
	finish string
}

func answer(d *generate.Decoder, g *generate.Generator, prompts [][]int32, adapter string, tokens int) ([]reply, error) {
	out, errs := make([]reply, len(prompts)), make([]error, len(prompts))
	var wg sync.WaitGroup
	for i, p := range prompts {
		wg.Go(func() {
			var b strings.Builder
			req := generate.Request{Prompt: p, MaxTokens: tokens, LogProbs: -1, Adapter: adapter}
			if d.Plain { // the first sign of what comes after the answer
				req.Stop = []string{"\nUser:"}
			}
			res, err := g.Generate(context.Background(), req, func(p generate.Piece) error { b.WriteString(p.Text); return nil })
			out[i], errs[i] = reply{b.String(), res.Finish}, err
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

type ending string

const (
	ended     ending = "ended"
	otherRole ending = "other role"
	moreLines ending = "more lines"
	endless   ending = "endless"
	silent    ending = "silent"
)

// ending tells how an answer came to its end. In the plain format a turn is a line: what is written after it, other than the user's next line, which
// stops the text, is not part of the format.
func (r reply) ending(plain bool) ending {
	said, rest, more := strings.Cut(strings.TrimLeft(r.text, " "), "\n")
	switch {
	case strings.TrimSpace(r.text) == "" || plain && strings.TrimSpace(said) == "":
		return silent
	case plain && more && (strings.Contains(rest, "Assistant:") || strings.Contains(rest, "User:")):
		return otherRole
	case plain && strings.TrimSpace(rest) != "":
		return moreLines
	case r.finish != generate.FinishStop:
		return endless
	}
	return ended
}
