package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names of files in a Hugging Face folder.
const (
	ConfigFile         = "config.json"
	WeightsFile        = "model.safetensors"
	IndexFile          = "model.safetensors.index.json"
	TokenizerFile      = "tokenizer.json"
	TokenizerConfig    = "tokenizer_config.json"
	SpecialTokensFile  = "special_tokens_map.json"
	VocabFile          = "vocab.txt"
	ModulesFile        = "modules.json"
	AdapterConfigFile  = "adapter_config.json"
	AdapterWeightsFile = "adapter_model.safetensors"
)

// maxSmallFile bounds what File reads into memory: configs and tokenizers, never weights.
const maxSmallFile = 512 << 20

// Folder is a Hugging Face model folder, a sentence-transformers folder or a PEFT adapter folder, on disk or in memory. Files are read
// when they are asked for.
type Folder struct {
	dir    string
	memory map[string][]byte // nil: on disk
	open   []interface{ Close() error }
}

// OpenFolder opens a folder on disk. It must hold a config, a tokenizer or weights: anything else is an error that says what was found.
func OpenFolder(dir string) (*Folder, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open model folder: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("open model folder: %s is %s, not a folder", dir, describeMode(st.Mode()))
	}
	f := &Folder{dir: dir}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// NewFolder is a folder held in memory, keyed by slash-separated names; name stands for it in errors. The bytes are kept, not copied:
