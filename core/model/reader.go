package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
)

// reader reads the keys of a config.json and keeps the first error. A key that is absent or null gives the default.
type reader struct {
	raw map[string]json.RawMessage
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) has(key string) bool {
	v, ok := r.raw[key]
	return ok && !bytes.Equal(v, []byte("null"))
}

func (r *reader) get(key string, into any, want string) bool {
	if !r.has(key) {
		return false
	}
	if err := json.Unmarshal(r.raw[key], into); err != nil {
		r.fail("%s: expected %s, got %s", key, want, abridge(r.raw[key]))
		return false
	}
	return true
}

func abridge(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "…"
	}
	return string(b)
}

// required marks an integer without a default.
const required = math.MinInt

// int reads a whole number between lo and hi.
func (r *reader) int(key string, def, lo, hi int) int {
	var f float64
	if !r.get(key, &f, "a whole number") {
		if def == required {
			r.fail("%s: missing", key)
			return lo
		}
		return def
	}
	if f != math.Trunc(f) || f < float64(lo) || f > float64(hi) {
		r.fail("%s: expected a whole number from %d to %d, got %s", key, lo, hi, abridge(r.raw[key]))
		return lo
	}
	return int(f)
}

// float reads a finite number between lo and hi.
func (r *reader) float(key string, def, lo, hi float64) float64 {
	f := def
	if r.get(key, &f, "a number") && (math.IsNaN(f) || f < lo || f > hi) {
		r.fail("%s: expected a number from %g to %g, got %s", key, lo, hi, abridge(r.raw[key]))
		return def
	}
	return f
}

func (r *reader) bool(key string, def bool) bool {
	b := def
	r.get(key, &b, "true or false")
	return b
}

func (r *reader) string(key, def string) string {
	s := def
	r.get(key, &s, "a string")
	return s
}

func (r *reader) object(key string) *reader {
	sub := &reader{}
	if r.get(key, &sub.raw, "an object") {
		return sub
	}
	return nil
}

// drop reads a dropout probability.
func (r *reader) drop(key string, def float64) float32 { return float32(r.float(key, def, 0, 1)) }

// eps reads the small constant of a norm.
func (r *reader) eps(key string, def float64) float32 { return float32(r.float(key, def, 0, 1)) }

// act reads an activation by transformers' name.
func (r *reader) act(key, def string) backend.Activation {
	name := r.string(key, def)
	a, ok := activations[name]
	if !ok {
		r.fail("%s: unknown activation %q", key, name)
	}
	return a
}

var activations = map[string]backend.Activation{
	"gelu": backend.GELU, "gelu_python": backend.GELU, "gelu_new": backend.GELUTanh, "gelu_fast": backend.GELUTanh,
	"gelu_pytorch_tanh": backend.GELUTanh, "gelu_accurate": backend.GELUTanh, "gelu_python_tanh": backend.GELUTanh,
	"quick_gelu": backend.QuickGELU, "relu": backend.ReLU, "silu": backend.SiLU, "swish": backend.SiLU,
	"tanh": backend.Tanh, "sigmoid": backend.Sigmoid, "linear": backend.None,
}
