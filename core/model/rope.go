package model

import (
	"fmt"
	"math"
	"sync"
)

// Rope is a rotary position embedding with one of transformers' ways of reaching beyond the trained length.
type Rope struct {
	Theta   float64
	Kind    string  // default, linear, dynamic, yarn, longrope, llama3
	Partial float64 // share of the head that is rotated
	Factor  float64
	// Original is the length before scaling.
	Original int
	// AttentionFactor scales cosines and sines (yarn, longrope); 0 takes the paper's.
	AttentionFactor   float64
	LowFreq, HighFreq float64   // llama3
	BetaFast          float64   // yarn
	BetaSlow          float64   // yarn
	MScale, MScaleAll float64   // yarn
	Whole             bool      // yarn: correction range rounded to whole dimensions
	Short, Long       []float64 // longrope, one per rotated pair

	dim, max int // rotated dimensions, trained length
	mu       sync.Mutex
	cos, sin []float32
	rows     int
}

// ropeBase reads a model's rotary embedding: "rope_parameters" (transformers 5) or "rope_theta" and "rope_scaling" (4).
func (r *reader) ropeBase(theta float64) *Rope {
	switch {
	case r.has("rope_parameters"):
		return r.object("rope_parameters").rope(r, theta)
	case r.has("rope_scaling"):
		return r.object("rope_scaling").rope(r, r.float("rope_theta", theta, 1, 1e18))
	}
	return (&reader{}).rope(r, r.float("rope_theta", theta, 1, 1e18))
}

// rope reads the keys of one rotary embedding; outer is the config around it.
func (r *reader) rope(outer *reader, theta float64) *Rope {
	if r == nil {
		return nil
	}
	defer func() {
		if r.err != nil {
			outer.fail("rope: %w", r.err)
		}
	}()
	e := &Rope{
		Theta:   r.float("rope_theta", theta, 1, 1e18),
		Kind:    r.string("rope_type", r.string("type", "default")),
		Partial: r.float("partial_rotary_factor", outer.float("partial_rotary_factor", outer.float("rotary_pct", 1, 0, 1), 0, 1), 0, 1),
		Factor:  r.float("factor", 0, 0, 1e6),
		Original: r.int("original_max_position_embeddings",
			outer.int("original_max_position_embeddings", 0, 0, maxLength), 0, maxLength),
		AttentionFactor: r.float("attention_factor", 0, 0, 1e6),
		LowFreq:         r.float("low_freq_factor", 1, 1e-9, 1e9),
		HighFreq:        r.float("high_freq_factor", 4, 1e-9, 1e9),
		BetaFast:        r.float("beta_fast", 32, 1e-9, 1e9),
		BetaSlow:        r.float("beta_slow", 1, 1e-9, 1e9),
		MScale:          r.float("mscale", 0, 0, 1e6),
		MScaleAll:       r.float("mscale_all_dim", 0, 0, 1e6),
		Whole:           r.bool("truncate", true),
	}
	r.get("short_factor", &e.Short, "a list of numbers")
	r.get("long_factor", &e.Long, "a list of numbers")
	if e.Kind == "su" { // the older name
		e.Kind = "longrope"
	}
	return e
}

// complete checks the settings against the head size and the trained length.
func (e *Rope) complete(headDim, length int) error {
	e.dim, e.max = int(float64(headDim)*e.Partial), length
	if e.dim < 2 || e.dim%2 != 0 {
		return fmt.Errorf("%d of %d head dimensions rotated: expected an even number of at least 2", e.dim, headDim)
	}
	switch e.Kind {
	case "default":
		return nil
	case "linear", "dynamic", "yarn", "llama3":
		if e.Factor < 1 {
			return fmt.Errorf("%s: expected a factor of at least 1, got %g", e.Kind, e.Factor)
		}
		if e.Original == 0 {
			e.Original = length
		}
		if e.Kind == "dynamic" && e.dim < 4 {
			return fmt.Errorf("dynamic: expected at least 4 rotated dimensions, got %d", e.dim)
		}
		if e.Kind == "llama3" && e.HighFreq <= e.LowFreq {
			return fmt.Errorf("llama3: expected high_freq_factor above low_freq_factor, got %g and %g", e.HighFreq, e.LowFreq)
		}
	case "longrope":
		if e.Original == 0 {
			e.Original = length
		}
		for _, f := range [][]float64{e.Short, e.Long} {
			if len(f) != e.dim/2 {
				return fmt.Errorf("longrope: expected %d short and long factors, got %d", e.dim/2, len(f))
			}
			for _, v := range f {
				if !(v > 0) {
					return fmt.Errorf("longrope: expected positive factors, got %g", v)
				}
			}
		}
	default:
		return fmt.Errorf("unknown rope_type %q", e.Kind)
	}
	if e.Original < 1 || length < 1 {
		return fmt.Errorf("%s: the trained length is not known", e.Kind)
	}
	return nil
}

