package model

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// family is one kind of network: how its config is read and how its layers are named and joined. See the files named after them.
type family struct {
	class   string   // prefix of transformers' class names
	prefix  string   // of the bare network's tensors below a head: "bert."
	others  []string // further prefixes seen in checkpoints
	tied    bool     // default of tie_word_embeddings
	decoder bool
	heads   []Head
	read    func(c *Config, r *reader)
	build   func(b *builder, n *net)
}

func (f *family) supports(h Head) bool {
	if h == HeadNone {
		return true
	}
	for _, have := range f.heads {
		if have == h {
			return true
		}
	}
	return false
}

var families map[string]*family

var (
	encoderHeads = []Head{HeadSequence, HeadToken, HeadMasked}
	decoderHeads = []Head{HeadSequence, HeadToken, HeadCausal}
)

func init() {
	// A function, because the families' builders refer back to this table through New.
	families = map[string]*family{
		"bert": bertFamily, "distilbert": distilbertFamily, "roberta": robertaFamily("Roberta"), "xlm-roberta": robertaFamily("XLMRoberta"),
		"electra": electraFamily, "albert": albertFamily, "mpnet": mpnetFamily, "modernbert": modernbertFamily, "deberta-v2": debertaFamily,
		"gpt2": gpt2Family, "gpt_neox": neoxFamily, "llama": llamaFamily, "mistral": mistralFamily, "qwen2": qwen2Family, "qwen3": qwen3Family,
		"smollm3": smollm3Family, "gemma3_text": gemma3Family, "phi3": phi3Family,
	}
}

