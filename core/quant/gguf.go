package quant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
)

// Options of a quantization.
type Options struct {
	// Type is one of Types: "q4_k_m", "q8_0", …
	Type string
	// Threads is the number of workers; 0 is one per processor. The result does not depend on it.
	Threads int
	// Requantize allows a source that is quantized already: its loss adds up. Types of floating point need no leave.
	Requantize bool
	// Progress, when not nil, is called after each tensor.
	Progress func(done, total int, name string)
}

// GGUF writes the model to path as a GGUF file of the given type, which llama.cpp loads. One tensor at a time is in memory.
func GGUF(ctx context.Context, m *checkpoint.GGUFModel, path string, o Options) (*Report, error) {
	var r *Report
	err := checkpoint.WriteFile(path, func(w io.Writer) (err error) {
		r, err = EncodeGGUF(ctx, w, m, o)
		return err
	})
	return r, err
}

// EncodeGGUF is GGUF to a stream.
func EncodeGGUF(ctx context.Context, w io.Writer, m *checkpoint.GGUFModel, o Options) (*Report, error) {
	o.Type = strings.ToLower(o.Type)
	f, err := formatOf(o.Type)
	if err != nil {
		return nil, err
	}
	mix := &mixer{name: o.Type, format: f, layers: m.Layers, groups: 1}
	heads, kv := metaInt(m, ".attention.head_count"), metaInt(m, ".attention.head_count_kv")
	if heads > 0 && kv > 0 {
		mix.groups = heads / kv
	}
	for _, t := range m.Tensors {
		mix.hasOutput = mix.hasOutput || t.Name == "output.weight"
		if strings.Contains(t.Name, "attn_v.weight") || strings.Contains(t.Name, "attn_qkv.weight") {
			mix.valueCount++
		}
	}
	for _, t := range m.Tensors {
		if t.DType.Quantized() && !o.Requantize && !slices.Contains([]string{"f32", "f16", "bf16"}, o.Type) {
			return nil, fmt.Errorf("tensor %q is %s already: quantizing again adds up the losses (start from the original weights, or allow it with --requantize)", t.Name, t.DType)
		}
	}
	// llama.cpp's order: by layer, then by name.
	items := slices.Clone(m.Tensors)
	slices.SortStableFunc(items, func(a, b checkpoint.GGUFItem) int {
		if d := layerOf(a.Name) - layerOf(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	r := &Report{Type: o.Type}
	tensors := make([]checkpoint.GGUFTensor, len(items))
	for i, item := range items {
		to := mix.choose(item.Name, item.Shape)
		tensors[i] = checkpoint.GGUFTensor{Name: item.Name, DType: to, Shape: item.Shape, Data: func() ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			data, report, err := rewrite(item, to, o.Threads)
			if err != nil {
				return nil, err
			}
			r.add(report, item.DType, tensor.Elements(item.Shape))
			if o.Progress != nil {
				o.Progress(i+1, len(items), item.Name)
			}
			return data, nil
		}}
	}
	if err := checkpoint.EncodeGGUF(w, metadata(m, f), tensors); err != nil {
		return nil, err
	}
	return r, nil
}

// metadata sets the file's type; the rest stays.
func metadata(m *checkpoint.GGUFModel, f format) []checkpoint.KV {
	own := []checkpoint.KV{{Key: "general.quantization_version", Value: uint32(2)}, {Key: "general.file_type", Value: f.fileType}}
	out := slices.DeleteFunc(slices.Clone(m.Metadata), func(kv checkpoint.KV) bool {
		return slices.ContainsFunc(own, func(o checkpoint.KV) bool { return o.Key == kv.Key })
	})
	return append(out, own...)
}

func metaInt(m *checkpoint.GGUFModel, suffix string) int {
	for _, kv := range m.Metadata {
		if kv.Key == m.Architecture+suffix {
			if v, ok := kv.Value.(uint32); ok {
				return int(v)
			}
		}
	}
	return 0
}

// rewrite loads a tensor and stores it as another type.
func rewrite(item checkpoint.GGUFItem, to tensor.DType, threads int) ([]byte, TensorReport, error) {
	t, err := item.Load()
	if err != nil {
		return nil, TensorReport{}, err
	}
	if t.DType == to {
		return t.Data, TensorReport{Name: item.Name, Shape: item.Shape, From: t.DType.String(), To: to.String(), Bytes: len(t.Data)}, nil
	}
	values, err := backend.Dequantize(t)
	if err != nil {
		return nil, TensorReport{}, err
	}
	if err := finite(item.Name, values); err != nil {
		return nil, TensorReport{}, err
	}
	if !backend.CanQuantize(to) {
		return nil, TensorReport{}, fmt.Errorf("tensor %q: %s cannot be written", item.Name, to)
	}
	out := tensor.Tensor{Name: item.Name, DType: to, Shape: item.Shape, Data: make([]byte, to.RowBytes(len(values)))}
	parallel(len(values)/to.BlockLen(), threads, func(from, end int) {
		backend.Quantize(out.Data[from*to.BlockBytes():end*to.BlockBytes()], to, values[from*to.BlockLen():end*to.BlockLen()])
	})
	r, err := compare(values, out)
	r.From = t.DType.String()
	return out.Data, r, err
}

// parallel divides [0, n) among workers.
func parallel(n, threads int, f func(from, end int)) {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	const least = 64 // below it a goroutine costs more than it saves
	threads = max(1, min(threads, n/least))
	var wg sync.WaitGroup
	for i := range threads {
		from, end := n*i/threads, n*(i+1)/threads
		wg.Go(func() { f(from, end) })
	}
	wg.Wait()
}

// errNothing is returned when no tensor of a model can be quantized.
var errNothing = errors.New("the model has no weights that can be stored as int8 rows")