// tensors are views of them.
func NewFolder(name string, files map[string][]byte) (*Folder, error) {
	f := &Folder{dir: name, memory: files}
	if f.memory == nil {
		f.memory = map[string][]byte{}
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Folder) check() error {
	for _, name := range []string{ConfigFile, AdapterConfigFile, WeightsFile, IndexFile, AdapterWeightsFile, TokenizerFile, VocabFile} {
		if f.Has(name) {
			return nil
		}
	}
	if f.memory == nil {
		if err := f.refusePickle(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is not a model folder: expected %s with %s (or %s), it holds %s", f.dir, ConfigFile, WeightsFile, AdapterConfigFile, f.listing())
}

// listing names a few of the files, for errors.
func (f *Folder) listing() string {
	names := f.Files()
	if len(names) == 0 {
		return "nothing"
	}
	if len(names) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return strings.Join(names, ", ")
}

// Path is the folder's path (or the name given to NewFolder).
func (f *Folder) Path() string { return f.dir }

// Files lists the names at the top of the folder, sorted; folders end in "/".
func (f *Folder) Files() []string {
	if f.memory != nil {
		return slices.Sorted(maps.Keys(f.memory))
	}
	list, err := os.ReadDir(f.dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range list {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	return names
}

// resolve turns a slash-separated name into a path inside the folder. Links are followed: the hub's cache is made of them.
func (f *Folder) resolve(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("%s: %q points outside the folder", f.dir, name)
	}
	return filepath.Join(f.dir, local), nil
}

// Has reports whether the folder holds the file.
func (f *Folder) Has(name string) bool {
	if f.memory != nil {
		_, ok := f.memory[name]
		return ok
	}
	p, err := f.resolve(name)
	if err != nil {
		return false
	}
	st, err := os.Stat(p)
	return err == nil && !st.IsDir()
}

// File reads a small file ("tokenizer.json", "1_Pooling/config.json"). A file that is not there gives an error that wraps fs.ErrNotExist.
func (f *Folder) File(name string) ([]byte, error) {
	if f.memory != nil {
		b, ok := f.memory[name]
		if !ok {
			return nil, fmt.Errorf("%s: %s: %w", f.dir, name, fs.ErrNotExist)
		}
		return b, nil
	}
	p, err := f.resolve(name)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a file, it is %s", p, describeMode(st.Mode()))
	}
	if st.Size() > maxSmallFile {
		return nil, fmt.Errorf("%s: %d bytes are too many for a file of this kind (limit %d)", p, st.Size(), maxSmallFile)
	}
	return os.ReadFile(p)
}

// Config returns config.json as it is; core/model reads it.
func (f *Folder) Config() ([]byte, error) {
	b, err := f.File(ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		if f.Has(AdapterConfigFile) {
			return nil, fmt.Errorf("%s is an adapter folder (%s without %s): give its base model, and the folder as the adapter: %w", f.dir, AdapterConfigFile, ConfigFile, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("%s: expected %s, the folder holds %s: %w", f.dir, ConfigFile, f.listing(), fs.ErrNotExist)
	}
	return b, err
}

// Source opens the model's weights: model.safetensors, or the shards that model.safetensors.index.json names. Close the folder to
// unmap them.
func (f *Folder) Source() (Source, error) {
	if f.Has(WeightsFile) {
		return f.openSafetensors(WeightsFile)
	}
	if f.Has(IndexFile) {
		b, err := f.File(IndexFile)
		if err != nil {
			return nil, err
		}
		x, err := parseIndex(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, IndexFile), err)
		}
		s, err := newSharded(x, f.openShard)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, IndexFile), err)
		}
		f.open = append(f.open, s)
		return s, nil
	}
	if err := f.refusePickle(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s: expected %s or %s, the folder holds %s: %w", f.dir, WeightsFile, IndexFile, f.listing(), fs.ErrNotExist)
}

// AdapterSource opens the weights of an adapter folder, adapter_model.safetensors.
func (f *Folder) AdapterSource() (*Safetensors, error) {
	if f.Has(AdapterWeightsFile) {
		return f.openSafetensors(AdapterWeightsFile)
	}
	if f.Has("adapter_model.bin") {
		return nil, pickleError(filepath.Join(f.dir, "adapter_model.bin"))
	}
	return nil, fmt.Errorf("%s: expected %s, the folder holds %s: %w", f.dir, AdapterWeightsFile, f.listing(), fs.ErrNotExist)
}

// openSafetensors opens a file of the folder and has Close unmap it.
func (f *Folder) openSafetensors(name string) (*Safetensors, error) {
	s, err := f.openShard(name)
	if err == nil {
		f.open = append(f.open, s)
	}
	return s, err
}

func (f *Folder) openShard(name string) (*Safetensors, error) {
	if f.memory != nil {
		b, ok := f.memory[name]
		if !ok {
			return nil, fmt.Errorf("%s: %s: %w", f.dir, name, fs.ErrNotExist)
		}
		return ParseSafetensors(f.dir+"/"+name, b)
	}
	p, err := f.resolve(name)
	if err != nil {
		return nil, err
	}
	return OpenSafetensors(p)
}

func pickleError(path string) error {
	return fmt.Errorf("%s: pickle files are not read (they can run code); convert to safetensors", path)
}

func (f *Folder) refusePickle() error {
	for _, name := range f.Files() {
		if strings.HasPrefix(name, "pytorch_model") && strings.HasSuffix(name, ".bin") || name == "adapter_model.bin" {
			return pickleError(filepath.Join(f.dir, name))
		}
	}
	return nil
}

// Module is a line of sentence-transformers' modules.json.
type Module struct {
	Index int    `json:"idx"`
	Name  string `json:"name"`
	Path  string `json:"path"`
	Type  string `json:"type"` // "sentence_transformers.models.Pooling"
}

// Modules reads modules.json; a folder without one has none.
func (f *Folder) Modules() ([]Module, error) {
	if !f.Has(ModulesFile) {
		return nil, nil
	}
	var m []Module
	if err := f.readJSON(ModulesFile, &m); err != nil {
		return nil, err
	}
	return m, nil
}

// Pooling is 1_Pooling/config.json of sentence-transformers.
type Pooling struct {
	Dimension int  `json:"word_embedding_dimension"`
	CLS       bool `json:"pooling_mode_cls_token"`
	Mean      bool `json:"pooling_mode_mean_tokens"`
	Max       bool `json:"pooling_mode_max_tokens"`
	LastToken bool `json:"pooling_mode_lasttoken"`
	Normalize bool `json:"-"` // a Normalize module follows
}

// Pooling reads how a sentence-transformers folder turns token vectors into one; it reports false where the folder does not say.
func (f *Folder) Pooling() (Pooling, bool, error) {
	modules, err := f.Modules()
	if err != nil {
		return Pooling{}, false, err
	}
	path, normalize := "", false
	for _, m := range modules {
		switch {
		case strings.HasSuffix(m.Type, ".Pooling"):
			path = m.Path
		case strings.HasSuffix(m.Type, ".Normalize"):
			normalize = true
		}
	}
	if path == "" {
		if modules != nil || !f.Has("1_Pooling/config.json") {
			return Pooling{}, false, nil
		}
		path = "1_Pooling"
	}
	p := Pooling{}
	if err := f.readJSON(path+"/config.json", &p); err != nil {
		return Pooling{}, false, err
	}
	// Newer releases write one field, "pooling_mode", in place of the flags.
	var mode struct {
		Mode any `json:"pooling_mode"`
		Dim  int `json:"embedding_dimension"`
	}
	if err := f.readJSON(path+"/config.json", &mode); err != nil {
		return Pooling{}, false, err
	}
	switch mode.Mode {
	case "cls":
		p.CLS = true
	case "mean":
		p.Mean = true
	case "max":
		p.Max = true
	case "lasttoken":
		p.LastToken = true
	}
	if p.Dimension == 0 {
		p.Dimension = mode.Dim
	}
	p.Normalize = normalize
	return p, true, nil
}

func (f *Folder) readJSON(name string, v any) error {
	b, err := f.File(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: bad JSON: %w", filepath.Join(f.dir, filepath.FromSlash(name)), err)
	}
	return nil
}

// Close unmaps the weights that Source opened; their tensors must not be used any more.
func (f *Folder) Close() error {
	var errs []error
	for _, s := range f.open {
		errs = append(errs, s.Close())
	}
	f.open = nil
	return errors.Join(errs...)
}
