package peft_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/peft"
)

// A stack computes what its parts add to the base together; off, it and they leave nothing behind.
func TestStack(t *testing.T) {
	base := random(t, bertConfig)
	before := logits(t, base)
	part := func(method string, change func(*peft.Config)) *peft.Model {
		cfg := settings(t, method)
		cfg.ModulesToSave = []string{}
		change(&cfg)
		m, err := peft.Attach(base, cfg, 1)
		require.NoError(t, err)
		disturb(m)
		require.NoError(t, m.Enable(false))
		return m
	}
	a := part("lora", func(*peft.Config) {})
	b := part("rslora", func(c *peft.Config) { c.R, c.Targets = 3, peft.Names("query", "output.dense") })
	c := part("lora", func(c *peft.Config) { c.Layers = []int{1} })

	// What is wanted: two of them merged into the weights, the third beside them.
	require.NoError(t, a.Enable(true))
	require.NoError(t, a.Merge())
	require.NoError(t, b.Enable(true))
	require.NoError(t, b.Merge())
	require.NoError(t, c.Enable(true))
	want := logits(t, c)
	require.NoError(t, c.Enable(false))
	require.NoError(t, b.Unmerge())
	require.NoError(t, b.Enable(false))
	require.NoError(t, a.Unmerge())
	require.NoError(t, a.Enable(false))

	s, err := peft.Stack(a, b, c)
	require.NoError(t, err)
	assert.Equal(t, before, logits(t, s), "it starts switched off")
	require.NoError(t, s.Enable(true))
	assert.InDeltaSlice(t, want, logits(t, s), 2e-5)
	require.NoError(t, s.Enable(false))
	assert.Equal(t, before, logits(t, base))

	// As a folder it is an ordinary adapter.
	require.NoError(t, s.Enable(true))
	dir := filepath.Join(t.TempDir(), "adapter")
	require.NoError(t, checkpoint.WriteFolder(dir, s.Save))
	f, err := checkpoint.OpenFolder(dir)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	again, err := peft.Load(random(t, bertConfig), f)
	require.NoError(t, err)
	assert.InDeltaSlice(t, want, logits(t, again), 2e-5, "reloaded")
}

func TestStackRefuses(t *testing.T) {
	base := random(t, bertConfig)
	part := func(method string, on bool, whole []string) *peft.Model {
		m := base
		if !on {
			m = random(t, bertConfig)
		}
		cfg := settings(t, method)
		cfg.ModulesToSave = whole
		p, err := peft.Attach(m, cfg, 1)
		require.NoError(t, err)
		require.NoError(t, p.Enable(false))
		return p
	}
	good := part("lora", true, []string{})
	for want, p := range map[string]*peft.Model{
		"over another base":        part("lora", false, []string{}),
		"more than linear layers":  part("lora", true, nil), // a classifier of its own
		"adapter 1 is no plain Lo": part("dora", true, []string{}),
		"is no plain LoRA (IA3)":   part("ia3", true, []string{}),
	} {
		_, err := peft.Stack(good, p)
		assert.ErrorContains(t, err, want)
	}
	_, err := peft.Stack()
	assert.ErrorContains(t, err, "no adapters")
}
