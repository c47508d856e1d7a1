package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/train"
)

// A small encoder of two layers, from scratch, so that these tests need no files: words are single tokens.
var words = strings.Fields("[PAD] [UNK] [CLS] [SEP] [MASK] good fine great lovely superb bad poor awful dull weak the film plot cast was and not very a it")

func tinyFolder(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "base")
	vocab := map[string]int{}
	for i, w := range words {
		vocab[w] = i
	}
	tok, err := json.Marshal(map[string]any{
		"version": "1.0",
		"added_tokens": []map[string]any{
			{"id": 0, "content": "[PAD]", "special": true}, {"id": 1, "content": "[UNK]", "special": true}, {"id": 2, "content": "[CLS]", "special": true},
			{"id": 3, "content": "[SEP]", "special": true}, {"id": 4, "content": "[MASK]", "special": true}},
		"normalizer":    map[string]any{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": true},
		"pre_tokenizer": map[string]any{"type": "BertPreTokenizer"},
		"post_processor": map[string]any{"type": "TemplateProcessing",
			"single": []any{map[string]any{"SpecialToken": map[string]any{"id": "[CLS]", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}},
				map[string]any{"SpecialToken": map[string]any{"id": "[SEP]", "type_id": 0}}},
			"pair": []any{map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}}},
			"special_tokens": map[string]any{"[CLS]": map[string]any{"id": "[CLS]", "ids": []int{2}, "tokens": []string{"[CLS]"}},
				"[SEP]": map[string]any{"id": "[SEP]", "ids": []int{3}, "tokens": []string{"[SEP]"}}}},
		"model": map[string]any{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
	})
	require.NoError(t, err)
	cfg := fmt.Sprintf(`{"model_type":"bert","architectures":["BertModel"],"vocab_size":%d,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":2,
		"intermediate_size":32,"max_position_embeddings":32,"type_vocab_size":2,"pad_token_id":0,"initializer_range":0.3,"hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1}`, len(words))
	c, err := model.ParseConfig([]byte(cfg))
	require.NoError(t, err)
	m, err := model.New(c, nil, model.Options{Random: true, Seed: 7})
	require.NoError(t, err)
	require.NoError(t, checkpoint.WriteFolder(dir, func(w *checkpoint.FolderWriter) error {
		return errors.Join(w.File(checkpoint.ConfigFile, []byte(cfg)), w.File(checkpoint.TokenizerFile, tok),
			w.Safetensors(checkpoint.WeightsFile, model.Tensors(m), nil))
	}))
	return dir
}

// reviews are texts whose label is the word that they hold.
func reviews(n int) *data.Dataset {
	d := &data.Dataset{Name: "reviews", LabelNames: []string{"negative", "positive"}}
	for i := range n {
		y := i % 2
		word := words[5+5*(1-y)+i/2%5]
		d.Texts = append(d.Texts, fmt.Sprintf("the %s was %s %s", words[16+i%3], []string{"very", "a", "and"}[i%3], word))
		d.Labels, d.Rows = append(d.Labels, y), append(d.Rows, i)
	}
	return d
}

func options(base, out, method string) train.Options {
	return train.Options{Base: base, Out: out, Kernels: backend.Generic(1), Train: reviews(60), Dev: reviews(20), Method: method, Epochs: 4, Batch: 8,
		LR: 5e-3, Seed: 3, SaveSteps: 3, SaveEvery: -1, EvalSteps: 5, Patience: 100}
}

const (
	childEnv = "TEMPER_TEST_TRAIN_CHILD" // base|out|method
)

