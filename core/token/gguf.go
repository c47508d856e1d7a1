package token

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// GGUF is the vocabulary of a GGUF file, as plain values of its "tokenizer.ggml." keys. Ids that the file does not give are -1; flags that it does not give
// are nil.
type GGUF struct {
	Model  string // llama (SentencePiece BPE), gpt2 (byte-level BPE), bert (WordPiece) or t5 (Unigram)
	Pre    string // the pre-tokenizer of gpt2 vocabularies
	Tokens []string
	Scores []float32
	Types  []int32 // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
	Merges []string

	BOS, EOS, UNK, SEP, PAD, CLS, MASK, EOT int32

	AddBOS, AddEOS, AddSpacePrefix, RemoveExtraSpaces *bool
	Charsmap                                          []byte
}

// The token types of GGUF.
const (
	ggufNormal = 1 + iota
	ggufUnknown
	ggufControl
	ggufUser
	ggufUnused
	ggufByte
)

// GGUFFrom collects a vocabulary from metadata: value returns what a GGUF file says under a key, nil if nothing.
func GGUFFrom(value func(key string) any) (GGUF, error) {
	const prefix = "tokenizer.ggml."
	g := GGUF{BOS: -1, EOS: -1, UNK: -1, SEP: -1, PAD: -1, CLS: -1, MASK: -1, EOT: -1}
	var err error
	bad := func(key, want string, got any) {
		if err == nil {
			err = fmt.Errorf("token: %s%s: expected %s, got %T", prefix, key, want, got)
		}
	}
	read := func(key, want string, to func(v any) bool) {
		if v := value(prefix + key); v != nil && !to(v) {
			bad(key, want, v)
		}
	}
	str := func(key string, to *string) {
		read(key, "a string", func(v any) (ok bool) { *to, ok = v.(string); return ok })
	}
	id := func(key string, to *int32) {
		read(key, "an id", func(v any) bool {
			n, ok := integer(v)
			if ok && n >= 0 && n < 1<<31 {
				*to = int32(n)
			}
			// Files write 0xffffffff for none.
			return ok
		})
	}
	flag := func(key string, to **bool) {
		read(key, "a bool", func(v any) bool { b, ok := v.(bool); *to = &b; return ok })
	}
	str("model", &g.Model)
	str("pre", &g.Pre)
	read("tokens", "strings", func(v any) (ok bool) { g.Tokens, ok = v.([]string); return ok })
	read("scores", "floats", func(v any) (ok bool) { g.Scores, ok = v.([]float32); return ok })
	read("merges", "strings", func(v any) (ok bool) { g.Merges, ok = v.([]string); return ok })
	read("token_type", "integers", func(v any) bool {
		switch list := v.(type) {
		case []int32:
			g.Types = list
		case []uint32:
			for _, n := range list {
				g.Types = append(g.Types, int32(n))
			}
		default:
			return false
		}
		return true
	})
	read("precompiled_charsmap", "bytes", func(v any) bool {
		switch list := v.(type) {
		case []uint8:
			g.Charsmap = list
		case []int8:
			for _, n := range list {
				g.Charsmap = append(g.Charsmap, byte(n))
			}
		default:
			return false
		}
		return true
	})
	id("bos_token_id", &g.BOS)
	id("eos_token_id", &g.EOS)
	id("unknown_token_id", &g.UNK)
	id("seperator_token_id", &g.SEP) // so spelt in the format
	id("padding_token_id", &g.PAD)
	id("cls_token_id", &g.CLS)
	id("mask_token_id", &g.MASK)
	id("eot_token_id", &g.EOT)
	flag("add_bos_token", &g.AddBOS)
	flag("add_eos_token", &g.AddEOS)
	flag("add_space_prefix", &g.AddSpacePrefix)
	flag("remove_extra_whitespaces", &g.RemoveExtraSpaces)
	return g, err
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case uint8:
		return int64(n), true
	case int8:
		return int64(n), true
	case uint16:
		return int64(n), true
	case int16:
		return int64(n), true
	case uint32:
		return int64(n), true
	case int32:
		return int64(n), true
	case uint64:
		return int64(n), true
	case int64:
		return n, true
	case int:
		return int64(n), true
	}
	return 0, false
}

// controls are names whose tokens llama.cpp takes for control tokens whatever the file says, since they end a turn or a text.
var controls = []string{"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]",
	"<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|eom_id|>", "</s>"}

