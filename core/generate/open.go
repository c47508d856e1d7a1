package generate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grammar"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/token"
)

// Decoder is an opened causal language model with what goes with it: tokenizer, end tokens, chat template, adapters.
type Decoder struct {
	Path      string
	Model     model.Model
	Tokenizer *token.Tokenizer
	// End are the tokens that end a text or a turn.
	End []int32
	// Template renders dialogues; it is PlainTemplate, and Plain is true, for a model that has none.
	Template *chat.Template
	Plain    bool
	Tokens   map[string]string
	// Adapters can be chosen per request, by name.
	Adapters []Adapter

	closers []func() error
	vocab   func() (*grammar.Vocab, [][]byte)
}

// Adapter is a PEFT adapter over the decoder, switched off until a request names it.
type Adapter struct {
	Name  string
	Model *peft.Model
}

// OpenOptions change how a decoder is opened.
type OpenOptions struct {
	// Base replaces the base model that a PEFT folder names: a folder or a .gguf file.
	Base string
	// Adapters are PEFT folders over the model, each "folder" or "name=folder"; the name is the folder's own when it is not given.
	Adapters []string
}

// PlainTemplate is the dialogue of base models, which know none: names, colons, one turn a line.
const PlainTemplate = `{%- for m in messages -%}
{%- if m.role == 'system' -%}{{ m.content | trim }}{{ '\n\n' }}
{%- elif m.role == 'user' -%}{{ 'User: ' ~ (m.content | trim) ~ '\n' }}
{%- else -%}{{ 'Assistant: ' ~ (m.content | trim) ~ '\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}`

// PlainStops end an answer under PlainTemplate.
var PlainStops = []string{"\nUser:", "\nAssistant:"}

// turnEnds are tokens that end a turn in the chat formats that are about, whatever the files say of them.
var turnEnds = []string{"<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<|end_of_turn|>"}

