// Package token turns text into ids and back, with the offsets of every token.
//
// It reads what the field writes: Hugging Face's tokenizer.json (WordPiece, byte-level and SentencePiece-style BPE, Unigram, with their normalizers,
// pre-tokenizers, post-processors, decoders and added tokens), vocab.txt, vocab.json with merges.txt, and the vocabularies inside GGUF files.
// Results are those of the libraries that wrote the files, down to offsets.
//
// A Tokenizer is safe for concurrent use once it is set up.
package token

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Tokenizer is text ⇄ ids. Load, FromVocabTxt, FromGPT2 and FromGGUF make one.
type Tokenizer struct {
	source []byte // the tokenizer.json it came from, or nil

	normalizer normalizer
	pre        []preTokenizer
	model      model
	vocab      *vocab
	post       []postProcessor
	decoder    decoder
	truncation *Truncation
	padding    *Padding

	added       []*AddedToken
	addedByID   map[int32]*AddedToken
	addedByName map[string]*AddedToken
	plain       *matcher // added tokens looked for in the original text
	normal      *matcher // those looked for in the normalized text

	llama *llama // special tokens are found as llama.cpp does it

	fast fast
	// aligns is set when even ids depend on where in the original a piece begins.
	aligns bool

	special   Special
	maxLength int
	// before and after are what the template adds to one text.
	before, after []int32

	pool scratches
}

type normalizer interface {
	normalize(sc *scratch, a *aligned)
}

type preTokenizer interface {
	// pretokenize appends the parts of a, the index-th piece of the input, to dst.
	pretokenize(sc *scratch, index int, a *aligned, dst []piece) ([]piece, error)
}

type model interface {
	// tokenize appends the tokens of a to sc.out.
	tokenize(sc *scratch, a *aligned, word int32) error
}

// Offset is a half-open range of a text.
type Offset struct{ Start, End int }

// Encoding is a tokenized text or pair of texts. All slices but Overflowing have one entry a token.
type Encoding struct {
	IDs    []int32
	Tokens []string
	// TypeIDs tells the two texts of a pair apart (BERT's segment ids).
	TypeIDs []int32
	// Offsets are bytes of the text that the token came from, Runes the same in code points; 0, 0 for tokens that the template added.
	Offsets, Runes []Offset
	// Words numbers the pieces of each text before the model cut them; -1 for tokens that the template added.
	Words []int32
	// Sequences is 0 or 1: which text of the pair a token came from; -1 for tokens that the template added.
	Sequences []int8
	// SpecialMask is 1 for tokens that the template or padding added, AttentionMask is 0 for padding.
	SpecialMask, AttentionMask []int32
	// Overflowing holds what truncation cut away, as windows of the same shape.
	Overflowing []Encoding
}

// Len is the number of tokens.
func (e *Encoding) Len() int { return len(e.IDs) }

// Options changes how a text is encoded. The zero value does as tokenizer.json says.
type Options struct {
	// NoSpecial leaves out the tokens that the template adds, such as [CLS] and [SEP].
	NoSpecial bool
	// NoLimits ignores the truncation and padding of the tokenizer.
	NoLimits bool
	// Truncation and Padding, when set, take the place of the tokenizer's own.
	Truncation *Truncation
	Padding    *Padding
	// SpecialAsText treats the names of special tokens in the text as plain text. Use it on texts of strangers.
	SpecialAsText bool
}

func (t *Tokenizer) limits(o Options) (*Truncation, *Padding) {
	trunc, pad := t.truncation, t.padding
	if o.NoLimits {
		trunc, pad = nil, nil
	}
	if o.Truncation != nil {
		trunc = o.Truncation
	}
	if o.Padding != nil {
		pad = o.Padding
	}
	return trunc, pad
}

// Encode tokenizes text. It fails when the vocabulary can express a part of the text neither by a token nor by an unknown token, and when the limits
// cannot be met.
func (t *Tokenizer) Encode(text string, opt Options) (Encoding, error) {
	return t.encode(opt, true, text)
}