// FromGGUF makes the tokenizer that llama.cpp makes of the vocabulary. Names of control tokens in a text are recognised unless Options.SpecialAsText says
// otherwise; user-defined tokens always are.
func FromGGUF(g GGUF) (*Tokenizer, error) {
	n := len(g.Tokens)
	if n == 0 {
		return nil, fmt.Errorf("token: GGUF: the vocabulary is empty")
	}
	if g.Types != nil && len(g.Types) != n || g.Scores != nil && len(g.Scores) != n {
		return nil, fmt.Errorf("token: GGUF: %d tokens, %d types, %d scores: expected as many of each", n, len(g.Types), len(g.Scores))
	}
	for name, id := range map[string]int32{"bos": g.BOS, "eos": g.EOS, "unknown": g.UNK, "separator": g.SEP, "padding": g.PAD, "cls": g.CLS, "mask": g.MASK, "eot": g.EOT} {
		if int(id) >= n {
			return nil, fmt.Errorf("token: GGUF: %s token: expected an id below %d, got %d", name, n, id)
		}
	}
	t := &Tokenizer{llama: &llama{types: slices.Clone(g.Types), bos: g.BOS}}
	if t.llama.types == nil {
		t.llama.types = slices.Repeat([]int32{ggufNormal}, n)
	}
	ids := make(map[string]int32, n)
	for id, name := range g.Tokens {
		ids[name] = int32(id)
	}
	for _, name := range controls {
		if id, ok := ids[name]; ok {
			t.llama.types[id] = ggufControl
		}
	}
	t.vocab = &vocab{ids: ids, names: slices.Clone(g.Tokens), far: map[int32]string{}}
	addBOS, addEOS := false, false
	var err error
	switch g.Model {
	case "llama":
		addBOS = true
		err = t.spmOf(g)
	case "gpt2":
		addBOS, err = t.gpt2Of(g)
	case "bert":
		addBOS, addEOS = true, true
		err = t.bertOf(&g)
	case "t5":
		addEOS = true
		err = t.t5Of(g)
	default:
		err = fmt.Errorf("tokenizer.ggml.model: expected llama, gpt2, bert or t5, got %q", g.Model)
	}
	if err != nil {
		return nil, fmt.Errorf("token: GGUF: %w", err)
	}
	if g.AddBOS != nil {
		addBOS = *g.AddBOS
	}
	if g.AddEOS != nil {
		addEOS = *g.AddEOS
	}
	t.llama.index(t.vocab.names)
	t.addLlamaTemplate(g, addBOS, addEOS)
	t.indexAdded()
	t.finish()
	for _, s := range []struct {
		to *int32
		id int32
	}{{&t.special.BOS, g.BOS}, {&t.special.EOS, g.EOS}, {&t.special.UNK, g.UNK}, {&t.special.SEP, g.SEP}, {&t.special.PAD, g.PAD}, {&t.special.CLS, g.CLS}, {&t.special.MASK, g.MASK}} {
		if s.id >= 0 {
			*s.to = s.id
		}
	}
	return t, nil
}

func (t *Tokenizer) addLlamaTemplate(g GGUF, addBOS, addEOS bool) {
	special := func(id int32, typeID int32) templatePiece {
		return templatePiece{ids: []int32{id}, tokens: []string{t.vocab.names[id]}, typeID: typeID}
	}
	p := &template{}
	first, last := g.BOS, g.EOS
	if g.Model == "bert" {
		if first < 0 {
			first = g.CLS
		}
		if g.SEP >= 0 {
			last = g.SEP
		}
	}
	second := templatePiece{sequence: 1}
	if g.Model == "bert" {
		second.typeID = 1
	}
	if addBOS && first >= 0 {
		p.single = append(p.single, special(first, 0))
	}
	p.single = append(p.single, templatePiece{})
	p.pair = slices.Clone(p.single)
	if addEOS && last >= 0 {
		p.single = append(p.single, special(last, 0))
		if g.Model == "bert" {
			p.pair = append(p.pair, special(last, 0))
		}
		p.pair = append(p.pair, second, special(last, second.typeID))
	} else {
		p.pair = append(p.pair, second)
	}
	t.post = []postProcessor{p}
}

