package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// Bundle is an opened model folder: network, tokenizer and the files that they came from. A PEFT folder opens as its base with the
// adapter attached.
type Bundle struct {
	Model     model.Model
	Tokenizer *token.Tokenizer
	// Folder holds the base's files; Dir is the folder that was asked for, BaseDir that of the base.
	Folder       *checkpoint.Folder
	Dir, BaseDir string
	// Adapter is Model when the folder is a PEFT folder, nil otherwise.
	Adapter *Model
	// Normalize says that sentence embeddings are to be L2-normalised.
	Normalize bool
	// Fresh are the tensors that the folder lacked and that were drawn from the seed.
	Fresh []string
	// MaxTokens is the most that the model takes in one sequence.
	MaxTokens int

	tokenizer []byte // set by SetTokenizer, nil for the folder's own
}

// OpenOptions change how a folder is opened.
type OpenOptions struct {
	// Head replaces the head that the config names; Labels and Problem are those of a new classification head.
	Head    model.Head
	Labels  []string
	Problem string
	// Base replaces base_model_name_or_path of a PEFT folder.
	Base string
	// Seed draws the weights that the folder lacks.
	Seed uint64
	// While, when not nil, is called with a plain folder's model while its tokenizer is still being read on another thread.
	While func(m model.Model)
}

// Open opens a Hugging Face folder or a PEFT folder. Close it when it is no longer used: weights may be views of mapped files.
func Open(path string, o OpenOptions) (*Bundle, error) {
	f, err := checkpoint.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	return OpenFolder(f, o)
}

// OpenFolder is Open for a folder that is open already, on disk or in memory.
func OpenFolder(f *checkpoint.Folder, o OpenOptions) (*Bundle, error) {
	if !f.Has(checkpoint.AdapterConfigFile) || f.Has(checkpoint.WeightsFile) || f.Has(checkpoint.IndexFile) {
		b, err := openBase(f, o)
		if err != nil {
			f.Close()
			return nil, err
		}
		return b, nil
	}
	defer f.Close()
	raw, err := f.File(checkpoint.AdapterConfigFile)
	if err != nil {
		return nil, err
	}
	cfg, err := ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	dir := o.Base
	if dir == "" {
		if dir, err = findBase(f.Path(), cfg.BaseModel); err != nil {
			return nil, err
		}
	}
	if err := adapterHead(f, cfg, &o); err != nil {
		return nil, err
	}
	o.While = nil // the adapter is still to come
	bf, err := checkpoint.OpenFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: base model: %w", f.Path(), err)
	}
	b, err := openBase(bf, o)
	if err != nil {
		bf.Close()
		return nil, fmt.Errorf("%s: base model: %w", f.Path(), err)
	}
	m, err := Load(b.Model, f)
	if err != nil {
		b.Close()
		return nil, err
	}
	b.Model, b.Adapter, b.Dir = m, m, f.Path()
	return b, nil
}

// findBase resolves base_model_name_or_path: as it is, else relative to the adapter's folder.
func findBase(dir, name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%s: %s names no base model; give one", dir, checkpoint.AdapterConfigFile)
	}
	tried := []string{filepath.Join(dir, filepath.FromSlash(name)), filepath.FromSlash(name)}
	if filepath.IsAbs(tried[1]) {
		tried = tried[1:]
	}
	for _, p := range tried {
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: base model %q not found (looked for %s); give its folder", dir, name, strings.Join(tried, ", "))
}

// adapterHead sets the head that the adapter was trained with: its task, and as many labels as its saved output layer has.
func adapterHead(f *checkpoint.Folder, cfg Config, o *OpenOptions) error {
	if o.Head == model.HeadAuto {
		switch cfg.TaskType {
		case "SEQ_CLS":
			o.Head = model.HeadSequence
		case "TOKEN_CLS":
			o.Head = model.HeadToken
		case "CAUSAL_LM":
			o.Head = model.HeadCausal
		case "FEATURE_EXTRACTION":
			o.Head = model.HeadNone
		}
	}
	if o.Labels != nil || o.Head != model.HeadSequence && o.Head != model.HeadToken {
		return nil
	}
	if raw, err := f.Config(); err == nil { // temper keeps the label names beside the adapter
		if c, err := model.ParseConfig(raw); err == nil {
			o.Labels, o.Problem = c.Labels, c.ProblemType
			return nil
		}
	}
	src, err := f.AdapterSource()
	if err != nil {
		return err
	}
	defer src.Close()
	for _, name := range src.Names() {
		for _, head := range []string{"classifier.weight", "score.weight", "classifier.out_proj.weight"} {
			if strings.HasSuffix(name, "."+head) {
				t, err := src.Tensor(name)
				if err != nil {
					return err
				}
				o.Labels = model.DefaultLabels(t.Rows())
			}
		}
	}
	return nil
}

