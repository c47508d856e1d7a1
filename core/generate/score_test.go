package generate_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/tests/fixture"
)

// direct is log p of each token after the first by one plain forward.
func direct(t *testing.T, m model.Model, ids []int32) []float64 {
	k := backend.Generic(1)
	defer k.Close()
	var arena grad.Arena
	out, err := m.Forward(grad.Infer(k, &arena), &model.Batch{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Want: model.WantLogits})
	require.NoError(t, err)
	var lps []float64
	for i, id := range ids[1:] {
		z := out.Logits.Data[i*out.Logits.Cols : (i+1)*out.Logits.Cols]
		sum := 0.0
		for _, v := range z {
			sum += math.Exp(float64(v))
		}
		lps = append(lps, float64(z[id])-math.Log(sum))
	}
	return lps
}

func TestScorer(t *testing.T) {
	for _, name := range []string{"llama-causal", "gemma3-causal", "gpt2-causal", "phi3-causal"} {
		t.Run(name, func(t *testing.T) {
			d, err := generate.Open(filepath.Join(fixture.Parity(t), "models", name), generate.OpenOptions{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, d.Close()) })
			k := backend.Generic(1)
			t.Cleanup(k.Close)
			s, err := generate.NewScorer(d.Model, k)
			require.NoError(t, err)
			ctx := context.Background()
			ids := []int32{5, 9, 14, 9, 14, 20, 21, 22, 23, 8, 11, 12}
			want := direct(t, d.Model, ids)
			for _, from := range []int{1, 4, 11, 12} {
				got, err := s.Sequence(ctx, ids, from)
				require.NoError(t, err)
				require.InDeltaSlice(t, want[from-1:], got, 1e-4)
			}
			// Texts of several lengths after prompts that share a beginning.
			texts := [][]int32{{20, 21, 22}, {7}, {20, 8}, {9, 9, 9, 9}}
			for _, n := range []int{5, 7, 3} {
				got, err := s.Continuations(ctx, ids[:n], texts)
				require.NoError(t, err)
				for i, text := range texts {
					all := direct(t, d.Model, append(append([]int32{}, ids[:n]...), text...))
					require.InDeltaSlice(t, all[n-1:], got[i], 1e-4, "text %d after %d tokens", i, n)
				}
			}
			// One window is the plain mean; small ones score each token once with what stands before it in the window.
			p, err := s.Text(ctx, ids[1:], ids[0], 30, 12, 6, nil)
			require.NoError(t, err)
			sum := 0.0
			for _, lp := range want {
				sum -= lp
			}
			require.InDelta(t, math.Exp(sum/11), p.Perplexity, 1e-3*p.Perplexity)
			require.InDelta(t, sum/math.Ln2/30, p.BitsByte, 1e-4)
			p, err = s.Text(ctx, ids, -1, 0, 5, 2, nil)
			require.NoError(t, err)
			require.Equal(t, 11, p.Tokens)
			sum = 0
			for at := 1; at < len(ids); {
				hi := min(at+2, len(ids))
				if at == 1 {
					hi = 5
				}
				win := ids[hi-5 : hi]
				for _, lp := range direct(t, d.Model, win)[4-(hi-at):] {
					sum -= lp
				}
				at = hi
			}
			require.InDelta(t, sum/11, p.Loss, 1e-4)
			for _, bad := range [][3]int{{1, 1}, {5, 0}, {5, 5}} {
				_, err := s.Text(ctx, ids, -1, 0, bad[0], bad[1], nil)
				require.Error(t, err)
			}
			_, err = s.Text(ctx, ids[:1], -1, 0, 5, 2, nil)
			require.ErrorContains(t, err, "too few")
			_, err = s.Continuations(ctx, nil, texts)
			require.ErrorContains(t, err, "empty")
			_, err = s.Sequence(ctx, []int32{1, int32(d.Model.Config().Vocab)}, 1)
			require.ErrorContains(t, err, "vocabulary")
		})
	}
}
