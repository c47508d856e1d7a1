package token

import (
	"cmp"
	"container/heap"
	"fmt"
	"iter"
	"maps"
	"slices"

	"golang.org/x/text/unicode/norm"
)

// TrainBPE learns a byte-level BPE vocabulary, GPT-2's kind: any text has tokens and comes back byte for byte. Ids are the special tokens, the 256 bytes and
// the joined pairs, in that order; of equally frequent pairs the one of the lesser ids goes first, so that the same texts give the same vocabulary. Of the
// options Lowercase folds case, and Alphabet does not matter. Special defaults to <|endoftext|>; with <s> and </s> the template is RoBERTa's.
func TrainBPE(texts iter.Seq[string], o TrainOptions) (*Tokenizer, error) {
	o.VocabSize, o.MinCount = cmp.Or(o.VocabSize, 30000), cmp.Or(o.MinCount, 2)
	if o.Special == nil {
		o.Special = []string{"<|endoftext|>"}
	}
	if o.VocabSize < 256+len(o.Special) {
		return nil, fmt.Errorf("token: train: a vocabulary of %d: expected at least the 256 bytes and %d special tokens", o.VocabSize, len(o.Special))
	}
	counts := map[string]int{}
	sc := &scratch{}
	for text := range texts {
		if o.Lowercase {
			sc.reset()
			a := newAligned(sc, text, false)
			nfc(sc, &a)
			lowercase(sc, &a)
			text = string(a.text)
		}
		b := []byte(text)
		for lo := 0; lo < len(b); {
			hi := scanGPT2(b, lo)
			counts[string(b[lo:hi])]++
			lo = hi
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("token: train: the texts hold no words")
	}
	// Ids of bytes go by their letters.
	letters := byteLetter
	slices.Sort(letters[:])
	names := slices.Clone(o.Special)
	var byteID [256]int32
	for _, r := range letters {
		b, _ := letterByte(r)
		byteID[b] = int32(len(names))
		names = append(names, string(r))
	}
	words := make([]counted, 0, len(counts))
	for _, w := range slices.Sorted(maps.Keys(counts)) {
		ids := make([]int32, len(w))
		for i := range len(w) {
			ids[i] = byteID[w[i]]
		}
		words = append(words, counted{ids, counts[w]})
	}
	names, merges := joinBytes(names, words, o)
	ids := make(map[string]int, len(names))
	for i, n := range names {
		ids[n] = i
	}
	var added []any
	for i, s := range o.Special {
		added = append(added, addedJSON(i, s, true))
	}
	file := fileJSON(added)
	if o.Lowercase {
		file["normalizer"] = object{"type": "Sequence", "normalizers": []any{object{"type": "NFC"}, object{"type": "Lowercase"}}}
	}
	file["pre_tokenizer"] = object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	file["decoder"] = file["pre_tokenizer"]
	file["post_processor"] = object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}
	if cls, sep := slices.Index(o.Special, "<s>"), slices.Index(o.Special, "</s>"); cls >= 0 && sep >= 0 {
		file["post_processor"] = object{"type": "RobertaProcessing", "sep": []any{"</s>", sep}, "cls": []any{"<s>", cls}, "trim_offsets": true, "add_prefix_space": false}
	}
	file["model"] = bpeJSON(ids, merges)
	return build(file)
}

// counted is a word as pieces, and how often it was seen.
type counted struct {
	pieces []int32
	n      int
}

// idQueue orders pairs by count, then by ids.
type idQueue []queued

func (h idQueue) Len() int { return len(h) }
func (h idQueue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[j].n, h[i].n), cmp.Compare(h[i].a, h[j].a), cmp.Compare(h[i].b, h[j].b)) < 0
}
func (h idQueue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *idQueue) Push(x any)   { *h = append(*h, x.(queued)) }
func (h *idQueue) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// joinBytes joins the most frequent pair again and again, and returns all names and the merges.
func joinBytes(names []string, words []counted, o TrainOptions) ([]string, [][2]string) {
	ids := make(map[string]int32, len(names))
	for i, n := range names {
		ids[n] = int32(i)
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
	h := &idQueue{}
	for p, n := range tally {
		*h = append(*h, queued{p, n})
	}
	heap.Init(h)
	var merges [][2]string
	for len(names) < o.VocabSize && h.Len() > 0 {
		top := heap.Pop(h).(queued)
		if n := tally[top.pair]; n != top.n {
			if n > 0 {
				heap.Push(h, queued{top.pair, n})
			}
			continue
		}
		if top.n < o.MinCount {
			break
		}
		merges = append(merges, [2]string{names[top.a], names[top.b]})
		name := names[top.a] + names[top.b]
		id, known := ids[name]
		if !known {
			id = int32(len(names))
			ids[name] = id
			names = append(names, name)
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
	return names, merges
}

// metaWords cuts a text into words that begin with a mark, as Unigram vocabularies have them.
func metaWords(text string, lower bool, yield func(string)) {
	text = norm.NFKC.String(text)
	sc := &scratch{}
	a := newAligned(sc, text, false)
	if lower {
		lowercase(sc, &a)
	}
	lo := -1
	for i, r := range string(a.text) {
		switch {
		case isSpace(r):
			if lo >= 0 {
				yield(metaMark + string(a.text[lo:i]))
			}
			lo = -1
		case lo < 0:
			lo = i
		}
	}
	if lo >= 0 {
		yield(metaMark + string(a.text[lo:]))
	}
}