// network is what a family provides to the one forward: how ids enter the first block, and what a block does.
type network interface {
	embed(c *grad.Ctx, p *pass) *grad.Value
	block(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value
}

// net is a loaded network of any family.
type net struct {
	cfg        *Config
	params     []*grad.Param
	layers     []int // of params
	linears    []*Linear
	embeddings []*Embedding

	network
	depth int // blocks
	// together: what a batch shares is too dear to compute for each part of it (DeBERTa's relative embeddings).
	together bool
	final    *norm   // after the last block, or nil
	pooler   *Linear // or nil
	head     *head   // or nil
}

func (n *net) Config() *Config          { return n.cfg }
func (n *net) Params() []*grad.Param    { return n.params }
func (n *net) Linears() []*Linear       { return n.linears }
func (n *net) Embeddings() []*Embedding { return n.embeddings }

// pass is what the layers of one forward share.
type pass struct {
	n    *net
	b    *Batch
	seqs []backend.Seq
	pos  []int32 // of each token
	// whole is the number of positions that each sequence sees, its cached ones included.
	whole []int
	// prefix is the number of rows that Batch.Prefix puts before each sequence in this pass.
	prefix int
	kv     []int32 // offsets of keys, where a prefix makes them differ from the tokens'
	// bias of attention scores that all layers share (MPNet).
	bias   *grad.Value
	biasAt []int
	ropes  []ropeTables
	// relative is what a family keeps for its blocks (DeBERTa's relative embeddings).
	relative *grad.Value
	shared   []*grad.Value
}

// Forward runs the batch. It is the only forward of all families: recorded or not, whole or with a cache.
func (n *net) Forward(c *grad.Ctx, b *Batch) (Output, error) {
	p, err := n.start(b)
	if err != nil {
		return Output{}, fmt.Errorf("forward: %w", err)
	}
	var out Output
	if b.Cache == nil {
		out.Last, err = n.apart(c, p)
	}
	if err != nil {
		return Output{}, fmt.Errorf("forward: %w", err)
	}
	if out.Last == nil {
		out.Last = n.states(c, p, &out)
	}
	if b.Until == 0 {
		n.finish(c, p, &out)
	}
	return out, nil
}

// states runs the batch up to its last hidden states.
func (n *net) states(c *grad.Ctx, p *pass, out *Output) *grad.Value {
	b := p.b
	x, until := b.Enter, n.depth
	if x == nil {
		x = n.embed(c, p)
	}
	if b.Until != 0 {
		until = b.Until
	}
	for i := b.From; i < until; i++ {
		out.keep(c, b, x)
		x = c.Block(x, func(x *grad.Value) *grad.Value { return n.block(c, p, i, x) }, p.sharedWith(i)...)
	}
	if b.Cache != nil {
		b.Cache.Advance(p.kv)
	}
	if b.Until != 0 {
		return x
	}
	x = n.final.apply(c, x)
	out.keep(c, b, x)
	return x
}

// keep adds a hidden state to the outputs. Blocks reuse the place of a state that takes no gradient, so it is copied.
func (o *Output) keep(c *grad.Ctx, b *Batch, x *grad.Value) {
	if b.Want&WantHidden == 0 {
		return
	}
	if !x.Needs() {
		x = c.Copy(x)
	}
	o.Layers = append(o.Layers, x)
}

// start checks the batch against the model and lays out its sequences.
func (n *net) start(b *Batch) (*pass, error) {
	cfg := n.cfg
	if len(b.Offsets) < 2 || b.Offsets[0] != 0 || int(b.Offsets[len(b.Offsets)-1]) != len(b.IDs) {
		return nil, fmt.Errorf("offsets must run from 0 to %d tokens", len(b.IDs))
	}
	for i := range b.Sequences() {
		if b.Offsets[i+1] <= b.Offsets[i] || int(b.Offsets[i+1]) > len(b.IDs) {
			return nil, fmt.Errorf("sequence %d has no tokens: offsets %d to %d of %d", i, b.Offsets[i], b.Offsets[i+1], len(b.IDs))
		}
	}
	if b.Types != nil && len(b.Types) != len(b.IDs) || b.Positions != nil && len(b.Positions) != len(b.IDs) {
		return nil, fmt.Errorf("expected %d types and positions, got %d and %d", len(b.IDs), len(b.Types), len(b.Positions))
	}
	if b.Embeds != nil && (b.Embeds.Rows != len(b.IDs) || b.Embeds.Cols != cfg.Embedding) {
		return nil, fmt.Errorf("expected embeddings of %dx%d, got %dx%d", len(b.IDs), cfg.Embedding, b.Embeds.Rows, b.Embeds.Cols)
	}
	if b.Cache != nil && !cfg.Decoder {
		return nil, fmt.Errorf("%s sees both ways: it cannot use a cache", cfg.ModelType)
	}
	switch b.Cache.(type) {
	case nil, FloatRows, StoredRows:
	default:
		return nil, fmt.Errorf("a cache of type %T holds no rows", b.Cache)
	}
	for i, id := range b.IDs {
		if (id < 0 || int(id) >= cfg.Vocab) && b.Embeds == nil {
			return nil, fmt.Errorf("token %d: id %d is outside the vocabulary of %d", i, id, cfg.Vocab)
		}
	}
	for i, t := range b.Types {
		if cfg.Types > 0 && (t < 0 || int(t) >= cfg.Types) {
			return nil, fmt.Errorf("token %d: type %d is outside the %d of the model", i, t, cfg.Types)
		}
	}
	for i, r := range b.Rows {
		if r < 0 || int(r) >= len(b.IDs) {
			return nil, fmt.Errorf("row %d: token %d of %d", i, r, len(b.IDs))
		}
	}
	if b.Enter != nil || b.From != 0 || b.Until != 0 {
		if b.Cache != nil {
			return nil, fmt.Errorf("a cache needs the whole network, from its embeddings to its end")
		}
		if err := n.checkEnter(b); err != nil {
			return nil, err
		}
	}
	if b.Want&WantLoss != 0 {
		if err := n.checkTargets(b); err != nil {
			return nil, err
		}
	}
	p := &pass{n: n, b: b}
	if err := p.layOut(cfg); err != nil {
		return nil, err
	}
	return p, nil
}

// checkTargets checks a batch whose loss is wanted.
func (n *net) checkTargets(b *Batch) error {
	if n.head == nil || n.head.pooler || n.head.pool != "" {
		return fmt.Errorf("the loss of tokens needs a head that gives logits for each of them")
	}
	rows := len(b.IDs)
	if b.Rows != nil {
		rows = len(b.Rows)
	}
	if len(b.Targets) != rows {
		return fmt.Errorf("expected %d targets, got %d", rows, len(b.Targets))
	}
	for i, t := range b.Targets {
		if int(t) >= n.head.out.Out {
			return fmt.Errorf("target %d: class %d is outside the %d of the model", i, t, n.head.out.Out)
		}
	}
	return nil
}

func (p *pass) layOut(cfg *Config) error {
	b := p.b
	s := b.Sequences()
	p.seqs, p.whole, p.kv = make([]backend.Seq, s), make([]int, s), b.Offsets
	p.pos = b.Positions
	if p.pos == nil {
		p.pos = make([]int32, len(b.IDs))
	}
	prefix := 0
	if b.Prefix != nil {
		if len(b.Prefix) != p.n.depth {
			return fmt.Errorf("expected prefixes for %d layers, got %d", p.n.depth, len(b.Prefix))
		}
		for i, kv := range b.Prefix {
			if kv.K.Cols != cfg.KVHeads*cfg.HeadDim || kv.V.Cols != kv.K.Cols || kv.K.Rows != b.Prefix[0].K.Rows || kv.V.Rows != kv.K.Rows {
				return fmt.Errorf("prefix of layer %d: expected %d rows of %d, got %dx%d and %dx%d",
					i, b.Prefix[0].K.Rows, cfg.KVHeads*cfg.HeadDim, kv.K.Rows, kv.K.Cols, kv.V.Rows, kv.V.Cols)
			}
		}
		prefix = b.Prefix[0].K.Rows
		p.prefix = prefix
		if b.Cache != nil && b.Cache.Len(0) > 0 { // it is in there
			p.prefix = 0
		}
		p.kv = make([]int32, s+1)
		for i := range p.kv {
			p.kv[i] = b.Offsets[i] + int32(i*p.prefix)
		}
	}
	for i := range s {
		lo, hi := int(b.Offsets[i]), int(b.Offsets[i+1])
		past := 0
		if b.Cache != nil {
			if past = b.Cache.Len(i); b.Prefix != nil && (past == 0) != (p.prefix > 0) {
				return fmt.Errorf("sequence %d: a prefix needs caches that are all empty or all begun", i)
			}
		}
		p.seqs[i] = backend.Seq{QStart: lo, QLen: hi - lo, KStart: int(p.kv[i]), KLen: hi - lo + p.prefix}
		p.whole[i] = past + p.prefix + hi - lo
		if b.Positions == nil {
			p.count(cfg, lo, hi, int32(past+p.prefix))
		}
		for _, at := range p.pos[lo:hi] {
			if at < 0 || cfg.AbsolutePositions && int(at) >= cfg.MaxPositions || int(at) > maxLength {
				return fmt.Errorf("sequence %d has %d tokens: the model takes at most %d", i, p.whole[i]-prefix, cfg.MaxPositions-cfg.PositionOffset-prefix)
			}
			p.whole[i] = max(p.whole[i], int(at)+1-cfg.PositionOffset)
		}
	}
	return nil
}

// count numbers the tokens of a sequence. Families that count from the pad id + 1 leave pads at the pad id.
func (p *pass) count(cfg *Config, lo, hi int, from int32) {
	next := from + int32(cfg.PositionOffset)
	for i := lo; i < hi; i++ {
		if cfg.PositionOffset > 0 && int(p.b.IDs[i]) == cfg.PadID {
			p.pos[i] = int32(cfg.PadID)
			continue
		}
		p.pos[i] = next
		next++
	}
}

// sharedWith lists values from outside that block i reads and that may need gradients.
func (p *pass) sharedWith(i int) []*grad.Value {
	if p.b.Prefix == nil {
		return p.shared
	}
	return append(p.shared[:len(p.shared):len(p.shared)], p.b.Prefix[i].K, p.b.Prefix[i].V)
}

// words returns the output of the word table, or what stands for it.
func (p *pass) words(c *grad.Ctx, e *Embedding) *grad.Value {
	x := p.b.Embeds
	if x == nil {
		x = e.Lookup(c, p.b.IDs)
	}
	if p.b.Perturb != nil {
		x = p.b.Perturb(c, x)
	}
	return x
}

// types returns the token types.
func (p *pass) types() []int32 {
	if p.b.Types != nil {
		return p.b.Types
	}
	return make([]int32, len(p.b.IDs))
}

// rows are the first or last tokens of the sequences.
func (p *pass) rows(last bool) []int32 {
	out := make([]int32, len(p.seqs))
	for i := range out {
		if out[i] = p.b.Offsets[i]; last {
			out[i] = p.b.Offsets[i+1] - 1
		}
	}
	return out
}

// attend is attention of one layer within each sequence, over the prefix and the cache too. Queries, keys and values are rotated
// already; they begin at the columns that s says.
func (p *pass) attend(c *grad.Ctx, layer int, q, k, v *grad.Value, s grad.AttentionSpec) *grad.Value {
	cfg, b := p.n.cfg, p.b
	s.Seqs, s.Heads, s.KVHeads, s.HeadDim = p.seqs, cfg.Heads, cfg.KVHeads, cfg.HeadDim
	if s.Scale == 0 {
		s.Scale = cfg.attentionScale()
	}
	if p.prefix == 0 && b.Cache == nil {
		return c.Attention(q, k, v, s)
	}
	width := cfg.KVHeads * cfg.HeadDim
	if k.Cols != width {
		k, s.KAt = c.Columns(k, 1, s.KAt, width), 0
	}
	if v.Cols != width {
		v, s.VAt = c.Columns(v, 1, s.VAt, width), 0
	}
	if p.prefix > 0 {
		k, v = c.Prefix(b.Prefix[layer].K, k, b.Offsets), c.Prefix(b.Prefix[layer].V, v, b.Offsets)
	}
	switch cache := b.Cache.(type) {
	case StoredRows:
		return p.attendStored(c, cache, layer, q, k, v, s)
	case FloatRows:
		ks, vs, seqs := cache.Append(layer, k.Data, v.Data, width, p.kv)
		k, v = c.Input(ks, len(ks)/width, width, false), c.Input(vs, len(vs)/width, width, false)
		s.Seqs = seqs
		for i := range seqs { // the cache counts the rows it was given; queries are the tokens
			seqs[i].QStart, seqs[i].QLen = p.seqs[i].QStart, p.seqs[i].QLen
		}
	}
	return c.Attention(q, k, v, s)
}

// attendStored adds the rows of k and v to a cache and attends to what it holds.
func (p *pass) attendStored(c *grad.Ctx, cache StoredRows, layer int, q, k, v *grad.Value, s grad.AttentionSpec) *grad.Value {
	width := k.Cols
	stored := cache.Extend(layer, width, s.Window, p.kv)
	s.Seqs = make([]backend.Seq, len(stored))
	for i, st := range stored {
		lo, hi, size := int(p.kv[i]), int(p.kv[i+1]), st.Type.RowBytes(width)
		at := len(st.K) - (hi-lo)*size
		backend.StoreRows(c.K, st.K[at:], st.Type, k.Data[lo*width:hi*width])
		backend.StoreRows(c.K, st.V[at:], st.Type, v.Data[lo*width:hi*width])
		s.Seqs[i] = backend.Seq{QStart: p.seqs[i].QStart, QLen: p.seqs[i].QLen, KLen: len(st.K) / size}
	}
	return c.AttentionStored(q, stored, s)
}

// ropeTables are the cosines and sines of one embedding for the tokens of a pass.
type ropeTables struct {
	of       *Rope
	cos, sin []float32
	pos      []int32
}

// rotate applies rotary positions to heads columns groups of x from column at, in place.
func (p *pass) rotate(c *grad.Ctx, x *grad.Value, e *Rope, at, heads int) *grad.Value {
	t := p.ropeOf(e)
	return c.Rope(x, grad.RopeSpec{At: at, Heads: heads, HeadDim: p.n.cfg.HeadDim, RotDim: e.dim, Pos: t.pos, Cos: t.cos, Sin: t.sin})
}

// ropeRows is how many positions a table holds for the sake of a few tokens: longer texts do not need more memory.
const ropeRows = 4096

func (p *pass) ropeOf(e *Rope) *ropeTables {
	for i := range p.ropes {
		if p.ropes[i].of == e {
			return &p.ropes[i]
		}
	}
	t := ropeTables{of: e, pos: p.pos}
	n := int32(0)
	for _, at := range p.pos {
		n = max(n, at+1)
	}
	if !e.changes() && (n <= ropeRows || len(p.pos) > ropeRows/8) {
		t.cos, t.sin = e.table(int(n))
	} else {
		// A row per token: of a few tokens far along, or where the frequencies depend on each sequence's length, so that a text does not depend on its
		// neighbours.
		half := e.dim / 2
		t.cos, t.sin = make([]float32, len(p.pos)*half), make([]float32, len(p.pos)*half)
		t.pos = make([]int32, len(p.pos))
		for i, s := range p.seqs {
			freq, scale := e.frequencies(p.whole[i])
			for r := s.QStart; r < s.QStart+s.QLen; r++ {
				t.pos[r] = int32(r)
				e.fill(t.cos[r*half:], t.sin[r*half:], int(p.pos[r]), 1, freq, scale)
			}
		}
	}
	p.ropes = append(p.ropes, t)
	return &p.ropes[len(p.ropes)-1]
}
