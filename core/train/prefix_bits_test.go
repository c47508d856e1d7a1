package train_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/train"
)

// States of frozen layers kept from epoch to epoch change no bit of what is trained, whether all of them are kept, some or none.
func TestPrefixKeepsBits(t *testing.T) {
	base := tinyFolder(t)
	last, err := peft.Method("lora")
	require.NoError(t, err)
	last.Layers = []int{1}
	for name, set := range map[string]func(*train.Options){
		"lora of the last block":      func(o *train.Options) { o.Method, o.Adapter = "lora", &last },
		"4-bit base, chosen by words": func(o *train.Options) { o.Method, o.BaseType, o.Layers = "qlora", tensor.Q4_0, "last:1" },
		"full above a block":          func(o *train.Options) { o.Method, o.Freeze = "full", 2 },
		"recomputed":                  func(o *train.Options) { o.Method, o.Adapter, o.Recompute = "lora", &last, true },
		"accumulated":                 func(o *train.Options) { o.Method, o.Freeze, o.Accumulate = "full", 2, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			var want map[string][]byte
			for _, room := range []int64{-1, 0, 4000} {
				o := options(base, "", "")
				o.Epochs, o.NoDropout, o.CacheBytes = 2, true, room
				set(&o)
				r, err := train.Run(context.Background(), o)
				require.NoError(t, err)
				got := map[string][]byte{}
				for _, p := range r.Bundle.Model.Params() {
					got[p.Name] = append([]byte(nil), p.T.Data...)
				}
				require.NoError(t, r.Bundle.Close())
				if want == nil {
					want = got
				}
				require.Equal(t, want, got, "%d bytes", room)
			}
		})
	}
}

// Blocks computed twice change no bit either, dropout included, over bases of any storage.
func TestCheckpointingKeepsBits(t *testing.T) {
	base := tinyFolder(t)
	for name, set := range map[string]func(*train.Options){
		"full":         func(o *train.Options) { o.Method = "full" },
		"lora":         func(o *train.Options) { o.Method = "lora" },
		"8-bit base":   func(o *train.Options) { o.Method = "qlora" },
		"4-bit base":   func(o *train.Options) { o.Method, o.BaseType = "qlora", tensor.Q4_0 },
		"frozen below": func(o *train.Options) { o.Method, o.Layers = "lora", "last:1" },
	} {
		t.Run(name, func(t *testing.T) {
			var want map[string][]byte
			for _, twice := range []bool{false, true} {
				o := options(base, "", "")
				o.Epochs, o.Recompute = 1, twice
				set(&o)
				r, err := train.Run(context.Background(), o)
				require.NoError(t, err)
				got := map[string][]byte{}
				for _, p := range r.Bundle.Model.Params() {
					got[p.Name] = append([]byte(nil), p.T.Data...)
				}
				require.NoError(t, r.Bundle.Close())
				if want == nil {
					want = got
				}
				require.Equal(t, want, got)
			}
		})
	}
	o := options(base, "", "lora")
	o.Layers = "last:9"
	_, err := train.Run(context.Background(), o)
	require.ErrorContains(t, err, "numbers below 2")
}

// The same for dialogues over a quantized decoder.
func TestPrefixKeepsBitsCausal(t *testing.T) {
	k := backend.Generic(1)
	t.Cleanup(k.Close)
	set := []train.Example{talk(0), talk(3), talk(8), talk(11), talk(2)}
	var want [][]byte
	for _, room := range []int64{-1, 0} {
		m := quantizedDecoder(t)
		cfg, err := peft.Method("lora")
		require.NoError(t, err)
		cfg.Layers = []int{m.Config().Layers - 1}
		r, err := train.TuneCausal(context.Background(), train.CausalOptions{Model: m, Base: "b", Kernels: k, Train: set, Method: "lora", Adapter: &cfg, Epochs: 3,
			Batch: 2, LR: 1e-3, Seed: 9, CacheBytes: room})
		require.NoError(t, err)
		ts, err := r.Adapter.Tensors()
		require.NoError(t, err)
		var got [][]byte
		for _, x := range ts {
			got = append(got, append([]byte(nil), x.Data...))
		}
		if want == nil {
			want = got
		}
		require.Equal(t, want, got, "%d bytes", room)
	}
}
