package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
)

// Head tuning fits logistic regression on frozen sentence embeddings, each text being run through the encoder once.
//
// The result must be a plain classifier that transformers loads, but BertForSequenceClassification classifies tanh of a layer over the
// first token, not the mean over tokens. So the mean is computed by the architecture itself: one more block is appended whose attention
// is uniform (zero queries and keys) over identity values, times 2^20, so that after the residual and the norm every token holds the
// normalised mean; its feed-forward part is zero; and the pooler is a small multiple of the identity, where tanh is linear. Logits agree
// with the regression's to about 1e-5, and everything else (attacks, gradients, other tools) needs no special case.

const (
	meanGain  = 1 << 20 // the token's own state is lost against it
	poolScale = 1.0 / 1024
)

// head fits and installs a classifier over the base's sentence embeddings.
func (o *Options) head(ctx context.Context, b *peft.Bundle, trainSet, devSet []Example) (*Result, error) {
	if b.Adapter != nil {
		return nil, fmt.Errorf("%s is an adapter: merge it before tuning a head", b.Dir)
	}
	cfg := b.Model.Config()
	if o.Loss.Kind != "" && o.Loss.Kind != "cross_entropy" {
		return nil, fmt.Errorf("head: expected classes, got numbers; use full or lora")
	}
	grown, pool, err := growHead(b)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	cpu0, _ := usage()
	var arena grad.Arena
	k := o.Kernels
	features := func(set []Example) ([]float32, error) {
		return o.features(ctx, k, &arena, b.Model, set, pool, cfg.NormEps)
	}
	x, err := features(trainSet)
	if err != nil {
		return nil, err
	}
	y := make([]int32, len(trainSet))
	for i, e := range trainSet {
		y[i] = e.Class
	}
	fit, err := FitLogistic(ctx, k, x, cfg.Hidden, y, len(cfg.Labels), o.C, o.Loss.ClassWeights)
	if err != nil {
		return nil, err
	}
	m, err := grown(fit)
	if err != nil {
		return nil, err
	}
	trained := *b
	trained.Model = m
	res := Outcome{Steps: fit.Iterations, Loss: fit.Loss}
	for _, e := range trainSet {
		res.Tokens += int64(len(e.IDs))
	}
	if len(devSet) > 0 {
		s, err := Evaluate(ctx, k, &arena, m, Loss{}, devSet, cfg.Labels)
		if err != nil {
			return nil, err
		}
		res.Last = &s
	}
	cpu, _ := usage()
	res.Seconds = time.Since(began).Seconds()
	lengths := make([]int, len(trainSet))
	for i, e := range trainSet {
		lengths[i] = len(e.IDs)
	}
	res.Spent = Cost{CPUSeconds: cpu - cpu0, Tokens: res.Tokens, FLOPs: flops(b, nil)(lengths) / 2}
	r := o.result(&trained, nil, res)
	r.Trainable = fit.Classes * (fit.Dim + 1)
	r.Dev, r.Bundle = res.Last, &trained
	return r, o.write(&trained)
}

// features runs the frozen encoder: rows of unit length [examples, Hidden].
func (o *Options) features(ctx context.Context, k backend.Kernels, arena *grad.Arena, m model.Model, set []Example, pool model.Pooling, eps float32) ([]float32, error) {
	h := m.Config().Hidden
	out := make([]float32, len(set)*h)
	order := make([]int, len(set))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(set[b].IDs) - len(set[a].IDs) })
	began := time.Now()
	done := 0
	for from := 0; from < len(order); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var chunk []Example
		tokens, to := 0, from
		for to < len(order) && (to == from || tokens+len(set[order[to]].IDs) <= evalTokens) {
			chunk = append(chunk, set[order[to]])
			tokens += len(set[order[to]].IDs)
			to++
		}
		arena.Reset()
		b := Pack(chunk)
		b.Want = model.WantPooled
		r, err := m.Forward(grad.Infer(k, arena), b)
		if err != nil {
			return nil, err
		}
		for i := range chunk {
			copy(out[order[from+i]*h:], r.Pooled.Data[i*h:(i+1)*h])
		}
		done += tokens
		from = to
		if o.Progress != nil {
			el := time.Since(began)
			p := Progress{Step: from, Steps: len(order), Epoch: float64(from) / float64(len(order)), Elapsed: el}
			if s := el.Seconds(); s > 0 {
				p.TokensPerSecond = float64(done) / s
				p.ETA = time.Duration(float64(el) / float64(from) * float64(len(order)-from))
			}
			o.Progress(p)
		}
	}
	arena.Reset()
	if pool == model.PoolMean { // what the norms of the appended block do
		standardise(out, h, eps)
	}
	for i := range len(set) {
		row := out[i*h : (i+1)*h]
		var s float64
		for _, v := range row {
			s += float64(v) * float64(v)
		}
		if pool != model.PoolMean {
			s = float64(h) // the first token's state is taken as it is, scaled alike for all
		}
		if s > 0 {
			f := float32(1 / math.Sqrt(s))
			for j := range row {
				row[j] *= f
			}
		}
	}
	return out, nil
}