// llama holds what llama.cpp's way of finding special tokens needs.
type llama struct {
	types   []int32
	bos     int32
	finder  *matcher // special tokens, all of them
	pieces  bool     // names hold marks for spaces and <0x..> for bytes, as SentencePiece writes them
	letters bool     // names hold letters for bytes
	prefix  bool     // a space stands before each text
}

func (l *llama) index(names []string) {
	var all []*AddedToken
	for id, kind := range l.types {
		if kind == ggufControl || kind == ggufUser || kind == ggufUnknown {
			all = append(all, &AddedToken{ID: int32(id), Content: names[id], Special: kind != ggufUser})
		}
	}
	l.finder = newMatcher(all, func(a *AddedToken) []byte { return []byte(a.Content) })
}

// hit is a special token found in a text.
type hit struct {
	at, n int
	token *AddedToken
}

// extract cuts a at special tokens: long ones first, wherever they stand, then shorter ones in what is left.
func (l *llama) extract(sc *scratch, a *aligned, dst []piece, asText bool) []piece {
	hits := sc.hits[:0]
	for i, c := range a.text {
		if !l.finder.begins[c] {
			continue
		}
		lo, hi := int(l.finder.from[c]), int(l.finder.to[c])
		for k := 1; lo < hi; k++ {
			if len(l.finder.patterns[lo]) == k {
				if t := l.finder.tokens[lo]; !asText || !t.Special {
					hits = append(hits, hit{i, k, t})
				}
				lo++
			}
			if i+k == len(a.text) || lo == hi {
				break
			}
			lo, hi = l.finder.narrow(lo, hi, k, a.text[i+k])
		}
	}
	sc.hits = hits
	if len(hits) == 0 {
		return a.part(dst, 0, len(a.text))
	}
	slices.SortFunc(hits, func(x, y hit) int {
		return cmp.Or(cmp.Compare(y.n, x.n), cmp.Compare(x.token.ID, y.token.ID), cmp.Compare(x.at, y.at))
	})
	taken := append(sc.taken[:0], make([]bool, len(a.text))...)
	sc.taken = taken
	kept := hits[:0]
	for _, h := range hits {
		// Longer ones are in place already, so an overlap shows at an end.
		if taken[h.at] || taken[h.at+h.n-1] {
			continue
		}
		for i := h.at; i < h.at+h.n; i++ {
			taken[i] = true
		}
		kept = append(kept, h)
	}
	slices.SortFunc(kept, func(x, y hit) int { return cmp.Compare(x.at, y.at) })
	done := 0
	for _, h := range kept {
		dst = a.part(dst, done, h.at)
		dst = append(dst, piece{aligned: a.slice(h.at, h.at+h.n), id: h.token.ID})
		done = h.at + h.n
	}
	return a.part(dst, done, len(a.text))
}

// decode is llama.cpp's detokenizer: control tokens are shown by name unless they are skipped.
func (l *llama) decode(t *Tokenizer, ids []int32, skip bool) string {
	var out []byte
	trim := l.prefix
	if skip && len(ids) > 0 && ids[0] == l.bos && l.bos >= 0 {
		trim = false
	}
	for _, id := range ids {
		if id < 0 || int(id) >= len(l.types) {
			continue
		}
		name := t.vocab.names[id]
		from := len(out)
		switch l.types[id] {
		case ggufControl, ggufUnknown:
			if !skip {
				out = append(out, name...)
			}
			continue
		case ggufUser:
			out = append(out, name...)
			continue
		case ggufByte:
			if b, ok := fallbackByte(name); ok {
				out = append(out, b)
				trim = false
				continue
			}
		}
		switch {
		case l.letters:
			out = appendBytes(out, name)
		case l.pieces:
			out = append(out, strings.ReplaceAll(name, metaMark, " ")...)
		default:
			out = append(out, name...)
		}
		if trim && from < len(out) && out[from] == ' ' {
			out = append(out[:from], out[from+1:]...)
		}
		trim = false
	}
	return lossy(out)
}

// spacePrefix puts a space before each piece of text and writes spaces as marks.
type spacePrefix struct {
	prefix bool
	marks  *replacer
}

func marksFor(mark string) *replacer { return &replacer{find: literalFinder{" "}, content: mark} }

func (p spacePrefix) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	in := *a
	if p.prefix {
		in.prepend(sc, " ")
	}
	p.marks.normalize(sc, &in)
	return in.part(dst, 0, len(in.text)), nil
}

