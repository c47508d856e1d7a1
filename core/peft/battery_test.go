package peft_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

const bertConfig = `{"model_type":"bert","architectures":["BertForSequenceClassification"],"vocab_size":40,"hidden_size":32,"num_hidden_layers":2,
	"num_attention_heads":4,"intermediate_size":64,"max_position_embeddings":64,"type_vocab_size":2,"pad_token_id":0,"initializer_range":0.2,
	"id2label":{"0":"a","1":"b","2":"c"}}`

func random(t testing.TB, config string) model.Model {
	c, err := model.ParseConfig([]byte(config))
	require.NoError(t, err)
	m, err := model.New(c, nil, model.Options{Random: true, Seed: 5})
	require.NoError(t, err)
	return m
}

func batch() *model.Batch {
	return &model.Batch{IDs: []int32{2, 7, 9, 3, 2, 11, 30, 12, 8, 3}, Offsets: []int32{0, 4, 10}, Want: model.WantLogits}
}

func logits(t testing.TB, m model.Model) []float32 {
	k := backend.Generic(1)
	defer k.Close()
	var arena grad.Arena
	out, err := m.Forward(grad.Infer(k, &arena), batch())
	require.NoError(t, err)
	return slices.Clone(out.Logits.Data)
}

// settings returns a method's config, small enough for the tiny model.
func settings(t testing.TB, name string) peft.Config {
	cfg, err := peft.Method(name)
	require.NoError(t, err)
	switch cfg.Type {
	case peft.OFT:
		cfg.BlockSize = 8
	case peft.VeRA:
		cfg.R = 8
	case peft.Bottleneck:
		cfg.Size = 8
	case peft.PrefixTuning, peft.PromptTuning, peft.PTuning:
		cfg.VirtualTokens = 3
	}
	return cfg
}

// disturb gives every trainable parameter values of its own, as training would.
func disturb(m model.Model) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, p := range m.Params() {
		for i, v := 0, p.Values(); i < len(v); i++ {
			v[i] += float32(r.NormFloat64() * 0.1)
		}
		p.Changed()
	}
}

// The battery that every method passes.
func TestBattery(t *testing.T) {
	for _, name := range peft.MethodNames() {
		t.Run(name, func(t *testing.T) {
			base := random(t, bertConfig)
			before := logits(t, base)
			cfg := settings(t, name)
			cfg.BaseModel = "somewhere"
			m, err := peft.Attach(base, cfg, 1)
			require.NoError(t, err)

			// A fresh adapter changes nothing; virtual tokens are there from the start.
			virtual := cfg.Type == peft.PrefixTuning || cfg.Type == peft.PromptTuning || cfg.Type == peft.PTuning
			if !virtual {
				assert.InDeltaSlice(t, before, logits(t, m), 2e-6, "a fresh adapter is a no-op")
			} else {
				assert.NotEqual(t, before, logits(t, m))
			}
			_, err = peft.Attach(base, cfg, 1)
			if cfg.Type != peft.LNTuning && cfg.Type != peft.BitFit && !virtual {
				require.ErrorContains(t, err, "has one already")
			}

			disturb(m)
			tuned := logits(t, m)
			assert.NotEqual(t, before, tuned)

			// Off and on again.
			require.NoError(t, m.Enable(false))
			assert.Equal(t, before, logits(t, m), "switched off, the base is itself, bit for bit")
			assert.Equal(t, before, logits(t, base))
			require.NoError(t, m.Enable(true))
			assert.Equal(t, tuned, logits(t, m))

			// Merged and unmerged.
			if m.Mergeable() {
				require.NoError(t, m.Merge())
				assert.InDeltaSlice(t, tuned, logits(t, base), 2e-5, "merged")
				require.Error(t, m.Enable(false))
				require.NoError(t, m.Unmerge())
				assert.Equal(t, tuned, logits(t, m), "unmerged")
			} else {
				require.Error(t, m.Merge())
			}

			// Saved and loaded over a fresh copy of the base.
			dir := filepath.Join(t.TempDir(), "adapter")
			require.NoError(t, checkpoint.WriteFolder(dir, m.Save))
			f, err := checkpoint.OpenFolder(dir)
			require.NoError(t, err)
			defer f.Close()
			again, err := peft.Load(random(t, bertConfig), f)
			require.NoError(t, err)
			assert.InDeltaSlice(t, tuned, logits(t, again), 2e-6, "reloaded")
			raw, err := os.ReadFile(filepath.Join(dir, checkpoint.AdapterConfigFile))
			require.NoError(t, err)
			var keys map[string]any
			require.NoError(t, json.Unmarshal(raw, &keys))
			assert.Equal(t, string(cfg.Type), keys["peft_type"])
			assert.Equal(t, "somewhere", keys["base_model_name_or_path"])

			// Merged for good.
			if again.Mergeable() {
				plain, err := again.Detach()
				require.NoError(t, err)
				assert.InDeltaSlice(t, tuned, logits(t, plain), 2e-5, "detached")
			}
		})
	}
}