// TestMain runs a training in a child process that its parent kills.
func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		f := strings.Split(v, "|")
		o := options(f[0], f[1], f[2])
		o.Resume = true
		o.Progress = func(p train.Progress) {
			fmt.Println("step", p.Step)
			time.Sleep(3 * time.Millisecond)
		}
		if _, err := train.Run(context.Background(), o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A run that is killed again and again ends with the bits of one that was left alone.
func TestKilledRunIsBitIdentical(t *testing.T) {
	base := tinyFolder(t)
	for _, method := range []string{"full", "lora", "adalora"} {
		t.Run(method, func(t *testing.T) {
			whole := filepath.Join(t.TempDir(), "whole")
			r, err := train.Run(context.Background(), options(base, whole, method))
			require.NoError(t, err)
			require.NoError(t, r.Bundle.Close())
			require.Equal(t, 32, r.Steps)
			assert.NoDirExists(t, filepath.Join(whole, train.CheckpointDir))

			killed := filepath.Join(t.TempDir(), "killed")
			kills := 0
			for try := range 60 {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), childEnv+"="+base+"|"+killed+"|"+method)
				var errb bytes.Buffer
				cmd.Stderr = &errb
				require.NoError(t, cmd.Start())
				done := make(chan error, 1)
				go func() { done <- cmd.Wait() }()
				delay := time.Duration(20+13*try) * time.Millisecond
				if kills >= 6 {
					delay = time.Minute
				}
				select {
				case err := <-done:
					require.NoError(t, err, errb.String())
				case <-time.After(delay):
					require.NoError(t, cmd.Process.Kill())
					<-done
					kills++
					continue
				}
				break
			}
			require.Positive(t, kills, "the run was never killed")
			t.Logf("killed %d times", kills)
			a, err := os.ReadFile(filepath.Join(whole, checkpoint.WeightsFile))
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(killed, checkpoint.WeightsFile))
			require.NoError(t, err)
			assert.True(t, bytes.Equal(a, b), "weights differ")
		})
	}
}

func TestCancelKeepsCheckpoint(t *testing.T) {
	base := tinyFolder(t)
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(context.Background())
	o := options(base, out, "full")
	o.Progress = func(p train.Progress) {
		if p.Step == 10 {
			cancel()
		}
	}
	_, err := train.Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.FileExists(t, filepath.Join(out, train.CheckpointDir, "state.safetensors"))
	assert.NoFileExists(t, filepath.Join(out, checkpoint.WeightsFile))

	o = options(base, out, "full")
	o.Resume = true
	first := 0
	o.Progress = func(p train.Progress) {
		if first == 0 {
			first = p.Step
		}
	}
	r, err := train.Run(context.Background(), o)
	require.NoError(t, err)
	defer r.Bundle.Close()
	assert.Equal(t, 11, first, "it went on where it stopped")
	assert.Equal(t, 20, r.Dev.Examples)
	assert.Positive(t, r.Cost.FLOPs)
	assert.Positive(t, r.Cost.Tokens)

	// Another run's checkpoint is refused, a damaged one too.
	_, err = train.Run(ctx, o) // cancelled before its first step
	require.ErrorIs(t, err, context.Canceled)
	o.LR = 1e-3
	_, err = train.Run(context.Background(), o)
	require.ErrorContains(t, err, "other settings")
	require.NoError(t, os.WriteFile(filepath.Join(out, train.CheckpointDir, "state.safetensors"), []byte("garbage"), 0o644))
	_, err = train.Run(context.Background(), o)
	require.Error(t, err)
}

func TestMethodsLearn(t *testing.T) {
	base := tinyFolder(t)
	for _, method := range train.Methods() {
		t.Run(method, func(t *testing.T) {
			o := options(base, filepath.Join(t.TempDir(), "out"), method)
			o.LR, o.Epochs, o.NoDropout, o.Patience = 2e-2, 9, true, 0
			first, steps := 0.0, 0
			o.Progress = func(p train.Progress) {
				if p.Epoch <= 1 {
					first, steps = first+p.Loss, steps+1
				}
			}
			if method == "full" {
				o.LR = 5e-3
			}
			r, err := train.Run(context.Background(), o)
			require.NoError(t, err)
			defer r.Bundle.Close()
			assert.Positive(t, r.Trainable)
			if method == "head" {
				assert.Greater(t, r.Dev.Accuracy, 0.7)
			} else {
				t.Logf("loss %.3f in the first epoch, %.3f in the last; accuracy %.2f", first/float64(steps), r.Loss, r.Dev.Accuracy)
				assert.Less(t, r.Loss, first/float64(steps)-0.005, "it learns")
			}
			assert.FileExists(t, filepath.Join(o.Out, checkpoint.ConfigFile))
		})
	}
}

