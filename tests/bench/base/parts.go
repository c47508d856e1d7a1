package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/core/train"
)

func opener(dir string) func() (*checkpoint.Folder, error) {
	return func() (*checkpoint.Folder, error) { return folder(dir) }
}

func mean(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}

// headPart is 16 examples a class and all rows: logistic regression over frozen encoders, and over words.
func headPart(ctx context.Context, r *results, k backend.Kernels, t *task, base, teacher contender) error {
	if err := bagPart(ctx, r, t, "few", t.few[:]); err != nil {
		return err
	}
	if err := bagPart(ctx, r, t, "full", [][]int{t.full}); err != nil {
		return err
	}
	for _, c := range []contender{base, teacher} {
		var few [seeds]float64
		var full float64
		if err := r.do(figure{Part: "few", Set: t.Name, Model: c.name, Method: "head"}, func(g *figure) (err error) {
			if few, full, err = heads(ctx, k, c, t); err == nil {
				g.Each, g.Score = few[:], mean(few[:])
			}
			return err
		}); err != nil {
			return err
		}
		if err := r.do(figure{Part: "full", Set: t.Name, Model: c.name, Method: "head"}, func(g *figure) (err error) {
			if full == 0 {
				_, full, err = heads(ctx, k, c, t)
			}
			g.Score = full
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

const (
	bagName = "bag of words"
	bagFit  = "logistic regression"
	bagBest = "logistic regression, best of three"
)

// bagPart is the bag of words with the heads' regularisation, C = 10, and with the best of three, chosen on the test part: an advantage that
// the encoders do not have.
func bagPart(ctx context.Context, r *results, t *task, part string, draws [][]int) error {
	fit := func(c float64) ([]float64, error) {
		var each []float64
		for _, draw := range draws {
			d, err := t.train.Select(draw)
			if err != nil {
				return nil, err
			}
			got, err := bagOfWords(ctx, d.Texts, d.Labels, len(t.train.LabelNames), t.test.Texts, c)
			if err != nil {
				return nil, err
			}
			truth := make([]int32, len(got))
			for i, y := range t.test.Labels {
				truth[i] = int32(y)
			}
			each = append(each, t.score(train.Score(got, truth, t.train.LabelNames, 0)))
		}
		return each, nil
	}
	if err := r.do(figure{Part: part, Set: t.Name, Model: bagName, Method: bagFit}, func(g *figure) (err error) {
		if g.Each, err = fit(10); err == nil {
			g.Score = mean(g.Each)
		}
		return err
	}); err != nil {
		return err
	}
	return r.do(figure{Part: part, Set: t.Name, Model: bagName, Method: bagBest}, func(g *figure) error {
		for _, c := range []float64{1, 10, 100} {
			each, err := fit(c)
			if err != nil {
				return err
			}
			if m := mean(each); m > g.Score {
				g.Score, g.Each = m, each
			}
		}
		return nil
	})
}

// fewTunedPart is LoRA and full tuning of the base on 16 a class, the three draws.
func fewTunedPart(ctx context.Context, r *results, k backend.Kernels, t *task, base contender) error {
	if len(t.train.LabelNames) > 50 {
		return nil // 16 a class are thousands of rows, and heads do well there
	}
	for _, method := range []string{"full", "lora"} {
		if err := r.do(figure{Part: "few tuned", Set: t.Name, Model: base.name, Method: method}, func(g *figure) error {
			for _, draw := range t.few {
				s, _, err := tune(ctx, k, base, t, draw, method, 0, 40)
				if err != nil {
					return err
				}
				g.Each = append(g.Each, s)
			}
			g.Score = mean(g.Each)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// tunedPart is LoRA and full tuning on 1,000 rows.
func tunedPart(ctx context.Context, r *results, k backend.Kernels, t *task, c contender) error {
	for _, method := range []string{"lora", "full"} {
		if err := r.do(figure{Part: "1,000 rows", Set: t.Name, Model: c.name, Method: method}, func(g *figure) (err error) {
			epochs := 5
			if len(t.train.LabelNames) > 50 {
				epochs = 15
			}
			g.Score, _, err = tune(ctx, k, c, t, t.tuned, method, 0, epochs)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// transferPart compares features learnt before with none, on 100 and 1,000 rows of trec6.
func transferPart(ctx context.Context, r *results, k backend.Kernels, t *task, dir string, c contender, half int) error {
	for _, n := range []int{100, 1000} {
		rows, err := data.ReadRows(filepath.Join(dir, "draws", fmt.Sprintf("trec6-train-%d.txt", n)))
		if err != nil {
			return err
		}
		part, epochs := fmt.Sprintf("transfer %d", n), 5
		if n == 100 {
			epochs = 30
		}
		for _, v := range []struct {
			name   string
			c      contender
			freeze int
		}{{"all layers", c, 0}, {"lower half frozen", c, half}, {"embeddings frozen", c, 1}, {"random weights", untrained(c, 7), 0}} {
			if err := r.do(figure{Part: part, Set: t.Name, Model: c.name, Method: v.name}, func(g *figure) (err error) {
				g.Score, _, err = tune(ctx, k, v.c, t, rows, "full", v.freeze, epochs)
				return err
			}); err != nil {
				return err
			}
		}
		if err := r.do(figure{Part: part, Set: t.Name, Model: c.name, Method: "head (all frozen)"}, func(g *figure) error {
			s := *t
			s.full = rows
			for i := range s.few {
				s.few[i] = rows[:min(len(rows), 60)]
			}
			_, full, err := heads(ctx, k, c, &s)
			g.Score = full
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// servedTexts of 32 tokens are measured; a million take so many times longer.
const servedTexts = 20_000

// servingPart is the processor time of a million classifications of 32 tokens, on one thread, each model as int8.
func servingPart(ctx context.Context, r *results, dir string, base, teacher contender) error {
	k, err := native.New(native.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer k.Close()
	for _, c := range []contender{base, teacher} {
		if err := r.do(figure{Part: "serving", Set: "32 tokens", Model: c.name, Method: "int8"}, func(g *figure) error {
			f, err := c.open()
			if err != nil {
				return err
			}
			b, err := peft.OpenFolder(f, peft.OpenOptions{Head: model.HeadSequence, Labels: []string{"a", "b"}})
			if err != nil {
				return err
			}
			defer b.Close()
			if err := quant.Int8Model(b.Model, quant.Options{Threads: 1}); err != nil {
				return err
			}
			var arena grad.Arena
			const batch = 32
			n := servedTexts
			if c.name == teacher.name {
				n /= 4
			}
			one := func(seed int) error {
				arena.Reset()
				in := &model.Batch{Offsets: []int32{0}, Want: model.WantLogits}
				for i := range batch {
					for j := range 32 {
						in.IDs = append(in.IDs, int32(200+(i*37+j*101+seed*13)%(b.Model.Config().Vocab-200)))
					}
					in.Offsets = append(in.Offsets, int32(len(in.IDs)))
				}
				_, err := b.Model.Forward(grad.Infer(k, &arena), in)
				return err
			}
			if err := one(0); err != nil { // packs the weights
				return err
			}
			before, _ := train.Usage()
			start := time.Now()
			for i := range n / batch {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := one(i); err != nil {
					return err
				}
			}
			after, _ := train.Usage()
			g.Score = (after - before) / float64(n/batch*batch) * 1e6
			g.Each = []float64{float64(n / batch * batch), time.Since(start).Seconds()}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
