package pretrain

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/train"
)

// evaluate measures the loss on held-out text: rows side by side, at most EvalTokens of them; all when whole is true, and then each causal
// token sees at least half a row before it.
func (r *run) evaluate(ctx context.Context, whole bool) (Eval, error) {
	most := r.held.Tokens
	if !whole {
		most = min(most, int64(r.EvalTokens))
	}
	var sum float64
	var n int
	var rows []train.Example
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.arena.Reset()
		b, targets := pack(rows, true) // logits of what counts only
		rows = rows[:0]
		if len(targets) == 0 {
			return nil
		}
		out, err := r.m.Forward(grad.Infer(r.Kernels, &r.arena), b)
		if err != nil {
			return err
		}
		sum += r.Kernels.CrossEntropy(out.Logits.Data, targets, out.Logits.Rows, out.Logits.Cols, nil, 1)
		n += len(targets)
		return nil
	}
	add := func(e train.Example) error {
		if rows = append(rows, e); len(rows) >= r.Batch {
			return flush()
		}
		return nil
	}
	if r.mask != nil {
		body := int64(r.Length - 2)
		for at := int64(0); at < most; at += body {
			ids := make([]int32, min(body, r.held.Tokens-at)+2)
			ids[0], ids[len(ids)-1] = r.mask.cls, r.mask.sep
			if err := r.held.Read(ids[1:len(ids)-1], at); err != nil {
				return Eval{}, err
			}
			if err := add(r.mask.apply(ids, rand.New(rand.NewPCG(mix(r.Seed, uint64(at), 0x4e1d), 1)))); err != nil {
				return Eval{}, err
			}
		}
	} else {
		length := int64(r.Length)
		stride := length
		if whole {
			stride = max(1, length/2)
		}
		// The first token of the text follows the end of another document.
		ids := make([]int32, length+1)
		for done := int64(0); done < most; { // tokens predicted so far
			from := max(0, min(done, done+stride-length)) // the row's first input is the token before from
			to := min(done+stride, most)
			if done == 0 {
				to = min(length, most)
				from = 0
			}
			row := ids[:to-from+1]
			if from == 0 {
				row[0] = max(0, endOf(r.tok))
				if err := r.held.Read(row[1:], 0); err != nil {
					return Eval{}, err
				}
			} else if err := r.held.Read(row, from-1); err != nil {
				return Eval{}, err
			}
			e := train.Example{IDs: append([]int32(nil), row[:len(row)-1]...), Targets: append([]int32(nil), row[1:]...)}
			for i := range done - from { // only context
				e.Targets[i] = -1
			}
			done = to
			if err := add(e); err != nil {
				return Eval{}, err
			}
		}
	}
	if err := flush(); err != nil {
		return Eval{}, err
	}
	r.arena.Reset()
	e := Eval{Step: r.st.Step, Predicted: n, Loss: sum / float64(max(1, n))}
	e.Perplexity = math.Exp(e.Loss)
	if r.mask == nil && r.held.Bytes > 0 {
		e.BitsPerByte = e.Loss / math.Ln2 * float64(r.held.Tokens) / float64(r.held.Bytes)
	}
	return e, nil
}

// Evaluate measures the model that o.Config, o.Tokenizer and o.Init describe on o.Held, as Run does at its end.
func Evaluate(ctx context.Context, o Options) (Eval, Counts, error) {
	o.Defaults()
	o.Out, o.only = "", true
	if o.Init == nil {
		return Eval{}, Counts{}, errors.New("pretrain: no weights to evaluate")
	}
	if len(o.Held.Files)+len(o.Held.Rows) == 0 {
		return Eval{}, Counts{}, errors.New("pretrain: no held-out text")
	}
	r, err := prepare(ctx, &o)
	if err != nil {
		return Eval{}, Counts{}, fmt.Errorf("pretrain: %w", err)
	}
	defer r.close()
	e, err := r.evaluate(ctx, true)
	if err != nil {
		return Eval{}, Counts{}, fmt.Errorf("pretrain: %w", err)
	}
	return e, r.held.Counts, nil
}