// EncodePair tokenizes two texts as one sequence, as cross-encoders and entailment models want them.
func (t *Tokenizer) EncodePair(text, pair string, opt Options) (Encoding, error) {
	return t.encode(opt, true, text, pair)
}

// EncodeBatch tokenizes texts on all processors. Padding to the longest looks at the whole batch. Results do not depend on the number of processors.
func (t *Tokenizer) EncodeBatch(texts []string, opt Options) ([]Encoding, error) {
	return t.batch(len(texts), opt, func(i int) (Encoding, error) { return t.encode(opt, false, texts[i]) })
}

// EncodePairs is EncodeBatch for pairs.
func (t *Tokenizer) EncodePairs(pairs [][2]string, opt Options) ([]Encoding, error) {
	return t.batch(len(pairs), opt, func(i int) (Encoding, error) { return t.encode(opt, false, pairs[i][0], pairs[i][1]) })
}

func (t *Tokenizer) batch(n int, opt Options, one func(int) (Encoding, error)) ([]Encoding, error) {
	out := make([]Encoding, n)
	errs := make([]error, n)
	workers := min(runtime.GOMAXPROCS(0), n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				out[i], errs[i] = one(i)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("token: text %d: %w", i, err)
		}
	}
	if _, pad := t.limits(opt); pad != nil {
		if err := pad.apply(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (t *Tokenizer) encode(opt Options, pad bool, texts ...string) (Encoding, error) {
	parts := make([]Encoding, len(texts))
	truncation, padding := t.limits(opt)
	most := math.MaxInt
	if tr := truncation; tr != nil && tr.Drop && !tr.Left && len(texts) == 1 {
		most = max(1, tr.MaxLength) // what lies behind is cut off in any case
	}
	for i, text := range texts {
		var err error
		if parts[i], err = t.cut(text, i, most, opt); err != nil {
			return Encoding{}, err
		}
	}
	if truncation != nil {
		if err := truncation.apply(parts, t.addedByTemplate(len(texts), opt)); err != nil {
			return Encoding{}, err
		}
	}
	e, err := t.process(parts, !opt.NoSpecial)
	if err != nil {
		return Encoding{}, err
	}
	e.locate(texts)
	if pad && padding != nil {
		one := []Encoding{e}
		if err := padding.apply(one); err != nil {
			return Encoding{}, err
		}
		e = one[0]
	}
	return e, nil
}

// ErrTooLong is returned for texts whose bytes an int32 cannot count.
var ErrTooLong = errors.New("token: text is longer than 2 GiB")

// begin fills sc.pieces with the parts of text before the pre-tokenizers: added tokens, and normalized text between them.
func (t *Tokenizer) begin(sc *scratch, text string, track, asText bool) error {
	if len(text) >= math.MaxInt32 {
		return ErrTooLong
	}
	sc.reset()
	whole := newAligned(sc, text, track)
	first := sc.spare[:0]
	if t.llama != nil {
		first = t.llama.extract(sc, &whole, first, asText)
	} else {
		first = t.plain.extract(&whole, first, asText)
	}
	pieces := sc.pieces[:0]
	for i := range first {
		p := &first[i]
		if p.id != noToken {
			pieces = append(pieces, *p)
			continue
		}
		if t.normalizer != nil {
			t.normalizer.normalize(sc, &p.aligned)
		}
		pieces = t.normal.extract(&p.aligned, pieces, asText)
	}
	sc.pieces, sc.spare = pieces, first
	return nil
}

// run fills sc.out with the tokens of text.
func (t *Tokenizer) run(sc *scratch, text string, track, asText bool) error {
	if err := t.begin(sc, text, track, asText); err != nil {
		return err
	}
	pieces, other := sc.pieces, sc.spare[:0]
	for _, pre := range t.pre {
		for i := range pieces {
			p := &pieces[i]
			if p.id != noToken {
				other = append(other, *p)
				continue
			}
			var err error
			if other, err = pre.pretokenize(sc, i, &p.aligned, other); err != nil {
				sc.pieces, sc.spare = pieces, other
				return err
			}
		}
		pieces, other = other, pieces[:0]
	}
	sc.pieces, sc.spare = pieces, other
	for i := range pieces {
		p := &pieces[i]
		if p.id != noToken {
			k := tok{id: p.id, word: int32(i)}
			if track {
				k.at = p.original(0, len(p.text))
				k.text = string(p.text)
			}
			sc.out = append(sc.out, k)
			continue
		}
		if err := t.model.tokenize(sc, &p.aligned, int32(i)); err != nil {
			return err
		}
	}
	return nil
}

// cut encodes the first tokens of one text, at most so many, without template and limits. Offsets come out in code points only: locate adds the bytes.
func (t *Tokenizer) cut(text string, sequence, most int, opt Options) (Encoding, error) {
	sc := t.pool.get()
	defer t.pool.put(sc)
	if err := t.run(sc, text, true, opt.SpecialAsText); err != nil {
		return Encoding{}, err
	}
	n := min(len(sc.out), most)
	e := newEncoding(n)
	runes := runeIndex(text)
	for i := range n {
		k := &sc.out[i]
		e.IDs[i] = k.id
		if k.text != "" {
			e.Tokens[i] = k.text
		} else {
			e.Tokens[i], _ = t.Token(k.id)
		}
		e.TypeIDs[i] = int32(sequence)
		e.Words[i] = k.word
		e.Sequences[i] = int8(sequence)
		e.AttentionMask[i] = 1
		e.Runes[i] = runes.offset(k.at, len(text))
	}
	return e, nil
}

// AppendIDs appends the ids of text to dst, the fast way: no offsets, no limits, and no memory but dst's once warmed up. With special, the template's
// tokens are added. A text that Encode fails on, since the vocabulary lacks a part of it and an unknown token, has none.
func (t *Tokenizer) AppendIDs(dst []int32, text string, special bool) []int32 {
	if special {
		dst = append(dst, t.before...)
	}
	dst = t.appendText(dst, text, false)
	if special {
		dst = append(dst, t.after...)
	}
	return dst
}

// Fit shortens ids, as AppendIDs with special made them, to limit tokens as truncation does: the text loses its end, the template's tokens stay.
func (t *Tokenizer) Fit(ids []int32, limit int) ([]int32, error) {
	if len(ids) <= limit {
		return ids, nil
	}
	keep := limit - len(t.after)
	if n := len(t.before) + len(t.after); limit < n {
		return nil, fmt.Errorf("token: truncation to %d tokens leaves no room for the %d that the template adds", limit, n)
	}
	return append(ids[:keep], ids[len(ids)-len(t.after):]...), nil
}

// AppendPlainIDs is AppendIDs for texts of strangers: names of special tokens in it are plain text, and the template adds nothing.
func (t *Tokenizer) AppendPlainIDs(dst []int32, text string) []int32 {
	return t.appendText(dst, text, true)
}

func (t *Tokenizer) appendText(dst []int32, text string, asText bool) []int32 {
	sc := t.pool.get()
	defer t.pool.put(sc)
	if t.fast == nil {
		if err := t.run(sc, text, t.aligns, asText); err == nil {
			for i := range sc.out {
				dst = append(dst, sc.out[i].id)
			}
		}
		return dst
	}
	from := len(dst)
	err := t.begin(sc, text, false, asText)
	for i := range sc.pieces {
		if err != nil {
			return dst[:from]
		}
		if p := &sc.pieces[i]; p.id != noToken {
			dst = append(dst, p.id)
		} else {
			dst, err = t.fast(sc, dst, p.text)
		}
	}
	if err != nil {
		return dst[:from]
	}
	return dst
}

// VocabSize is the number of tokens, added ones included. Misspellings that are read as words (see Typos) are none.
func (t *Tokenizer) VocabSize() int {
	n := len(t.vocab.ids)
	for _, a := range t.added {
		if _, ok := t.vocab.ids[a.Content]; !ok {
			n++
		}
	}
	return n
}

// MaxID is the greatest id: an embedding table needs at least MaxID + 1 rows.
func (t *Tokenizer) MaxID() int32 {
	top := int32(len(t.vocab.names)) - 1
	for id := range t.vocab.far {
		top = max(top, id)
	}
	for _, a := range t.added {
		top = max(top, a.ID)
	}
	return top
}

// Token is the name of an id, and whether there is one.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if a, ok := t.addedByID[id]; ok {
		return a.name, true
	}
	return t.vocab.name(id)
}