func (t *Tokenizer) spmOf(g GGUF) error {
	if g.Scores == nil {
		return fmt.Errorf("a llama vocabulary needs tokenizer.ggml.scores")
	}
	t.llama.pieces = true
	t.llama.prefix = g.AddSpacePrefix == nil || *g.AddSpacePrefix
	t.pre = []preTokenizer{spacePrefix{t.llama.prefix, marksFor(metaMark)}}
	t.model = newSPM(t.vocab, g.Scores, g.UNK)
	return nil
}

func (t *Tokenizer) gpt2Of(g GGUF) (addBOS bool, err error) {
	if g.Merges == nil {
		return false, fmt.Errorf("a gpt2 vocabulary needs tokenizer.ggml.merges")
	}
	t.llama.letters = true
	how, err := preTokenizerOf(g.Pre)
	if err != nil {
		return false, err
	}
	for _, pattern := range how.patterns {
		f, err := compile(pattern)
		if err != nil {
			return false, err
		}
		t.pre = append(t.pre, patternSplit{finder: f, how: isolated})
	}
	t.pre = append(t.pre, byteLevel{})
	merges, err := parseMerges(g.Merges)
	if err != nil {
		return false, err
	}
	// A merge whose parts or result are not tokens can never lead to a token.
	kept := merges[:0]
	for _, m := range merges {
		_, a := t.vocab.ids[m[0]]
		_, b := t.vocab.ids[m[1]]
		_, c := t.vocab.ids[m[0]+m[1]]
		if a && b && c {
			kept = append(kept, m)
		}
	}
	t.model, err = newBPE(t.vocab, kept, bpe{ignoreMerges: how.ignoreMerges})
	return how.addBOS, err
}

func (t *Tokenizer) bertOf(g *GGUF) error {
	// The format marks beginnings of words where BERT's own files mark the pieces that continue one.
	ids := make(map[string]int32, len(g.Tokens))
	names := make([]string, len(g.Tokens))
	for id, name := range g.Tokens {
		switch kind := t.llama.types[id]; {
		case strings.HasPrefix(name, metaMark):
			name = name[len(metaMark):]
		case kind == ggufNormal && !(strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]")):
			name = "##" + name
		}
		ids[name], names[id] = int32(id), name
	}
	t.vocab = &vocab{ids: ids, names: names, far: map[int32]string{}}
	unk := "[UNK]"
	if g.UNK >= 0 {
		unk = names[g.UNK]
	}
	if g.BOS < 0 {
		if id, ok := ids["[CLS]"]; ok {
			g.BOS = id
		}
	}
	if g.SEP < 0 {
		if id, ok := ids["[SEP]"]; ok {
			g.SEP = id
		}
	}
	t.normalizer = &bertNormalizer{clean: true, chinese: true, strip: true, lower: true}
	t.pre = []preTokenizer{bertPreTokenizer{}}
	t.model = newWordPiece(t.vocab, unk, "##", 1<<30)
	t.decoder = wordPieceDecoder{prefix: "##", cleanup: true}
	return nil
}

func (t *Tokenizer) t5Of(g GGUF) error {
	if g.Scores == nil {
		return fmt.Errorf("a t5 vocabulary needs tokenizer.ggml.scores")
	}
	scores := make([]float64, len(g.Scores))
	for i, s := range g.Scores {
		scores[i] = float64(s)
	}
	u, err := newUnigram(slices.Clone(g.Tokens), scores, g.UNK, false)
	if err != nil {
		return err
	}
	t.model, t.vocab = u, u.vocab
	var all normalizers
	if len(g.Charsmap) > 0 {
		m, err := newCharsmap(g.Charsmap)
		if err != nil {
			return err
		}
		all = append(all, m)
	}
	if g.RemoveExtraSpaces == nil || *g.RemoveExtraSpaces {
		spaces, err := loadReplacer(json.RawMessage(`{"Regex":" {2,}"}`), " ")
		if err != nil {
			return err
		}
		all = append(all, stripNormalizer{true, true}, spaces)
	}
	t.normalizer = all
	when := always
	if g.AddSpacePrefix != nil && !*g.AddSpacePrefix {
		when = never
	}
	t.pre = []preTokenizer{metaspace{mark: metaMark, when: when, marks: marksFor(metaMark)}}
	t.decoder = metaspaceDecoder{mark: metaMark, never: when == never}
	return nil
}
