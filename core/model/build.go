package model

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// Options of New. The zero value loads what the config describes.
type Options struct {
	// Head selects the head; HeadAuto keeps the config's. A head that the checkpoint lacks is initialised.
	Head Head
	// Labels are the classes of a classification head; nil keeps the config's. A head of another size is replaced.
	Labels []string
	// ProblemType, when not "", replaces the config's.
	ProblemType string
	// Random initialises every tensor; the source is not read and may be nil.
	Random bool
	// Seed drives initialisation: each tensor draws from a stream of its own, so that one more does not change the others.
	Seed uint64
	// Fresh, when not nil, receives the names of the tensors that were initialised.
	Fresh *[]string
}

// New builds the network that cfg describes over the tensors of src. Tensors stay where they are (a mapped file) and as they are stored.
// A missing tensor, or one of another shape, is an error that names it; only those of a head may be missing.
func New(cfg *Config, src checkpoint.Source, opt Options) (Model, error) {
	cfg = cfg.Clone()
	replaced := false
	if opt.Head != HeadAuto && opt.Head != cfg.Head {
		if !cfg.family.supports(opt.Head) {
			return nil, fmt.Errorf("model: %s has no head %q", cfg.ModelType, opt.Head)
		}
		cfg.Head = opt.Head
	}
	if opt.Labels != nil {
		if len(opt.Labels) == 0 || len(opt.Labels) > maxLabels {
			return nil, fmt.Errorf("model: expected 1 to %d labels, got %d", maxLabels, len(opt.Labels))
		}
		replaced = len(opt.Labels) != len(cfg.Labels)
		cfg.Labels = slices.Clone(opt.Labels)
	}
	if opt.ProblemType != "" {
		cfg.ProblemType = opt.ProblemType
	}
	b := &builder{cfg: cfg, src: src, opt: opt, resize: replaced, have: map[string]bool{}, made: map[string]*grad.Param{}, layer: -1}
	if !opt.Random {
		if src == nil {
			return nil, errors.New("model: no tensors to load and random initialisation is not asked for")
		}
		for _, name := range src.Names() {
			b.have[name] = true
		}
	}
	n := &net{cfg: cfg, depth: cfg.Layers}
	cfg.family.build(b, n)
	if b.err != nil {
		return nil, fmt.Errorf("model: %w", b.err)
	}
	if e, ok := n.network.(*encoder); ok {
		join3(e.blocks)
	}
	n.params, n.linears, n.embeddings, n.layers = b.params, b.linears, b.embeddings, b.layers
	if opt.Fresh != nil {
		*opt.Fresh = b.fresh
	}
	return n, nil
}

// builder makes parameters and layers by name and keeps the first error.
type builder struct {
	cfg    *Config
	src    checkpoint.Source
	opt    Options
	resize bool // a classifier of another size may be replaced
	have   map[string]bool
	made   map[string]*grad.Param

	layer      int // of the parameters being made: −1 embeddings, then blocks, Layers for what comes after
	params     []*grad.Param
	layers     []int
	linears    []*Linear
	embeddings []*Embedding
	fresh      []string
	drawn      int // values initialised
	err        error
}

// maxDrawn bounds random initialisation, which no file's size bounds: 16 GiB.
const maxDrawn = 1 << 32

// scope is a module: a place in the tree of names.
type scope struct {
	b    *builder
	path string // canonical, with a trailing dot unless empty
	// root is what the canonical path of the bare network begins with: "bert.", or "" without a head.
	root string
	base bool
}

// body is the scope of the bare network.
func (b *builder) body() scope {
	root := b.cfg.family.prefix
	if b.cfg.Head == HeadNone {
		root = ""
	}
	return scope{b: b, path: root, root: root, base: true}
}

// top is the scope of heads.
func (b *builder) top() scope { return scope{b: b} }

// sub is a module below s.
func (s scope) sub(name string) scope {
	s.path += name + "."
	return s
}

// at is the module of block i below s; parameters made from here on belong to that block.
func (s scope) at(name string, i int) scope { return s.sub(fmt.Sprintf("%s.%d", name, i)) }

// Ways to initialise.
type initial uint8

const (
	initNormal initial = iota
	initZero
	initOne
)

// param returns the named tensor of the module as a parameter. Optional ones (of heads) are initialised when missing.
func (s scope) param(name string, how initial, optional bool, shape ...int) *grad.Param {
	b := s.b
	full := s.path + name
	if p := b.made[full]; p != nil {
		return p
	}
	if b.err != nil {
		return grad.NewParam(tensor.Tensor{Name: full, DType: tensor.F32, Shape: shape})
	}
	t, found, err := b.read(s, name)
	switch {
	case err != nil:
		b.err = err
	case found && !slices.Equal(t.Shape, shape):
		if !optional || !b.resize {
			b.err = fmt.Errorf("tensor %q: expected shape %v, found %v", t.Name, shape, t.Shape)
			break
		}
		found = false
		fallthrough
	case !found:
		if !b.opt.Random && !optional {
			_, err := b.src.Tensor(full)
			if err == nil {
				err = checkpoint.ErrNoTensor
			}
			b.err = fmt.Errorf("expected a tensor %q of shape %v: %w", full, shape, err)
			break
		}
		if b.drawn += tensor.Elements(shape); b.drawn > maxDrawn {
			b.err = fmt.Errorf("initialising %q of shape %v: more than %d values in all", full, shape, maxDrawn)
			break
		}
		t = b.initialise(full, how, shape)
		b.fresh = append(b.fresh, full)
	}
	t.Name = full
	p := grad.NewParam(t)
	if b.err == nil {
		b.made[full] = p
		b.params = append(b.params, p)
		b.layers = append(b.layers, b.layer)
	}
	return p
}

