package token

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// TrainOptions of the vocabulary trainers.
type TrainOptions struct {
	// VocabSize is the number of tokens wanted, special ones included (default 30000). Fewer come when the text gives no more.
	VocabSize int
	// MinCount leaves out pairs seen fewer times (default 2).
	MinCount int
	// Lowercase folds case and strips accents.
	Lowercase bool
	// Alphabet is the largest number of different characters kept, the most frequent ones (default 1000).
	Alphabet int
	// Special tokens in the order of their ids (default: the five of BERT).
	Special []string
}

// TrainWordPiece learns a WordPiece vocabulary: the most frequent pair of neighbouring pieces is joined again and again (Sennrich et al.,
// 2016; what the tokenizers library's WordPiece trainer does), beginning from characters, so that every word of known characters has
// pieces. Among equally frequent pairs the smaller one in byte order comes first: the same texts give the same vocabulary.
func TrainWordPiece(texts iter.Seq[string], o TrainOptions) (*Tokenizer, error) {
	o.VocabSize, o.MinCount, o.Alphabet = cmp.Or(o.VocabSize, 30000), cmp.Or(o.MinCount, 2), cmp.Or(o.Alphabet, 1000)
	if o.Special == nil {
		o.Special = []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	}
	for _, need := range []string{"[UNK]", "[CLS]", "[SEP]"} {
		if !slices.Contains(o.Special, need) {
			return nil, fmt.Errorf("token: train: the special tokens %v lack %s", o.Special, need)
		}
	}
	counts := map[string]int{}
	for t := range texts {
		for w := range bertWords(t, o.Lowercase) {
			counts[w]++
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("token: train: the texts hold no words")
	}
	vocab := slices.Clone(o.Special)
	vocab = append(vocab, joinPairs(counts, o, len(vocab))...)
	raw, err := wordPieceJSON(vocab, o)
	if err != nil {
		return nil, fmt.Errorf("token: train: %w", err)
	}
	return Load(raw)
}

// bertWords cuts a text as BERT's normalizer and pre-tokenizer do.
func bertWords(text string, lower bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		if lower {
			text = norm.NFD.String(text)
		}
		var w []rune
		flush := func() bool {
			if len(w) == 0 {
				return true
			}
			word := string(w)
			w = w[:0]
			return yield(word)
		}
		for _, r := range text {
			switch {
			case r == 0 || r == unicode.ReplacementChar || isControl(r) || lower && isAccent(r):
			case isSpace(r):
				if !flush() {
					return
				}
			case isPunctuation(r) || isChinese(r):
				if !flush() || !yield(string(r)) {
					return
				}
			default:
				if lower {
					r = unicode.ToLower(r)
				}
				w = append(w, r)
			}
		}
		flush()
	}
}

const continuing = "##"

// pair is two neighbouring pieces, by number.
type pair struct{ a, b int32 }

// queued is a pair with the count it had when it was queued.
type queued struct {
	pair
	n int
}

type pairQueue struct {
	q     []queued
	names []string
}

func (h *pairQueue) Len() int { return len(h.q) }
func (h *pairQueue) Less(i, j int) bool {
	x, y := h.q[i], h.q[j]
	if x.n != y.n {
		return x.n > y.n
	}
	if x.a != y.a {
		return h.names[x.a] < h.names[y.a]
	}
	return h.names[x.b] < h.names[y.b]
}
func (h *pairQueue) Swap(i, j int) { h.q[i], h.q[j] = h.q[j], h.q[i] }
func (h *pairQueue) Push(x any)    { h.q = append(h.q, x.(queued)) }
func (h *pairQueue) Pop() any {
	x := h.q[len(h.q)-1]
	h.q = h.q[:len(h.q)-1]
	return x
}

// joinPairs returns the alphabet and the joined pieces, in the order in which they were made.
func joinPairs(counts map[string]int, o TrainOptions, taken int) []string {
	letters := map[string]int{}
	type word struct {
		pieces []int32
		n      int
	}
	order := make([]string, 0, len(counts))
	for w := range counts {
		order = append(order, w)
	}
	slices.Sort(order)
	split := func(w string) []string {
		var out []string
		for i, r := range w {
			p := string(r)
			if i > 0 {
				p = continuing + p
			}
			out = append(out, p)
		}
		return out
	}
	for _, w := range order {
		for _, p := range split(w) {
			letters[p] += counts[w]
		}
	}
	names := make([]string, 0, len(letters))
	for p := range letters {
		names = append(names, p)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(letters[b]-letters[a], strings.Compare(a, b)) })
	names = names[:min(len(names), o.Alphabet, max(0, o.VocabSize-taken))]
	slices.Sort(names)
	ids := make(map[string]int32, len(names))
	for i, p := range names {
		ids[p] = int32(i)
	}
	var words []word