// ID is the id of a token's name, and whether there is one.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if a, ok := t.addedByName[token]; ok {
		return a.ID, true
	}
	id, ok := t.vocab.ids[token]
	if w, piece := t.model.(*wordPiece); !ok && piece && w.typos != nil {
		return w.typos.read([]byte(token))
	}
	return id, ok
}

// AddedTokens lists the added tokens in the order of the file.
func (t *Tokenizer) AddedTokens() []AddedToken {
	out := make([]AddedToken, len(t.added))
	for i, a := range t.added {
		out[i] = *a
	}
	return out
}

// IsSpecial says whether Decode leaves id out when asked to skip special tokens.
func (t *Tokenizer) IsSpecial(id int32) bool {
	if t.llama != nil {
		return id >= 0 && int(id) < len(t.llama.types) && (t.llama.types[id] == ggufControl || t.llama.types[id] == ggufUnknown)
	}
	a, ok := t.addedByID[id]
	return ok && a.Special
}

// runes maps bytes of a text to code points; nil stands for ASCII, where they are the same.
type runes []int32

func runeIndex(text string) runes {
	ascii := true
	for i := 0; i < len(text); i++ {
		if text[i] >= utf8.RuneSelf {
			ascii = false
			break
		}
	}
	if ascii {
		return nil
	}
	m := make(runes, len(text))
	n := int32(-1)
	for i := 0; i < len(text); {
		n++
		_, size := utf8.DecodeRuneInString(text[i:])
		for ; size > 0; size-- {
			m[i] = n
			i++
		}
	}
	return m
}

