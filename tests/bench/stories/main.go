// Command stories measures a decoder that temper has pre-trained against a Kneser–Ney 5-gram on text held out from both, in bits a byte:
//
//	go run ./tests/bench/stories -model MODEL -data train.txt -data cased.txt -eval held.txt
//
// The 5-gram is counted over the decoder's own tokens, where it is strongest, and over bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/pretrain"
	"github.com/temper-ml/temper/core/token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stories:", err)
		os.Exit(1)
	}
}

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("stories", flag.ContinueOnError)
	dir := fs.String("model", "", "folder of the decoder")
	var text, held list
	fs.Var(&text, "data", "text that the decoder learnt from (may be repeated)")
	fs.Var(&held, "eval", "text held out (may be repeated)")
	split := fs.String("split", pretrain.ByFile, "as for temper pretrain")
	threads := fs.Int("threads", 1, "worker threads")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := checkpoint.OpenFolder(*dir)
	if err != nil {
		return err
	}
	defer f.Close()
	k, err := native.New(native.Options{Threads: *threads})
	if err != nil {
		return err
	}
	defer k.Close()
	o := pretrain.Options{Kernels: k, Held: pretrain.Texts{Files: held, Split: *split}, Dropout: -1}
	if o.Config, err = f.Config(); err != nil {
		return err
	}
	if o.Tokenizer, err = f.File(checkpoint.TokenizerFile); err != nil {
		return err
	}
	if o.Init, err = f.Source(); err != nil {
		return err
	}
	e, counts, err := pretrain.Evaluate(ctx, o)
	if err != nil {
		return err
	}
	tok, err := token.Load(o.Tokenizer)
	if err != nil {
		return err
	}
	end := tok.Special().EOS
	train, err := idsOf(pretrain.Texts{Files: text, Split: *split}, end, tok.AppendPlainIDs)
	if err != nil {
		return err
	}
	test, err := idsOf(o.Held, end, tok.AppendPlainIDs)
	if err != nil {
		return err
	}
	grams := newKneserNey(train, int(tok.MaxID())+1)
	overTokens := grams.bits(append([]int32{end, end, end, end}, test...), 4) / float64(counts.Bytes)
	bytes := func(dst []int32, s string) []int32 {
		for _, b := range []byte(s) {
			dst = append(dst, int32(b))
		}
		return dst
	}
	if train, err = idsOf(pretrain.Texts{Files: text, Split: *split}, 256, bytes); err != nil {
		return err
	}
	if test, err = idsOf(o.Held, 256, bytes); err != nil {
		return err
	}
	overBytes := newKneserNey(train, 257).bits(append([]int32{256, 256, 256, 256}, test...), 4) / float64(counts.Bytes)
	fmt.Printf("held out: %d bytes, %d tokens\n\n| model | bits per byte |\n|---|---|\n", counts.Bytes, counts.Tokens)
	fmt.Printf("| %s | %.4f |\n| Kneser–Ney 5-gram over its tokens | %.4f |\n| Kneser–Ney 5-gram over bytes | %.4f |\n", *dir, e.BitsPerByte, overTokens, overBytes)
	if e.BitsPerByte >= min(overTokens, overBytes) {
		return fmt.Errorf("the decoder does not beat the 5-gram")
	}
	return nil
}

// idsOf reads whole documents, each followed by end.
func idsOf(t pretrain.Texts, end int32, encode func([]int32, string) []int32) ([]int32, error) {
	var ids []int32
	for p, err := range t.All() {
		if err != nil {
			return nil, err
		}
		ids = encode(ids, p.Text)
		if p.Last {
			ids = append(ids, end)
		}
	}
	return ids, nil
}
