// Package peft trains a few parameters in place of all of them: LoRA and its kin, attached to a model, merged into it, taken off again,
// saved and loaded as the peft library does. One file per method.
package peft

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// Model is a base model with one adapter. It is a model.Model itself: Params are the trainable ones, Forward goes through the adapter.
type Model struct {
	base     model.Model
	cfg      Config
	layers   []*layer     // adapted linear layers
	tables   []*embedding // adapted embeddings
	vera     *veraShared
	constant []*grad.Param // saved with the adapter but not trained
	saved    []*saved      // base parameters that the adapter changes as a whole: modules_to_save, biases, norms
	prompt   prompt        // prompt methods; nil otherwise
	// file is the source that the adapter is being loaded from: some methods read shapes from it.
	file       checkpoint.Source
	keepPrompt bool
	merged     bool
	enabled    bool
}

// layer is one adapted linear layer.
type layer struct {
	linear *model.Linear
	method method
	w, b   tensor.Tensor // base storage while merged
}

// method is what a kind of adapter does to one linear layer.
type method interface {
	model.Adapter
	// params lists trainable parameters first, constant ones after; their names are those of the adapter file.
	params() []*grad.Param
	// merge changes w [Out, In] (and b, nil when the layer has none) so that the plain layer computes what the adapted one did.
	merge(l *model.Linear, w, b []float32) error
}

// prompt is a method that adds virtual tokens.
type prompt interface {
	params() []*grad.Param
	forward(m *Model, c *grad.Ctx, b *model.Batch) (model.Output, error)
	// file are the tensors that are saved: what inference needs, not what training does.
	file(m *Model) ([]tensor.Tensor, error)
	// load sets them and names those that it has read.
	load(m *Model, src checkpoint.Source) ([]string, error)
}

// saved is a base parameter with two sets of values: the base's own, and the adapter's.
type saved struct {
	p       *grad.Param
	name    string // in the adapter file
	base    tensor.Tensor
	tuned   tensor.Tensor
	enabled bool
}

// Attach puts a fresh adapter on base: the base is frozen, the adapter's parameters are trainable and drawn from seed.
func Attach(base model.Model, cfg Config, seed uint64) (*Model, error) {
	return attach(base, cfg, seed, nil)
}

func attach(base model.Model, cfg Config, seed uint64, src checkpoint.Source) (_ *Model, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	for _, l := range base.Linears() {
		if l.Adapter != nil {
			return nil, fmt.Errorf("adapter: %s has one already; detach or merge it first", l.Name)
		}
	}
	if err := cfg.complete(base); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	for _, p := range base.Params() {
		p.Freeze()
	}
	m := &Model{base: base, cfg: cfg, enabled: true, file: src}
	defer func() {
		if err != nil { // leave the base as it was
			for _, l := range m.layers {
				l.linear.Adapter = nil
			}
			for _, e := range m.tables {
				e.e.Adapter = nil
			}
			for _, s := range m.saved {
				s.p.Freeze()
				s.p.Replace(s.base)
			}
		}
	}()
	if err := m.build(seed); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	if err := m.train(); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	if src != nil {
		if err := m.SetTensors(src); err != nil {
			return nil, err
		}
		m.file = nil
	}
	return m, nil
}

func (m *Model) build(seed uint64) error {
	switch m.cfg.Type {
	case LNTuning:
		if err := m.saveParams(m.normParam); err != nil {
			return err
		}
	case BitFit:
		if err := m.saveParams(func(p *grad.Param) (string, bool) {
			return "base_model.model." + p.Name, strings.HasSuffix(p.Name, "bias") && !m.inSaved(p.Name)
		}); err != nil {
			return err
		}
	case PrefixTuning, PromptTuning, PTuning:
		pr, err := newPrompt(m, seed)
		if err != nil {
			return err
		}
		m.prompt = pr
	default:
		if err := m.buildLayers(seed); err != nil {
			return err
		}
	}
	if m.cfg.Bias != "" && m.cfg.Bias != "none" {
		if err := m.saveParams(m.biasParam); err != nil {
			return err
		}
	}
	return m.saveParams(func(p *grad.Param) (string, bool) { return m.prefix() + p.Name, m.inSaved(p.Name) })
}

