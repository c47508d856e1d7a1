package quant

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// Int8Folder writes a copy of a model folder whose linear layers and word table are stored as int8 rows with one float32 scale each
// (tensor.Q8Row, see checkpoint.WriteSafetensors for how they stand in the file). temper maps it and multiplies in integers; one-dimensional
// tensors, position tables and the classifier stay as they are. Tokenizer, labels and pooling are copied.
func Int8Folder(ctx context.Context, f *checkpoint.Folder, out string, o Options) (*Report, error) {
	config, err := f.Config()
	if err != nil {
		return nil, err
	}
	cfg, err := model.ParseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	src, err := f.Source()
	if err != nil {
		return nil, err
	}
	// The network knows which tensors are weights of linear layers.
	net, err := model.New(cfg, src, model.Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	rows := map[string]bool{}
	for _, l := range net.Linears() {
		// Transposed weights have their outputs in columns; a small classifier is worth its exact values.
		if !l.Transposed && !isClassifier(l.Name) {
			rows[l.W.Name] = true
		}
	}
	names := src.Names()
	r := &Report{Type: Int8}
	var tensors []tensor.Tensor
	compressed := false
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := src.Tensor(name)
		if err != nil {
			return nil, err
		}
		q := t
		report := TensorReport{Name: name, Shape: t.Shape, To: t.DType.String(), Bytes: len(t.Data) + 4*len(t.Scales)}
		if len(t.Shape) == 2 && !t.DType.Quantized() && isFloat(t.DType) && (rows[name] || rows[fullName(net, name)] || isWordTable(name, t, cfg.Vocab)) {
			if q, report, err = int8Rows(t, o.Threads); err != nil {
				return nil, err
			}
			compressed = true
		}
		report.From = t.DType.String()
		tensors = append(tensors, q)
		r.add(report, t.DType, t.Len())
		if o.Progress != nil {
			o.Progress(i+1, len(names), name)
		}
	}
	if !compressed {
		return nil, fmt.Errorf("%s: %w", f.Path(), errNothing)
	}
	marked, err := markConfig(config)
	if err != nil {
		return nil, err
	}
	err = checkpoint.WriteFolder(out, func(w *checkpoint.FolderWriter) error {
		if err := w.Safetensors(checkpoint.WeightsFile, tensors, map[string]string{"format": "pt"}); err != nil {
			return err
		}
		if err := copyRest(w, f); err != nil {
			return err
		}
		return w.File(checkpoint.ConfigFile, marked)
	})
	return r, err
}

// Int8Model stores the linear layers of m, classifiers apart, as int8 rows in memory: what Int8Folder writes, without a file.
func Int8Model(m model.Model, o Options) error {
	for _, l := range m.Linears() {
		if l.Transposed || isClassifier(l.Name) || !isFloat(l.W.T.DType) {
			continue
		}
		q, _, err := int8Rows(l.W.T, o.Threads)
		if err != nil {
			return err
		}
		l.W.Replace(q)
	}
	return nil
}

func int8Rows(t tensor.Tensor, threads int) (tensor.Tensor, TensorReport, error) {
	values, err := backend.Dequantize(t)
	if err != nil {
		return t, TensorReport{}, err
	}
	if err := finite(t.Name, values); err != nil {
		return t, TensorReport{}, err
	}
	n, cols := t.Rows(), t.Cols()
	q := tensor.Tensor{Name: t.Name, DType: tensor.Q8Row, Shape: t.Shape, Data: make([]byte, n*cols), Scales: make([]float32, n)}
	parallel(n, threads, func(from, end int) {
		backend.QuantizeRows(q.Data[from*cols:end*cols], q.Scales[from:end], values[from*cols:end*cols], end-from, cols)
	})
	r, err := compare(values, q)
	return q, r, err
}

func isFloat(d tensor.DType) bool {
	return d == tensor.F32 || d == tensor.F16 || d == tensor.BF16 || d == tensor.F64
}

func isClassifier(module string) bool {
	return strings.HasPrefix(module, "classifier") || module == "score" || strings.HasSuffix(module, ".score") || strings.Contains(module, ".classifier")
}

// isWordTable recognises the table of word embeddings by its name and its rows.
func isWordTable(name string, t tensor.Tensor, vocab int) bool {
	for _, suffix := range []string{"word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "embed_in.weight"} {
		if strings.HasSuffix(name, suffix) {
			return t.Rows() == vocab
		}
	}
	return false
}

// fullName finds the parameter that a checkpoint's name stands for: bare encoders are saved without the prefix of their family.
func fullName(m model.Model, name string) string {
	for _, l := range m.Linears() {
		if strings.HasSuffix(l.W.Name, "."+name) {
			return l.W.Name
		}
	}
	return name
}

// markConfig notes the storage in config.json, for people and for tools that look there.
func markConfig(config []byte) ([]byte, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(config, &keys); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	keys["temper_weights"] = json.RawMessage(`"int8"`)
	return json.MarshalIndent(keys, "", "  ")
}

// copyRest copies what a folder holds beside config and weights: tokenizer, templates, sentence-transformers' files, the card.
func copyRest(w *checkpoint.FolderWriter, f *checkpoint.Folder) error {
	for _, name := range f.Files() {
		switch {
		case strings.HasSuffix(name, "/"), name == checkpoint.ConfigFile, name == checkpoint.IndexFile, strings.HasPrefix(name, "."):
			continue
		case strings.HasSuffix(name, ".json"), strings.HasSuffix(name, ".txt"), strings.HasSuffix(name, ".jinja"), name == "README.md":
			if err := w.Copy(f, name); err != nil {
				return err
			}
		}
	}
	modules, err := f.Modules()
	if err != nil {
		return err
	}
	for _, m := range modules {
		if m.Path != "" {
			if err := w.Copy(f, m.Path+"/config.json", m.Path+"/model.safetensors"); err != nil {
				return err
			}
		}
	}
	return nil
}