// read finds a tensor under its canonical name or one that older or bare checkpoints use.
func (b *builder) read(s scope, name string) (t tensor.Tensor, found bool, err error) {
	if b.opt.Random {
		return t, false, nil
	}
	paths := []string{s.path}
	if s.base {
		rest := strings.TrimPrefix(s.path, s.root)
		paths = append(paths, b.cfg.family.prefix+rest, rest)
		for _, p := range b.cfg.family.others {
			paths = append(paths, p+rest)
		}
	}
	names := []string{name}
	if strings.Contains(strings.ToLower(s.path), "norm") { // TensorFlow's names in early BERT checkpoints
		switch name {
		case "weight":
			names = append(names, "gamma")
		case "bias":
			names = append(names, "beta")
		}
	}
	for _, p := range paths {
		for _, n := range names {
			if !b.have[p+n] {
				continue
			}
			if t, err = b.src.Tensor(p + n); err != nil {
				return t, false, err
			}
			return t, true, checkStorage(t)
		}
	}
	return t, false, nil
}

// checkStorage makes sure that the values can be read as numbers, so that no op needs to.
func checkStorage(t tensor.Tensor) error {
	switch t.DType {
	case tensor.F32, tensor.F16, tensor.BF16, tensor.F64:
	case tensor.Q8Row:
		if len(t.Scales) < t.Rows() {
			return fmt.Errorf("tensor %q: expected %d row scales, found %d", t.Name, t.Rows(), len(t.Scales))
		}
	default:
		if !t.DType.Quantized() {
			return fmt.Errorf("tensor %q: expected floating-point or quantized values, found %s", t.Name, t.DType)
		}
		if t.Cols()%t.DType.BlockLen() != 0 {
			return fmt.Errorf("tensor %q: rows of %d are not whole blocks of %s", t.Name, t.Cols(), t.DType)
		}
	}
	if need := t.DType.RowBytes(t.Len()); len(t.Data) < need {
		return fmt.Errorf("tensor %q: expected %d bytes, found %d", t.Name, need, len(t.Data))
	}
	return nil
}

func (b *builder) initialise(name string, how initial, shape []int) tensor.Tensor {
	t := tensor.New(name, shape...)
	v, _ := t.F32()
	switch how {
	case initOne:
		for i := range v {
			v[i] = 1
		}
	case initNormal:
		h := fnv.New64a()
		h.Write([]byte(name))
		r := rand.New(rand.NewPCG(b.opt.Seed, h.Sum64()))
		for i := range v {
			v[i] = float32(r.NormFloat64()) * b.cfg.InitRange
		}
	}
	return t
}

// linear makes a layer of the bare network.
func (s scope) linear(name string, in, out int, bias bool) *Linear {
	return s.makeLinear(name, in, out, bias, false, false)
}

// headLinear makes a layer that may be missing from a checkpoint.
func (s scope) headLinear(name string, in, out int, bias bool) *Linear {
	return s.makeLinear(name, in, out, bias, true, false)
}

// conv1D makes a layer whose weight is stored [in, out].
func (s scope) conv1D(name string, in, out int) *Linear {
	return s.makeLinear(name, in, out, true, false, true)
}

func (s scope) makeLinear(name string, in, out int, bias, optional, transposed bool) *Linear {
	m := s.sub(name)
	l := &Linear{Name: strings.TrimSuffix(m.path, "."), In: in, Out: out, Transposed: transposed}
	shape := []int{out, in}
	if transposed {
		shape = []int{in, out}
	}
	l.W = m.param("weight", initNormal, optional, shape...)
	if bias {
		l.B = m.param("bias", initZero, optional, out)
	}
	return s.b.addLinear(l)
}

func (b *builder) addLinear(l *Linear) *Linear {
	b.linears = append(b.linears, l)
	return l
}

// layerNorm makes a LayerNorm of the config's epsilon.
func (s scope) layerNorm(name string, width int, bias bool) *norm {
	return s.makeNorm(name, width, bias, false)
}

func (s scope) makeNorm(name string, width int, bias, optional bool) *norm {
	m := s.sub(name)
	n := &norm{w: m.param("weight", initOne, optional, width), eps: s.b.cfg.NormEps}
	if bias {
		n.b = m.param("bias", initZero, optional, width)
	}
	return n
}

// rmsNorm makes an RMSNorm; with onePlus the stored weight is the factor less one.
func (s scope) rmsNorm(name string, width int, onePlus bool) *norm {
	how := initOne
	if onePlus {
		how = initZero
	}
	return &norm{w: s.sub(name).param("weight", how, false, width), eps: s.b.cfg.NormEps, rms: true, onePlus: onePlus}
}

// table makes a plain table of vectors (positions, types).
func (s scope) table(name string, rows, width int) *grad.Param {
	return s.sub(name).param("weight", initNormal, false, rows, width)
}

// words makes the word table.
func (s scope) words(name string) *Embedding {
	e := &Embedding{Name: s.path + name, W: s.table(name, s.b.cfg.Vocab, s.b.cfg.Embedding), Scale: s.b.cfg.EmbedScale}
	s.b.embeddings = append(s.b.embeddings, e)
	return e
}