// prefix of names in the adapter file: peft wraps tuners in two levels, prompt methods in one.
func (m *Model) prefix() string {
	switch m.cfg.Type {
	case PrefixTuning, PromptTuning, PTuning:
		return "base_model."
	}
	return "base_model.model."
}

func (m *Model) inSaved(param string) bool {
	i := strings.LastIndexByte(param, '.')
	if i < 0 {
		return false
	}
	for module := param[:i]; ; module = module[:strings.LastIndexByte(module, '.')] {
		if matchName(m.cfg.ModulesToSave, module) {
			return true
		}
		if !strings.Contains(module, ".") {
			return false
		}
	}
}

func (m *Model) normParam(p *grad.Param) (string, bool) {
	i := strings.LastIndexByte(p.Name, '.')
	if i < 0 || !matchName(m.cfg.Targets.Names, p.Name[:i]) {
		return "", false
	}
	return "base_model.model." + p.Name[:i] + ".ln_tuning_layers" + p.Name[i:], true
}

func (m *Model) biasParam(p *grad.Param) (string, bool) {
	if !strings.HasSuffix(p.Name, ".bias") || m.inSaved(p.Name) {
		return "", false
	}
	module := strings.TrimSuffix(p.Name, ".bias")
	for _, l := range m.layers {
		if l.linear.Name == module {
			return "base_model.model." + module + ".base_layer.bias", true
		}
	}
	return "base_model.model." + p.Name, m.cfg.Bias == "all"
}

func (m *Model) saveParams(pick func(*grad.Param) (string, bool)) error {
	for _, p := range m.base.Params() {
		name, ok := pick(p)
		if !ok || slices.ContainsFunc(m.saved, func(s *saved) bool { return s.p == p }) {
			continue
		}
		m.saved = append(m.saved, &saved{p: p, name: name, base: p.T, enabled: true})
	}
	return nil
}