// offset turns bytes into code points, as the original does it: an end inside a character counts as its beginning, and a range that begins past the end of
// the text stays as it is.
func (m runes) offset(at span, size int) Offset {
	if m == nil || int(at.lo) >= len(m) {
		return Offset{int(at.lo), int(at.hi)}
	}
	lo := int(m[at.lo])
	if int(at.hi) < len(m) {
		return Offset{lo, int(m[at.hi])}
	}
	if at.hi >= 1 && int(at.hi) <= len(m) {
		return Offset{lo, int(m[at.hi-1]) + 1}
	}
	return Offset{lo, lo + 2}
}

// locate fills Offsets from Runes.
func (e *Encoding) locate(texts []string) {
	var starts [2][]int // the first byte of each code point, and the end
	for i, text := range texts {
		if runeIndex(text) == nil {
			continue
		}
		for at := 0; at < len(text); {
			starts[i] = append(starts[i], at)
			_, n := utf8.DecodeRuneInString(text[at:])
			at += n
		}
		starts[i] = append(starts[i], len(text))
	}
	e.locateWith(texts, starts)
}

func (e *Encoding) locateWith(texts []string, starts [2][]int) {
	for i, r := range e.Runes {
		s := e.Sequences[i]
		if s < 0 {
			continue
		}
		top := len(texts[s])
		if m := starts[s]; m != nil {
			e.Offsets[i] = Offset{m[min(r.Start, len(m)-1)], m[min(r.End, len(m)-1)]}
			continue
		}
		e.Offsets[i] = Offset{min(r.Start, top), min(r.End, top)}
	}
	for i := range e.Overflowing {
		e.Overflowing[i].locateWith(texts, starts)
	}
}