func openBase(f *checkpoint.Folder, o OpenOptions) (*Bundle, error) {
	b := &Bundle{Folder: f, Dir: f.Path(), BaseDir: f.Path()}
	raw, err := f.Config()
	if err != nil {
		return nil, err
	}
	cfg, err := model.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	if p, ok, err := f.Pooling(); err != nil {
		return nil, err
	} else if ok {
		b.Normalize = p.Normalize
		switch {
		case p.CLS:
			cfg.Pooling = model.PoolCLS
		case p.Max:
			cfg.Pooling = model.PoolMax
		case p.LastToken:
			cfg.Pooling = model.PoolLast
		default:
			cfg.Pooling = model.PoolMean
		}
	}
	tokenizer := func() (*token.Tokenizer, error) { return nil, nil }
	if token.HasFiles(f.Has, cfg.ModelType) {
		tokenizer = later(func() (*token.Tokenizer, error) { return token.FromFiles(f.File, cfg.ModelType) })
		defer tokenizer() // it reads from f, which closes when this fails
	}
	src, err := f.Source()
	if err != nil {
		return nil, err
	}
	if b.Model, err = model.New(cfg, src, model.Options{Head: o.Head, Labels: o.Labels, ProblemType: o.Problem, Seed: o.Seed, Fresh: &b.Fresh}); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	b.MaxTokens = cfg.MaxPositions - cfg.PositionOffset
	if o.While != nil {
		o.While(b.Model)
	}
	if b.Tokenizer, err = tokenizer(); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	if b.Tokenizer != nil {
		if n := b.Tokenizer.MaxLength(); n > 0 && (b.MaxTokens <= 0 || n < b.MaxTokens) {
			b.MaxTokens = n
		}
		if int(b.Tokenizer.MaxID()) >= cfg.Vocab {
			return nil, fmt.Errorf("%s: the tokenizer has ids up to %d, the model a vocabulary of %d", f.Path(), b.Tokenizer.MaxID(), cfg.Vocab)
		}
	}
	if raw, err := f.File("sentence_bert_config.json"); err == nil {
		var s struct {
			Max int `json:"max_seq_length"`
		}
		if json.Unmarshal(raw, &s) == nil && s.Max > 0 && (b.MaxTokens <= 0 || s.Max < b.MaxTokens) {
			b.MaxTokens = s.Max
		}
	}
	return b, nil
}

// later runs f on another thread; the function that it returns waits for the result.
func later[T any](f func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		v, err = f()
		close(done)
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

// SetTokenizer replaces the tokenizer by another tokenizer.json over the same vocabulary of ids, which is written with the model from then on.
func (b *Bundle) SetTokenizer(raw []byte) error {
	t, err := token.Load(raw)
	if err != nil {
		return err
	}
	if b.Folder.Has(checkpoint.TokenizerConfig) {
		cfg, err := b.Folder.File(checkpoint.TokenizerConfig)
		if err != nil {
			return err
		}
		if err := t.ApplyConfig(cfg); err != nil {
			return err
		}
	}
	if int(t.MaxID()) >= b.Model.Config().Vocab {
		return fmt.Errorf("tokenizer has ids up to %d, the model %d", t.MaxID(), b.Model.Config().Vocab)
	}
	b.Tokenizer, b.tokenizer = t, raw
	return nil
}

// TokenizerConfig is the folder's tokenizer_config.json, nil when it has none. Once a tokenizer was set it names the class that reads
// tokenizer.json as it is: transformers 5 builds those of model families, BertTokenizer say, anew from the vocabulary, and a normalizer that is
// not the family's would be lost without a word.
func (b *Bundle) TokenizerConfig() ([]byte, error) {
	if !b.Folder.Has(checkpoint.TokenizerConfig) {
		return nil, nil
	}
	raw, err := b.Folder.File(checkpoint.TokenizerConfig)
	if err != nil || b.tokenizer == nil {
		return raw, err
	}
	var cfg map[string]json.RawMessage
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", checkpoint.TokenizerConfig, err)
	}
	cfg["tokenizer_class"] = json.RawMessage(`"PreTrainedTokenizerFast"`)
	if raw, err = json.Marshal(cfg); err != nil {
		return nil, err
	}
	return indent(raw)
}

// Close unmaps the weights.
func (b *Bundle) Close() error { return b.Folder.Close() }