// changes reports whether the frequencies depend on the length of the sequence.
func (e *Rope) changes() bool { return e.Kind == "dynamic" || e.Kind == "longrope" }

// frequencies returns the angle per position of each pair, and the factor of cosines and sines, for a sequence of n tokens. They are
// rounded to float32 as in torch: at far positions the rounding shows.
func (e *Rope) frequencies(n int) (freq []float32, scale float64) {
	freq, scale = make([]float32, e.dim/2), 1
	theta := e.Theta
	if e.Kind == "dynamic" { // NTK-aware: the base grows with the length
		d, l := float64(e.dim), float64(max(n, e.max))
		theta *= math.Pow(e.Factor*l/float64(e.max)-(e.Factor-1), d/(d-2))
	}
	for i := range freq {
		freq[i] = float32(1 / math.Pow(theta, float64(2*i)/float64(e.dim)))
	}
	switch e.Kind {
	case "linear":
		for i := range freq {
			freq[i] /= float32(e.Factor)
		}
	case "llama3":
		for i, f := range freq {
			wave := 2 * math.Pi / float64(f)
			long, short := float64(e.Original)/e.LowFreq, float64(e.Original)/e.HighFreq
			switch {
			case wave > long:
				freq[i] = f / float32(e.Factor)
			case wave >= short:
				s := (float64(e.Original)/wave - e.LowFreq) / (e.HighFreq - e.LowFreq)
				freq[i] = float32((1-s)*float64(f)/e.Factor + s*float64(f))
			}
		}
	case "yarn": // Peng et al., 2023
		lo, hi := e.correction(e.BetaFast), e.correction(e.BetaSlow)
		if e.Whole {
			lo, hi = math.Floor(lo), math.Ceil(hi)
		}
		lo, hi = max(lo, 0), min(hi, float64(e.dim-1))
		if lo == hi {
			hi += 0.001
		}
		for i, f := range freq {
			ramp := min(max((float64(i)-lo)/(hi-lo), 0), 1)
			freq[i] = float32(float64(f)/e.Factor*ramp + float64(f)*(1-ramp))
		}
		scale = e.AttentionFactor
		if scale == 0 {
			scale = mscale(e.Factor, 1)
			if e.MScale > 0 && e.MScaleAll > 0 {
				scale = mscale(e.Factor, e.MScale) / mscale(e.Factor, e.MScaleAll)
			}
		}
	case "longrope":
		by := e.Short
		if n > e.Original {
			by = e.Long
		}
		for i := range freq {
			freq[i] = float32(1 / (by[i] * math.Pow(theta, float64(2*i)/float64(e.dim))))
		}
		factor := e.Factor
		if factor == 0 {
			factor = float64(e.max) / float64(e.Original)
		}
		scale = e.AttentionFactor
		if scale == 0 {
			scale = 1
			if factor > 1 && e.Original > 1 {
				scale = math.Sqrt(1 + math.Log(factor)/math.Log(float64(e.Original)))
			}
		}
	}
	return freq, scale
}

func mscale(factor, m float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*m*math.Log(factor) + 1
}

// correction is the dimension that turns the given number of times within the trained length.
func (e *Rope) correction(turns float64) float64 {
	return float64(e.dim) * math.Log(float64(e.Original)/(turns*2*math.Pi)) / (2 * math.Log(e.Theta))
}

// fill writes cosines and sines of positions from … from+rows−1.
func (e *Rope) fill(cos, sin []float32, from, rows int, freq []float32, scale float64) {
	half := len(freq)
	for r := range rows {
		for i, f := range freq {
			s, c := math.Sincos(float64(float32(from+r) * f))
			cos[r*half+i], sin[r*half+i] = float32(c*scale), float32(s*scale)
		}
	}
}

// table returns cosines and sines [at least n, dim/2] of an embedding that does not change with the length. It grows as needed.
func (e *Rope) table(n int) (cos, sin []float32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rows < n {
		rows := max(n, 2*e.rows, 128)
		freq, scale := e.frequencies(0)
		// New storage: readers of the old tables are not disturbed.
		e.cos, e.sin = make([]float32, rows*len(freq)), make([]float32, rows*len(freq))
		e.fill(e.cos, e.sin, 0, rows, freq, scale)
		e.rows = rows
	}
	return e.cos, e.sin
}