// Open opens a .gguf file, a Hugging Face folder, or a PEFT folder over either. Close it after the generators that use it.
func Open(path string, o OpenOptions) (*Decoder, error) {
	d, err := open(path, o.Base)
	if err != nil {
		return nil, err
	}
	for _, a := range o.Adapters {
		if err := d.AddAdapter(a); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d.complete()
}

// FromGGUF makes a decoder of a GGUF file that is open already, on disk or in memory; it closes it.
func FromGGUF(g *checkpoint.GGUF) (*Decoder, error) {
	d, err := fromGGUF(g)
	if err != nil {
		return nil, err
	}
	return d.complete()
}

// complete adds what the files leave open: the ends of turns and a template.
func (d *Decoder) complete() (_ *Decoder, err error) {
	all := slices.Clone(d.End)
	for _, name := range turnEnds {
		if id, ok := d.Tokenizer.ID(name); ok && d.Tokenizer.IsSpecial(id) && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	d.End = all
	d.vocab = sync.OnceValues(d.readVocab)
	if d.Template == nil {
		d.Plain = true
		if d.Template, err = chat.Parse(PlainTemplate); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

func open(path, base string) (*Decoder, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return openGGUF(path)
	}
	has := func(name string) bool { _, err := os.Stat(filepath.Join(path, name)); return err == nil }
	if !has(checkpoint.AdapterConfigFile) || has(checkpoint.WeightsFile) || has(checkpoint.IndexFile) {
		return openFolder(path)
	}
	if base == "" {
		if base, err = baseOf(path); err != nil {
			return nil, err
		}
	}
	d, err := open(base, "")
	if err != nil {
		return nil, fmt.Errorf("%s: base model: %w", path, err)
	}
	// The folder is the model: its adapter is on for every request.
	a, err := d.load(path)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.Path, d.Model = path, a
	return d, nil
}

// baseOf finds the model that an adapter names: as it is, else relative to the adapter's folder.
func baseOf(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, checkpoint.AdapterConfigFile))
	if err != nil {
		return "", err
	}
	cfg, err := peft.ParseConfig(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if cfg.BaseModel == "" {
		return "", fmt.Errorf("%s: %s names no base model; give one", dir, checkpoint.AdapterConfigFile)
	}
	tried := []string{filepath.Join(dir, filepath.FromSlash(cfg.BaseModel)), filepath.FromSlash(cfg.BaseModel)}
	if filepath.IsAbs(tried[1]) {
		tried = tried[1:]
	}
	for _, p := range tried {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: base model %q not found (looked for %s); give its folder or file", dir, cfg.BaseModel, strings.Join(tried, ", "))
}

func openGGUF(path string) (*Decoder, error) {
	g, err := checkpoint.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	return fromGGUF(g)
}

func fromGGUF(g *checkpoint.GGUF) (_ *Decoder, err error) {
	path := g.Path()
	d := &Decoder{Path: path, Tokens: map[string]string{}, closers: []func() error{g.Close}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	meta, err := token.GGUFFrom(g.Value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.Tokenizer, err = token.FromGGUF(meta); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cfg, src, err := model.FromGGUF(g)
	if err != nil {
		return nil, err
	}
	if d.Model, err = model.New(cfg, src, model.Options{Head: model.HeadCausal}); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int(d.Tokenizer.MaxID()) >= cfg.Vocab {
		return nil, fmt.Errorf("%s: the vocabulary has ids up to %d, the model %d rows", path, d.Tokenizer.MaxID(), cfg.Vocab)
	}
	for _, key := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if id, ok := g.Int("tokenizer.ggml." + key); ok && id >= 0 && id < cfg.Vocab && !slices.Contains(d.End, int32(id)) {
			d.End = append(d.End, int32(id))
		}
	}
	for role, key := range map[string]string{"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id", "unk_token": "unknown_token_id"} {
		if id, ok := g.Int("tokenizer.ggml." + key); ok {
			if name, ok := d.Tokenizer.Token(int32(id)); ok {
				d.Tokens[role] = name
			}
		}
	}
	if src := g.String("tokenizer.chat_template"); src != "" {
		if d.Template, err = chat.Parse(src); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return d, nil
}

func openFolder(path string) (_ *Decoder, err error) {
	b, err := peft.Open(path, peft.OpenOptions{Head: model.HeadCausal})
	if err != nil {
		return nil, err
	}
	d, err := FromBundle(b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	d.Path = path
	return d, nil
}

// FromFolder is Open for a Hugging Face folder that is open already, on disk or in memory.
func FromFolder(f *checkpoint.Folder) (*Decoder, error) {
	b, err := peft.OpenFolder(f, peft.OpenOptions{Head: model.HeadCausal})
	if err != nil {
		return nil, err
	}
	d, err := FromBundle(b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return d.complete()
}

// FromBundle makes a decoder of an opened Hugging Face folder, which it closes.
func FromBundle(b *peft.Bundle) (*Decoder, error) {
	d := &Decoder{Path: b.Dir, Model: b.Model, Tokenizer: b.Tokenizer, Tokens: map[string]string{}, closers: []func() error{b.Close}}
	if b.Tokenizer == nil {
		return nil, fmt.Errorf("%s: expected a %s", b.Dir, checkpoint.TokenizerFile)
	}
	for _, f := range b.Fresh {
		return nil, fmt.Errorf("%s: no trained tensor %q: not a causal language model", b.Dir, f)
	}
	// The generation's own config comes first: chat models end their turns with a token that the model's does not name.
	for _, name := range []string{"generation_config.json", checkpoint.ConfigFile} {
		raw, err := b.Folder.File(name)
		if err != nil {
			continue
		}
		ids, err := endTokens(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", b.Dir, name, err)
		}
		for _, id := range ids {
			if int(id) < b.Model.Config().Vocab && !slices.Contains(d.End, id) {
				d.End = append(d.End, id)
			}
		}
	}
	if id := b.Tokenizer.Special().EOS; id >= 0 && !slices.Contains(d.End, id) {
		d.End = append(d.End, id)
	}
	if raw, err := b.Folder.File(checkpoint.TokenizerConfig); err == nil {
		if d.Template, d.Tokens, err = chat.FromConfig(raw, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", b.Dir, err)
		}
	}
	if raw, err := b.Folder.File("chat_template.jinja"); err == nil {
		if d.Template, err = chat.Parse(string(raw)); err != nil {
			return nil, fmt.Errorf("%s: chat_template.jinja: %w", b.Dir, err)
		}
	}
	return d, nil
}

// endTokens reads eos_token_id, a number, a list of them, or nothing.
func endTokens(config []byte) ([]int32, error) {
	var c struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	var ids []int32
	var one int32
	switch {
	case len(c.EOS) == 0 || string(c.EOS) == "null":
		return nil, nil
	case json.Unmarshal(c.EOS, &one) == nil:
		ids = []int32{one}
	case json.Unmarshal(c.EOS, &ids) != nil:
		return nil, fmt.Errorf("eos_token_id: expected a number or a list of them, got %s", c.EOS)
	}
	return slices.DeleteFunc(ids, func(id int32) bool { return id < 0 }), nil
}

// AddAdapter loads a PEFT folder, "folder" or "name=folder", over the decoder. Generators made before do not know it.
func (d *Decoder) AddAdapter(spec string) error {
	name, dir, ok := strings.Cut(spec, "=")
	if !ok {
		dir = spec
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		name = filepath.Base(abs)
	}
	if name == "" || slices.ContainsFunc(d.Adapters, func(a Adapter) bool { return a.Name == name }) {
		return fmt.Errorf("adapter %q: expected a name of its own (name=folder)", spec)
	}
	if _, ok := d.Model.(*peft.Model); ok {
		return fmt.Errorf("adapter %s: %s is an adapter itself; open its base and add both", dir, d.Path)
	}
	a, err := d.load(dir)
	if err != nil {
		return err
	}
	if err := a.Enable(false); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	d.Adapters = append(d.Adapters, Adapter{name, a})
	return nil
}

// Together names an adapter that is all of Adapters at once: "" for none, the only one itself, for more the sum of them (see peft.Stack), which is added.
// Generators made before do not know it.
func (d *Decoder) Together() (string, error) {
	if len(d.Adapters) == 0 {
		return "", nil
	}
	var names []string
	var parts []*peft.Model
	for _, a := range d.Adapters {
		names, parts = append(names, a.Name), append(parts, a.Model)
	}
	name := strings.Join(names, "+")
	if len(parts) > 1 {
		sum, err := peft.Stack(parts...)
		if err != nil {
			return "", fmt.Errorf("adapters %s at once: %w", name, err)
		}
		d.Adapters = append(d.Adapters, Adapter{name, sum})
	}
	return name, nil
}

func (d *Decoder) load(dir string) (*peft.Model, error) {
	f, err := checkpoint.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, f.Close)
	if !f.Has(checkpoint.AdapterConfigFile) {
		return nil, fmt.Errorf("%s: expected a PEFT folder with %s", dir, checkpoint.AdapterConfigFile)
	}
	a, err := peft.Load(d.Model, f)
	if err != nil {
		return nil, err
	}
	switch t := a.Adapter().Type; t {
	case peft.PromptTuning, peft.PTuning, peft.PrefixTuning:
		return nil, fmt.Errorf("%s: %s adapters change the layout of a batch and cannot be used to generate", dir, t)
	}
	a.Freeze()
	return a, nil
}

// Close gives back the files.
func (d *Decoder) Close() error {
	var err error
	for _, c := range slices.Backward(d.closers) {
		err = errors.Join(err, c())
	}
	d.closers = nil
	return err
}

// Start makes a generator over the decoder.
func (d *Decoder) Start(k backend.Kernels, o Options) (*Generator, error) {
	o.Adapters = d.Adapters
	return New(d.Model, d.Tokenizer, k, d.End, o)
}

// Render writes a dialogue (a JSON array of messages) as the model was trained on it, up to where the assistant's turn begins. tools is
// a JSON array or nil.
func (d *Decoder) Render(messages, tools json.RawMessage, vars map[string]json.RawMessage) (string, error) {
	return d.Template.Render(chat.Input{Messages: messages, Tools: tools, AddGenerationPrompt: true, Tokens: d.Tokens, Variables: vars})
}

// Encode turns a prompt into ids. A rendered dialogue of a template holds its special tokens by name and gets no others; plain text gets the
// tokens that the model wants around a text, but for an end token, which would leave nothing to say.
func (d *Decoder) Encode(text string, rendered bool) []int32 {
	if rendered && !d.Plain {
		return d.Tokenizer.AppendIDs(nil, text, false)
	}
	ids := d.Tokenizer.AppendIDs(nil, text, true)
	for len(ids) > 0 && slices.Contains(d.End, ids[len(ids)-1]) && !d.namesEnd(text) {
		ids = ids[:len(ids)-1]
	}
	return ids
}

// namesEnd reports whether the text itself ends with the name of an end token.
func (d *Decoder) namesEnd(text string) bool {
	return slices.ContainsFunc(d.End, func(id int32) bool {
		name, ok := d.Tokenizer.Token(id)
		return ok && strings.HasSuffix(text, name)
	})
}

// DRYBreakers are the tokens of texts that end a repetition, for sample.Params; nil texts are the usual ones, a new line, a colon, a quote and an asterisk.
func (d *Decoder) DRYBreakers(texts []string) []int32 {
	if texts == nil {
		texts = []string{"\n", ":", "\"", "*"}
	}
	var ids []int32
	for _, t := range texts {
		ids = d.Tokenizer.AppendPlainIDs(ids, t)
	}
	return ids
}

// readVocab is the vocabulary as bytes, for constraints.
func (d *Decoder) readVocab() (*grammar.Vocab, [][]byte) {
	bytes := make([][]byte, d.Model.Config().Vocab)
	for id := range bytes {
		bytes[id] = d.Tokenizer.Bytes(int32(id))
	}
	return grammar.NewVocab(bytes, d.End), bytes
}

// Constrain returns a constraint for one text by a grammar.
func (d *Decoder) Constrain(g *grammar.Grammar) (*grammar.Matcher, error) {
	v, bytes := d.vocab()
	return grammar.NewMatcher(g, v, bytes)
}

// Use switches one adapter on, or all off for "", for those who run Model themselves. Generators do this on their own.
func (d *Decoder) Use(name string) error {
	found := name == ""
	for _, a := range d.Adapters { // off first: two at once would mix
		if a.Name == name {
			found = true
		} else if err := a.Model.Enable(false); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("no adapter is called %q", name)
	}
	for _, a := range d.Adapters {
		if a.Name == name {
			return a.Model.Enable(true)
		}
	}
	return nil
}

// BOS is the token that the model wants before a text, −1 for none.
func (d *Decoder) BOS() int32 {
	if ids := d.Tokenizer.AppendIDs(nil, "", true); len(ids) > 0 && ids[0] == d.Tokenizer.Special().BOS {
		return ids[0]
	}
	return -1
}