// Encode turns a text, or a pair of texts, into ids and token types (nil when all are 0) of at most limit tokens (0: what the model takes),
// special tokens included.
func (b *Bundle) Encode(text, pair string, limit int) (ids, types []int32, err error) {
	if b.Tokenizer == nil {
		return nil, nil, errors.New("the model folder holds no tokenizer.json")
	}
	if limit <= 0 || b.MaxTokens > 0 && limit > b.MaxTokens {
		limit = b.MaxTokens
	}
	opt := token.Options{NoLimits: true}
	if limit > 0 {
		opt.Truncation = &token.Truncation{MaxLength: limit, Drop: true}
	}
	if pair == "" {
		if ids = b.Tokenizer.AppendIDs(nil, text, true); len(ids) == 0 {
			return nil, nil, fmt.Errorf("%q has no tokens", abridge(text))
		}
		if limit > 0 && len(ids) > limit {
			ids, err = b.Tokenizer.Fit(ids, limit)
			ids = slices.Clone(ids) // not the room that the whole text took
		}
		return ids, nil, err
	}
	e, err := b.Tokenizer.EncodePair(text, pair, opt)
	if err != nil {
		return nil, nil, err
	}
	return e.IDs, e.TypeIDs, nil
}

// Tokens is Encode of one text with the place of every token.
func (b *Bundle) Tokens(text string, limit int) (token.Encoding, error) {
	if b.Tokenizer == nil {
		return token.Encoding{}, errors.New("the model folder holds no tokenizer.json")
	}
	if limit <= 0 || b.MaxTokens > 0 && limit > b.MaxTokens {
		limit = b.MaxTokens
	}
	opt := token.Options{NoLimits: true}
	if limit > 0 {
		opt.Truncation = &token.Truncation{MaxLength: limit, Drop: true}
	}
	return b.Tokenizer.Encode(text, opt)
}

func abridge(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// SaveFolder writes the model as a plain Hugging Face folder with the tokenizer and sentence-transformers files of the base. An adapter
// is merged into the written weights if it can be, and is written beside them as a PEFT folder, adapter/. One that cannot be merged is
// written as a PEFT folder alone.
func (b *Bundle) SaveFolder(dir string, more func(*checkpoint.FolderWriter) error) error {
	return checkpoint.WriteFolder(dir, b.SaveTo(more))
}

// SaveTo is SaveFolder for any folder writer.
func (b *Bundle) SaveTo(more func(*checkpoint.FolderWriter) error) func(*checkpoint.FolderWriter) error {
	return func(w *checkpoint.FolderWriter) error {
		cfg, err := json.Marshal(b.Model.Config())
		if err != nil {
			return fmt.Errorf("%s: %w", checkpoint.ConfigFile, err)
		}
		cfg, err = indent(cfg)
		if err != nil {
			return err
		}
		if err := w.File(checkpoint.ConfigFile, cfg); err != nil {
			return err
		}
		plain := true
		if b.Adapter != nil {
			if !b.Adapter.Mergeable() {
				plain = false
				if err := b.Adapter.Save(w); err != nil {
					return err
				}
			} else if err := b.Adapter.saveAside(w, cfg); err != nil {
				return err
			}
		}
		if plain {
			if err := b.saveWeights(w); err != nil {
				return err
			}
		}
		for _, name := range b.Folder.Files() {
			if b.tokenizer != nil && (name == checkpoint.TokenizerFile || name == checkpoint.TokenizerConfig) {
				file := b.tokenizer
				if name == checkpoint.TokenizerConfig {
					if file, err = b.TokenizerConfig(); err != nil {
						return err
					}
				}
				if err := w.File(name, file); err != nil {
					return err
				}
				continue
			}
			if carried[name] {
				if err := w.Copy(b.Folder, name); err != nil {
					return err
				}
			}
		}
		if more != nil {
			return more(w)
		}
		return nil
	}
}

// carried are the files that go with a model wherever it is written.
var carried = map[string]bool{
	checkpoint.TokenizerFile: true, checkpoint.TokenizerConfig: true, checkpoint.SpecialTokensFile: true, checkpoint.VocabFile: true,
	"vocab.json": true, "merges.txt": true, "added_tokens.json": true, "chat_template.jinja": true, "generation_config.json": true,
	"spiece.model": true, "sentencepiece.bpe.model": true, "tokenizer.model": true,
}

func (b *Bundle) saveWeights(w *checkpoint.FolderWriter) error {
	if a := b.Adapter; a != nil && !a.merged {
		if err := a.Merge(); err != nil {
			return err
		}
		defer a.Unmerge() // cannot fail once merged
	}
	base := b.Model
	if b.Adapter != nil {
		base = b.Adapter.base
	}
	ts := model.Tensors(base)
	for i, t := range ts {
		if t.DType.Quantized() && t.DType != tensor.Q8Row { // safetensors has no block types: what the model computes with is written
			v, err := backend.Dequantize(t)
			if err != nil {
				return err
			}
			ts[i] = tensor.FromF32(t.Name, v, t.Shape...)
		}
	}
	return w.Safetensors(checkpoint.WeightsFile, ts, map[string]string{"format": "pt"})
}