next:
	for _, w := range order {
		var ps []int32
		for _, p := range split(w) {
			id, ok := ids[p]
			if !ok {
				continue next
			}
			ps = append(ps, id)
		}
		words = append(words, word{ps, counts[w]})
	}
	tally := map[pair]int{}
	where := map[pair][]int32{}
	note := func(p pair, w int32) {
		if at := where[p]; len(at) == 0 || at[len(at)-1] != w {
			where[p] = append(at, w)
		}
	}
	for i, w := range words {
		for j := 1; j < len(w.pieces); j++ {
			p := pair{w.pieces[j-1], w.pieces[j]}
			tally[p] += w.n
			note(p, int32(i))
		}
	}
	h := &pairQueue{names: names}
	for p, n := range tally {
		h.q = append(h.q, queued{p, n})
	}
	heap.Init(h)
	for len(h.names)+taken < o.VocabSize && h.Len() > 0 {
		top := heap.Pop(h).(queued)
		if n := tally[top.pair]; n != top.n { // out of date
			if n > 0 {
				heap.Push(h, queued{top.pair, n})
			}
			continue
		}
		if top.n < o.MinCount {
			break
		}
		name := h.names[top.a] + strings.TrimPrefix(h.names[top.b], continuing)
		id, known := ids[name]
		if !known {
			id = int32(len(h.names))
			ids[name] = id
			h.names = append(h.names, name)
		}
		grown := map[pair]bool{}
		for _, wi := range where[top.pair] {
			w := &words[wi]
			for j := 1; j < len(w.pieces); j++ {
				tally[pair{w.pieces[j-1], w.pieces[j]}] -= w.n
			}
			out := w.pieces[:0]
			for j := 0; j < len(w.pieces); j++ {
				if j+1 < len(w.pieces) && w.pieces[j] == top.a && w.pieces[j+1] == top.b {
					out = append(out, id)
					j++
				} else {
					out = append(out, w.pieces[j])
				}
			}
			w.pieces = out
			for j := 1; j < len(out); j++ {
				p := pair{out[j-1], out[j]}
				tally[p] += w.n
				if p.a == id || p.b == id {
					grown[p] = true
					note(p, wi)
				}
			}
		}
		delete(where, top.pair)
		for p := range grown {
			heap.Push(h, queued{p, tally[p]})
		}
	}
	return h.names
}

// wordPieceJSON is the tokenizer.json of a BERT tokenizer over vocab.
func wordPieceJSON(vocab []string, o TrainOptions) ([]byte, error) {
	ids := make(map[string]int, len(vocab))
	for i, t := range vocab {
		ids[t] = i
	}
	type added struct {
		ID         int    `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		Lstrip     bool   `json:"lstrip"`
		Rstrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
	var extra []added
	for _, s := range o.Special {
		extra = append(extra, added{ID: ids[s], Content: s, Special: true})
	}
	type dict map[string]any
	special := func(name string) dict {
		return dict{"id": name, "ids": []int{ids[name]}, "tokens": []string{name}}
	}
	tok := func(name string, typ int) dict { return dict{"SpecialToken": dict{"id": name, "type_id": typ}} }
	seq := func(name string, typ int) dict { return dict{"Sequence": dict{"id": name, "type_id": typ}} }
	return json.Marshal(dict{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": extra,
		"normalizer":    dict{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": o.Lowercase},
		"pre_tokenizer": dict{"type": "BertPreTokenizer"},
		"post_processor": dict{"type": "TemplateProcessing",
			"single":         []dict{tok("[CLS]", 0), seq("A", 0), tok("[SEP]", 0)},
			"pair":           []dict{tok("[CLS]", 0), seq("A", 0), tok("[SEP]", 0), seq("B", 1), tok("[SEP]", 1)},
			"special_tokens": dict{"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
		"decoder": dict{"type": "WordPiece", "prefix": continuing, "cleanup": true},
		"model":   dict{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": continuing, "max_input_chars_per_word": 100, "vocab": ids},
	})
}