// Gradients of every trainable parameter against finite differences in the loss.
func TestGradients(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	for _, name := range peft.MethodNames() {
		t.Run(name, func(t *testing.T) {
			m, err := peft.Attach(random(t, bertConfig), settings(t, name), 1)
			require.NoError(t, err)
			disturb(m)
			var arena grad.Arena
			loss := func(record bool) float64 {
				arena.Reset()
				c := grad.Infer(k, &arena)
				if record {
					c = grad.Record(k, &arena, false, 0)
				}
				out, err := m.Forward(c, batch())
				require.NoError(t, err)
				l := c.CrossEntropy(out.Logits, []int32{1, 2})
				v := float64(l.Data[0])
				if record {
					c.Backward(l, nil)
				}
				return v
			}
			for _, p := range m.Params() {
				clear(p.Grad)
			}
			loss(true)
			if m.Adapter().DoRA {
				return // its norm is a constant for gradients, which differences do not know; see tests/parity
			}
			r := rand.New(rand.NewPCG(2, 3))
			for _, p := range m.Params() {
				v := p.Values()
				for range 2 {
					i := r.IntN(len(v))
					was := v[i]
					const h = 1e-2
					v[i] = was + h
					p.Changed()
					up := loss(false)
					v[i] = was - h
					p.Changed()
					down := loss(false)
					v[i] = was
					p.Changed()
					assert.InDelta(t, (up-down)/(2*h), p.Grad[i], 2e-3+0.05*math.Abs(float64(p.Grad[i])), "%s[%d]", p.Name, i)
				}
			}
		})
	}
}

// OFT's truncated inverse and shared blocks, BOFT's butterflies, projected prefixes and LSTM prompts: the same battery in brief.
func TestVariants(t *testing.T) {
	for name, set := range map[string]func(*peft.Config){
		"oft neumann 5":   func(c *peft.Config) { c.CayleyNeumann, c.NeumannTerms = true, 5 },
		"oft neumann 2":   func(c *peft.Config) { c.CayleyNeumann, c.NeumannTerms = true, 2 },
		"oft neumann 3":   func(c *peft.Config) { c.CayleyNeumann, c.NeumannTerms = true, 3 },
		"oft neumann 4":   func(c *peft.Config) { c.CayleyNeumann, c.NeumannTerms = true, 4 },
		"oft shared":      func(c *peft.Config) { c.BlockShare = true },
		"oft exact":       func(c *peft.Config) { c.CayleyNeumann = false },
		"boft butterfly":  func(c *peft.Config) { c.ButterflyFactors = 3 },
		"lora everywhere": func(c *peft.Config) { c.Targets = peft.Targets{Regex: peft.AllLinear}; c.Bias = "all" },
		"lora by pattern": func(c *peft.Config) { c.Targets = peft.Targets{Regex: `.*layer\.1.*(query|key)`} },
		"lora one layer":  func(c *peft.Config) { c.Layers = []int{1} },
		"lora embedding":  func(c *peft.Config) { c.Targets = peft.Names("word_embeddings", "query") },
	} {
		t.Run(name, func(t *testing.T) {
			method, _, _ := cut(name)
			cfg := settings(t, method)
			set(&cfg)
			base := random(t, bertConfig)
			before := logits(t, base)
			m, err := peft.Attach(base, cfg, 1)
			require.NoError(t, err)
			assert.InDeltaSlice(t, before, logits(t, m), 2e-6)
			disturb(m)
			tuned := logits(t, m)
			require.NoError(t, m.Merge())
			assert.InDeltaSlice(t, tuned, logits(t, m), 2e-5)
			require.NoError(t, m.Unmerge())
			dir := filepath.Join(t.TempDir(), "adapter")
			require.NoError(t, checkpoint.WriteFolder(dir, m.Save))
			f, err := checkpoint.OpenFolder(dir)
			require.NoError(t, err)
			defer f.Close()
			again, err := peft.Load(random(t, bertConfig), f)
			require.NoError(t, err)
			assert.InDeltaSlice(t, tuned, logits(t, again), 2e-6)
		})
	}
}