// Splitting a batch into micro-batches changes nothing but rounding; memory stays bounded however many steps are run.
func TestAccumulation(t *testing.T) {
	base := tinyFolder(t)
	run := func(batch, accumulate int) []float32 {
		o := options(base, "", "full")
		o.Batch, o.Accumulate, o.NoDropout, o.Optimizer, o.LR, o.Patience = batch, accumulate, true, "sgd", 0.05, 0
		r, err := train.Run(context.Background(), o)
		require.NoError(t, err)
		defer r.Bundle.Close()
		var all []float32
		for _, p := range r.Bundle.Model.Params() {
			all = append(all, p.Values()...)
		}
		return all
	}
	a, b := run(16, 1), run(4, 4)
	assert.InDeltaSlice(t, a, b, 1e-4)
}

// However long a run is, it holds no more memory than its first steps did.
func TestMemoryIsBounded(t *testing.T) {
	o := options(tinyFolder(t), "", "full")
	o.Epochs, o.Patience = 40, 0
	var early, late uint64
	o.Progress = func(p train.Progress) {
		if p.Step != 20 && p.Step != p.Steps {
			return
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if early == 0 {
			early = m.HeapAlloc
		} else {
			late = m.HeapAlloc
		}
	}
	r, err := train.Run(context.Background(), o)
	require.NoError(t, err)
	defer r.Bundle.Close()
	require.Positive(t, late)
	assert.Less(t, float64(late), float64(early)*1.2+1<<19)
}

func TestEarlyStopping(t *testing.T) {
	o := options(tinyFolder(t), "", "full")
	o.Epochs, o.Patience, o.EvalSteps = 50, 2, 4
	for i := range o.Dev.Labels { // the better it learns, the worse it does here
		o.Dev.Labels[i] = 1 - o.Dev.Labels[i]
	}
	r, err := train.Run(context.Background(), o)
	require.NoError(t, err)
	defer r.Bundle.Close()
	assert.True(t, r.Stopped)
	assert.Less(t, r.Steps, 50*8)
}

func TestErrors(t *testing.T) {
	base := tinyFolder(t)
	for name, set := range map[string]func(*train.Options){
		"unknown method":    func(o *train.Options) { o.Method = "magic" },
		"unknown optimiser": func(o *train.Options) { o.Optimizer = "magic" },
		"unknown schedule":  func(o *train.Options) { o.Schedule = "magic" },
		"no kernels":        func(o *train.Options) { o.Kernels = nil },
		"no data":           func(o *train.Options) { o.Train = nil },
		"one class": func(o *train.Options) {
			o.Train = &data.Dataset{Name: "x", Texts: []string{"a"}, Labels: []int{0}, LabelNames: []string{"a"}, Rows: []int{0}}
		},
		"negative batch":     func(o *train.Options) { o.Batch = -1 },
		"smoothing":          func(o *train.Options) { o.Loss.Smoothing = 1 },
		"diverging":          func(o *train.Options) { o.LR, o.Clip, o.Optimizer, o.Warmup = 1e30, -1, "sgd", -1 },
		"unknown dev labels": func(o *train.Options) { o.Dev = reviews(4); o.Dev.LabelNames = []string{"x", "y"} },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(base, "", "full")
			set(&o)
			_, err := train.Run(context.Background(), o)
			require.Error(t, err)
			t.Log(err)
		})
	}
}
