package generate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grammar"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/tests/fixture"
)

var schemas = []string{
	`{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}}},"required":["name","age","tags"],"additionalProperties":false}`,
	`{"type":"array","items":{"type":"object","properties":{"x":{"type":"number"},"ok":{"type":"boolean"}},"required":["x"]},"minItems":2}`,
	`{"enum":["red","green",{"mixed":[1,2]},null]}`,
	`{"type":"object"}`,
	`{"anyOf":[{"type":"string"},{"type":"object","properties":{"why":{"type":"string"}},"required":["why"],"additionalProperties":false}]}`,
}

// parsed generates under each schema in turn and checks that every text is JSON, however few tokens it has.
func parsed(t *testing.T, d *generate.Decoder, k backend.Kernels, n, tokens int) {
	g, err := d.Start(k, generate.Options{Parallel: 8})
	require.NoError(t, err)
	defer g.Close()
	var wg sync.WaitGroup
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				gr, err := grammar.FromSchema([]byte(schemas[i%len(schemas)]))
				if err != nil {
					t.Error(err)
					return
				}
				c, err := d.Constrain(gr)
				if err != nil {
					t.Error(err)
					return
				}
				var b strings.Builder
				r, err := g.Generate(context.Background(), generate.Request{Prompt: d.Encode(fmt.Sprintf("Number %d as JSON:", i), false), MaxTokens: tokens,
					Sample: sample.Params{Temperature: 1.2, Seed: uint64(i)}, LogProbs: -1, Constraint: c}, func(p generate.Piece) error { b.WriteString(p.Text); return nil })
				var v any
				if err != nil || json.Unmarshal([]byte(b.String()), &v) != nil || r.Tokens > tokens || r.Finish != generate.FinishStop {
					t.Errorf("text %d: %q, %d tokens, %s: %v", i, b.String(), r.Tokens, r.Finish, err)
				}
				if ok, err := gr.Matches(b.String()); !ok || err != nil {
					t.Errorf("text %d: %q is not of its schema: %v", i, b.String(), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestSchemaAlwaysParses(t *testing.T) {
	for _, name := range []string{"gpt2-causal", "llama-causal"} {
		d, err := generate.Open(filepath.Join(fixture.Parity(t), "models", name), generate.OpenOptions{})
		require.NoError(t, err)
		k := backend.Generic(1)
		for _, tokens := range []int{40, 50} { // the shortest that the first schema allows has 31 bytes
			parsed(t, d, k, 100, tokens)
		}
		k.Close()
		require.NoError(t, d.Close())
	}
}

func TestSchemaAlwaysParsesGemma(t *testing.T) {
	if testing.Short() {
		t.Skip("the real model takes minutes")
	}
	d, err := generate.Open(fixture.Gemma(t), generate.OpenOptions{})
	require.NoError(t, err)
	k, err := native.New(native.Options{Threads: 2})
	require.NoError(t, err)
	texts := 12
	if os.Getenv("TEMPER_LONG") != "" { // all 200 take minutes
		texts = 200
	}
	parsed(t, d, k, texts, 48)
	k.Close()
	require.NoError(t, d.Close())
}