func cut(s string) (string, string, bool) {
	for i := range s {
		if s[i] == ' ' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func TestErrors(t *testing.T) {
	for name, set := range map[string]func(*peft.Config){
		"rank":       func(c *peft.Config) { c.R = 0 },
		"huge rank":  func(c *peft.Config) { c.R = 1 << 30 },
		"no layer":   func(c *peft.Config) { c.Targets = peft.Names("nothing") },
		"bad regexp": func(c *peft.Config) { c.Targets = peft.Targets{Regex: "("} },
		"bias":       func(c *peft.Config) { c.Bias = "some" },
		"dropout":    func(c *peft.Config) { c.Dropout = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t, "lora")
			set(&cfg)
			base := random(t, bertConfig)
			before := logits(t, base)
			_, err := peft.Attach(base, cfg, 1)
			require.Error(t, err)
			assert.Equal(t, before, logits(t, base), "the base is left alone")
			t.Log(err)
		})
	}
	_, err := peft.Method("magic")
	assert.ErrorContains(t, err, "lora")
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"peft_type":"LORA","r":4,"target_modules":["query"]}`))
	f.Add([]byte(`{"peft_type":"ADALORA","init_r":4,"rank_pattern":{"a":[true,false]}}`))
	f.Add([]byte(`{"peft_type":"OFT","oft_block_size":3,"layers_to_transform":1,"target_modules":".*(query|value)"}`))
	f.Add([]byte(`{"peft_type":"P_TUNING","num_virtual_tokens":2,"encoder_hidden_size":4,"encoder_reparameterization_type":"LSTM","encoder_num_layers":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var cfg peft.Config
		var err error
		fixture.Bounded(t, len(b), 512, 1<<18, func() { cfg, err = peft.ParseConfig(b) })
		if err != nil {
			return
		}
		out, err := cfg.Encode()
		require.NoError(t, err)
		_, err = peft.ParseConfig(out)
		require.NoError(t, err)
		if cfg.R <= 64 && cfg.InitR <= 64 && cfg.VirtualTokens <= 64 && cfg.EncoderHidden <= 64 && cfg.Size <= 64 {
			_, _ = peft.Attach(random(t, bertConfig), cfg, 1) // an error is fine, a panic is not
		}
	})
}

// FuzzLoad reads adapter folders: any settings with any weights.
func FuzzLoad(f *testing.F) {
	config := `{"peft_type":"LORA","task_type":"SEQ_CLS","r":2,"lora_alpha":4,"target_modules":["query"]}`
	var weights bytes.Buffer
	a, b := tensor.New("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight", 2, 32), tensor.New("base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight", 32, 2)
	require.NoError(f, checkpoint.EncodeSafetensors(&weights, []tensor.Tensor{a, b}, nil))
	f.Add([]byte(config), weights.Bytes())
	for _, c := range []string{
		`{"peft_type":"LORA","r":1000000000,"target_modules":["query"]}`, `{"peft_type":"VERA","r":1000000000,"target_modules":["query"]}`,
		`{"peft_type":"PROMPT_TUNING","num_virtual_tokens":1000000000}`, `{"peft_type":"PREFIX_TUNING","num_virtual_tokens":4,"encoder_hidden_size":1000000000,"prefix_projection":true}`,
		`{"peft_type":"P_TUNING","num_virtual_tokens":4,"encoder_hidden_size":100000000,"encoder_num_layers":100000}`, `{"peft_type":"OFT","oft_block_size":32,"target_modules":["query"]}`,
		`{"peft_type":"ADALORA","init_r":100000000,"target_modules":["query"]}`, `{"peft_type":"BOFT","boft_block_size":4,"boft_n_butterfly_factor":1000000,"target_modules":["query"]}`,
		`{"peft_type":"IA3","target_modules":["query"],"feedforward_modules":[]}`,
	} {
		f.Add([]byte(c), weights.Bytes())
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		base := random(t, bertConfig)
		folder, err := checkpoint.NewFolder("f", map[string][]byte{checkpoint.AdapterConfigFile: config, checkpoint.AdapterWeightsFile: weights})
		require.NoError(t, err)
		// Whatever the settings claim, the weights bound what is made; the extra is the base's own size and the frozen tables of methods.
		fixture.Bounded(t, len(config)+len(weights), 512, 16<<20, func() { _, err = peft.Load(base, folder) })
		if err != nil {
			require.NotEmpty(t, err.Error())
		}
	})
}