// standardise centres rows and divides them by their standard deviation.
func standardise(x []float32, cols int, eps float32) {
	for r := 0; r+cols <= len(x); r += cols {
		row := x[r : r+cols]
		var mean, sq float64
		for _, v := range row {
			mean += float64(v)
		}
		mean /= float64(cols)
		for _, v := range row {
			sq += (float64(v) - mean) * (float64(v) - mean)
		}
		f := 1 / math.Sqrt(sq/float64(cols)+float64(eps))
		for i, v := range row {
			row[i] = float32((float64(v) - mean) * f)
		}
	}
}

// growHead returns the function that builds the classifier from a regression over the features of this base, and the pooling of those.
func growHead(b *peft.Bundle) (func(*Logistic) (model.Model, error), model.Pooling, error) {
	cfg := b.Model.Config()
	names, ok := headNames[cfg.ModelType]
	if !ok {
		return nil, "", fmt.Errorf("head tuning of model type %q is not supported, expected one of bert, roberta, xlm-roberta; use lora", cfg.ModelType)
	}
	pool := cfg.Pooling
	if pool == "" {
		pool = model.PoolMean
	}
	if pool != model.PoolMean && pool != model.PoolCLS {
		return nil, "", fmt.Errorf("head tuning needs mean or first-token pooling, the folder says %s", pool)
	}
	return func(fit *Logistic) (model.Model, error) {
		h := cfg.Hidden
		ts := slices.DeleteFunc(model.Tensors(b.Model), func(t tensor.Tensor) bool {
			return strings.HasPrefix(t.Name, names.dense) || strings.HasPrefix(t.Name, names.out)
		})
		c := cfg.Clone()
		if pool == model.PoolMean {
			p := fmt.Sprintf("%s.encoder.layer.%d.", names.prefix, cfg.Layers)
			width := cfg.Heads * cfg.HeadDim
			zero := func(name string, shape ...int) { ts = append(ts, tensor.New(p+name, shape...)) }
			value := func(name string, x float32, n int) { ts = append(ts, constant(p+name, x, n)) }
			for _, n := range []string{"query", "key"} {
				zero("attention.self."+n+".weight", width, h)
				zero("attention.self."+n+".bias", width)
			}
			ts = append(ts, diagonal(p+"attention.self.value.weight", width, h, 1))
			zero("attention.self.value.bias", width)
			ts = append(ts, diagonal(p+"attention.output.dense.weight", h, width, meanGain))
			zero("attention.output.dense.bias", h)
			zero("intermediate.dense.weight", cfg.Intermediate, h)
			zero("intermediate.dense.bias", cfg.Intermediate)
			zero("output.dense.weight", h, cfg.Intermediate)
			zero("output.dense.bias", h)
			for _, n := range []string{"attention.output.LayerNorm", "output.LayerNorm"} {
				value(n+".weight", 1, h)
				zero(n+".bias", h)
			}
			if err := c.Set("num_hidden_layers", cfg.Layers+1); err != nil {
				return nil, err
			}
		}
		ts = append(ts, diagonal(names.dense+".weight", h, h, poolScale), tensor.New(names.dense+".bias", h))
		w := make([]float32, len(fit.W))
		f := 1 / (poolScale * math.Sqrt(float64(h))) // the features have unit length, the states √h
		for i, v := range fit.W {
			w[i] = float32(float64(v) * f)
		}
		ts = append(ts, tensor.FromF32(names.out+".weight", w, fit.Classes, h), tensor.FromF32(names.out+".bias", fit.B, fit.Classes))
		raw, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		grown, err := model.ParseConfig(raw)
		if err != nil {
			return nil, err
		}
		src, err := checkpoint.FromTensors(ts)
		if err != nil {
			return nil, err
		}
		grown.Pooling = cfg.Pooling
		return model.New(grown, src, model.Options{})
	}, pool, nil
}

var headNames = map[string]struct{ prefix, dense, out string }{
	"bert":        {"bert", "bert.pooler.dense", "classifier"},
	"roberta":     {"roberta", "classifier.dense", "classifier.out_proj"},
	"xlm-roberta": {"roberta", "classifier.dense", "classifier.out_proj"},
}

func diagonal(name string, rows, cols int, x float32) tensor.Tensor {
	v := make([]float32, rows*cols)
	for i := range min(rows, cols) {
		v[i*cols+i] = x
	}
	return tensor.FromF32(name, v, rows, cols)
}

func constant(name string, x float32, n int) tensor.Tensor {
	v := make([]float32, n)
	for i := range v {
		v[i] = x
	}
	return tensor.FromF32(name, v, n)
}