func (m *Model) buildLayers(seed uint64) error {
	var wanted []*model.Linear
	for _, l := range m.base.Linears() {
		ok, err := m.targets(l.Name)
		if err != nil {
			return err
		}
		if ok {
			wanted = append(wanted, l)
		}
	}
	if m.cfg.Type == VeRA {
		m.vera = newVeRAShared(&m.cfg, wanted, rng(uint64(m.cfg.PRNGKey), "vera"))
		m.constant = []*grad.Param{m.vera.a, m.vera.b}
	}
	for _, l := range wanted {
		me, err := m.newMethod(l, rng(seed, l.Name))
		if err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		m.layers = append(m.layers, &layer{linear: l, method: me})
		l.Adapter = me
	}
	if m.cfg.Type == LoRA && m.cfg.Targets.Regex != AllLinear {
		for _, e := range m.base.Embeddings() {
			ok, err := m.targets(e.Name)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			o, err := newEmbedding(&m.cfg, e, rng(seed, e.Name))
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			m.tables = append(m.tables, o)
			e.Adapter = o
		}
	}
	if len(m.layers)+len(m.tables) == 0 {
		var names []string // their last parts, which is what targets mostly are
		for _, l := range m.base.Linears() {
			if name := l.Name[strings.LastIndexByte(l.Name, '.')+1:]; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		t, _ := m.cfg.Targets.MarshalJSON()
		return fmt.Errorf("target_modules %s match no linear layer: the model's end in %s", t, strings.Join(names, ", "))
	}
	return nil
}

func (m *Model) targets(module string) (bool, error) {
	if m.inSaved(module + ".weight") {
		return false, nil
	}
	if m.cfg.Targets.Regex == AllLinear && isHead(module) {
		return false, nil
	}
	if out, err := m.cfg.Exclude.Match(module); err != nil || out && !m.cfg.Exclude.Empty() {
		return false, err
	}
	ok, err := m.cfg.Targets.Match(module)
	if err != nil || !ok {
		return false, err
	}
	if len(m.cfg.Layers) > 0 {
		n, has := layerIndex(module)
		return has && slices.Contains(m.cfg.Layers, n), nil
	}
	return true, nil
}

// layerIndex is the first whole number among the parts of a module name.
func layerIndex(module string) (int, bool) {
	for part := range strings.SplitSeq(module, ".") {
		n, digits := 0, part != "" && len(part) < 6
		for _, r := range part {
			if r < '0' || r > '9' {
				digits = false
				break
			}
			n = n*10 + int(r-'0')
		}
		if digits {
			return n, true
		}
	}
	return 0, false
}

func isHead(module string) bool {
	first, _, _ := strings.Cut(module, ".")
	switch first {
	case "classifier", "score", "lm_head", "embed_out", "cls", "qa_outputs", "pre_classifier":
		return true
	}
	return false
}

func (m *Model) newMethod(l *model.Linear, r *rand.Rand) (method, error) {
	switch m.cfg.Type {
	case LoRA:
		if m.cfg.DoRA {
			return newDoRA(&m.cfg, l, r)
		}
		return newLoRA(&m.cfg, l, r)
	case AdaLoRA:
		return newAdaLoRA(&m.cfg, l, r), nil
	case IA3:
		return newIA3(&m.cfg, l)
	case VeRA:
		return newVeRA(&m.cfg, l, m.vera), nil
	case OFT:
		return newOFT(&m.cfg, l)
	case BOFT:
		return newBOFT(m, l)
	case Bottleneck:
		return newBottleneck(&m.cfg, l, r), nil
	}
	return nil, fmt.Errorf("peft_type %s is not for linear layers", m.cfg.Type)
}

// train makes the adapter's parameters trainable.
func (m *Model) train() error {
	for _, p := range m.own() {
		if err := p.Train(); err != nil {
			return err
		}
	}
	for _, s := range m.saved {
		if err := s.p.Train(); err != nil {
			return err
		}
		s.tuned = s.p.T
	}
	return nil
}

// own lists the adapter's own parameters.
func (m *Model) own() []*grad.Param {
	var out []*grad.Param
	for _, l := range m.layers {
		out = append(out, l.method.params()...)
	}
	for _, e := range m.tables {
		out = append(out, e.a, e.b)
	}
	if m.prompt != nil {
		out = append(out, m.prompt.params()...)
	}
	return out
}

// Config implements model.Model.
func (m *Model) Config() *model.Config { return m.base.Config() }

// Adapter is the adapter's configuration.
func (m *Model) Adapter() Config { return m.cfg }

// Base is the model beneath.
func (m *Model) Base() model.Model { return m.base }

// Params lists the trainable parameters: the adapter's own, then those of the base that it replaces.
func (m *Model) Params() []*grad.Param {
	out := m.own()
	for _, s := range m.saved {
		out = append(out, s.p)
	}
	return out
}

// Linears implements model.Model.
func (m *Model) Linears() []*model.Linear { return m.base.Linears() }

// Embeddings implements model.Model.
func (m *Model) Embeddings() []*model.Embedding { return m.base.Embeddings() }

// Forward implements model.Model.
func (m *Model) Forward(c *grad.Ctx, b *model.Batch) (model.Output, error) {
	if m.prompt != nil && m.enabled {
		return m.prompt.forward(m, c, b)
	}
	return m.base.Forward(c, b)
}

// KeepPrompt makes outputs per token hold the rows of the virtual tokens too, before those of each sequence: a causal loss needs the last
// of them, which predicts the first token of the text.
func (m *Model) KeepPrompt(on bool) { m.keepPrompt = on }

// VirtualTokens is the number of tokens that a prompt method puts before each text, 0 for others (prefixes are not tokens).
func (m *Model) VirtualTokens() int {
	if m.cfg.Type == PromptTuning || m.cfg.Type == PTuning {
		return m.cfg.VirtualTokens
	}
	return 0
}

// Enable switches the adapter on or off. Off, the base computes exactly what it did before Attach.
func (m *Model) Enable(on bool) error {
	if m.merged {
		return errors.New("adapter: merged; unmerge it before switching it off")
	}
	if on == m.enabled {
		return nil
	}
	m.enabled = on
	for _, l := range m.layers {
		if on {
			l.linear.Adapter = l.method
		} else {
			l.linear.Adapter = nil
		}
	}
	for _, e := range m.tables {
		if on {
			e.e.Adapter = e
		} else {
			e.e.Adapter = nil
		}
	}
	for _, s := range m.saved {
		s.switchTo(on)
	}
	return nil
}

func (s *saved) switchTo(tuned bool) {
	if tuned == s.enabled {
		return
	}
	s.enabled = tuned
	if tuned {
		s.p.Replace(s.tuned)
	} else {
		s.tuned = s.p.T
		s.p.Replace(s.base)
	}
}

// Merge writes the adapter into the base's weights, in memory; Unmerge takes it out again, bit for bit. Prompt methods cannot be merged.
func (m *Model) Merge() error {
	switch {
	case !m.Mergeable():
		return fmt.Errorf("adapter: %s is no change of weights and cannot be merged", m.cfg.Type)
	case m.merged:
		return nil
	case !m.enabled:
		return errors.New("adapter: switched off; enable it before merging")
	}
	for i, l := range m.layers {
		if err := l.merge(); err != nil {
			for _, done := range m.layers[:i] {
				done.unmerge()
			}
			return fmt.Errorf("merge %s: %w", l.linear.Name, err)
		}
	}
	for i, e := range m.tables {
		if err := m.mergeTable(e); err != nil {
			for _, done := range m.tables[:i] {
				done.unmerge()
			}
			for _, done := range m.layers {
				done.unmerge()
			}
			return fmt.Errorf("merge %s: %w", e.e.Name, err)
		}
	}
	m.merged = true
	return nil
}

// Unmerge undoes Merge.
func (m *Model) Unmerge() error {
	if !m.merged {
		return nil
	}
	for _, l := range m.layers {
		l.unmerge()
	}
	for _, e := range m.tables {
		e.unmerge()
	}
	m.merged = false
	return nil
}

// Detach merges the adapter for good and returns the plain base model.
func (m *Model) Detach() (model.Model, error) {
	if err := m.Merge(); err != nil {
		return nil, err
	}
	for _, s := range m.saved {
		s.p.Freeze()
	}
	return m.base, nil
}

func (l *layer) merge() error {
	lin := l.linear
	l.w = lin.W.T
	base, err := backend.Dequantize(lin.W.T)
	if err != nil {
		return err
	}
	w := make([]float32, len(base))
	turn(w, base, lin.Transposed, lin)
	var b []float32
	if lin.B != nil {
		l.b = lin.B.T
		b = slices.Clone(lin.B.Values())
	}
	if err := l.method.merge(lin, w, b); err != nil {
		return err
	}
	if lin.Transposed {
		out := make([]float32, len(w))
		for o := range lin.Out {
			for i := range lin.In {
				out[i*lin.Out+o] = w[o*lin.In+i]
			}
		}
		w = out
	}
	lin.W.Replace(tensor.FromF32(lin.W.Name, w, l.w.Shape...))
	if b != nil && !lin.B.Trainable() {
		lin.B.Replace(tensor.FromF32(lin.B.Name, b, l.b.Shape...))
	}
	lin.Adapter = nil
	return nil
}

func (l *layer) unmerge() {
	lin := l.linear
	lin.W.Replace(l.w)
	if lin.B != nil && !lin.B.Trainable() {
		lin.B.Replace(l.b)
	}
	lin.Adapter = l.method
}

// turn writes src to dst as [Out, In].
func turn(dst, src []float32, transposed bool, l *model.Linear) {
	if !transposed {
		copy(dst, src)
		return
	}
	for i := range l.In {
		for o := range l.Out {
			dst[o*l.In+i] = src[i*l.Out+o]
		}
	}
}

// rng is the generator of one module: a function of the seed and the name alone, so that it does not matter which others are adapted.
func rng(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func newParam(name string, shape ...int) *grad.Param {
	return grad.NewParam(tensor.New(name, shape...))
}

// kaiming fills p [., in] as torch's kaiming_uniform_(a=sqrt(5)): uniform within 1/sqrt(in).
func kaiming(p *grad.Param, in int, r *rand.Rand) {
	bound := 1 / math.Sqrt(float64(in))
	for i, v := 0, p.Values(); i < len(v); i++ {
		v[i] = float32((2*r.Float64() - 1) * bound)
	}
}

func fill(p *grad.Param, x float32) {
	for i, v := 0, p.Values(); i < len(v); i++ {
		v[i] = x
	}
}

// Mergeable reports whether Merge can do its work: virtual tokens and bottleneck networks are no change of weights.
func (m *Model) Mergeable() bool { return m.prompt == nil && m.cfg.Type != Bottleneck }

// mergeTable merges into a table that nothing else reads: tied output layers would change too.
func (m *Model) mergeTable(e *embedding) error {
	for _, l := range m.base.Linears() {
		if l.W == e.e.W {
			return fmt.Errorf("the table is tied to %s, which the adapter leaves as it is", l.Name)
		}
	}
	return e.merge()
}
