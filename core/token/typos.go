package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"unsafe"
)

// Typos are words of a WordPiece vocabulary whose misspellings are read as the word: each single edit (a letter swapped with its neighbour, replaced,
// left out or put in) that the vocabulary does not hold. For others the edits stand in tokenizer.json, millions of entries after its own; beside them,
// under "temper_typos" in the model, stands this, from which Load finds the reading of a word when it meets one, in a hundredth of the memory.
type Typos struct {
	// Words are of small Latin letters, at least three, with the id that each is read as. Counts weigh them: an edit that two words share is read
	// as that of the greater Counts times TypoShare, the first where they are equal.
	Words  []string  `json:"words"`
	IDs    []int32   `json:"ids"`
	Counts []float64 `json:"counts"`
	// Real are words, none of the vocabulary, that no misspelling is.
	Real []string `json:"real,omitempty"`

	once  sync.Once
	keys  []uint64 // hash of a word, or of one with a letter left out, above its number; sorted
	from  []int32  // where the keys begin, by the first typoBits of the hash
	real  map[string]struct{}
	least int // lengths of edits in bytes
	most  int
}

// TypoReading is what an edit is read as.
type TypoReading struct {
	ID    int32
	Score float64
}

// maxTypoWord bounds the words, as an index of every word with each letter left out grows with the square of their length.
const maxTypoWord = 32

func (t *Typos) validate(v *vocab) error {
	if len(t.Words) != len(t.IDs) || len(t.Words) != len(t.Counts) || len(t.Words) > math.MaxInt32 {
		return fmt.Errorf("%d words, %d ids, %d counts: expected as many of each", len(t.Words), len(t.IDs), len(t.Counts))
	}
	seen := make(map[string]struct{}, len(t.Words))
	for i, w := range t.Words {
		if len(w) < 3 || len(w) > maxTypoWord || !smallLetters(w) {
			return fmt.Errorf("word %.80q: expected 3 to %d letters from a to z", w, maxTypoWord)
		}
		if _, ok := seen[w]; ok {
			return fmt.Errorf("word %q twice", w)
		}
		seen[w] = struct{}{}
		if v != nil {
			if _, ok := v.name(t.IDs[i]); !ok {
				return fmt.Errorf("word %q: the vocabulary has no id %d", w, t.IDs[i])
			}
		}
	}
	return nil
}

func smallLetters(w string) bool {
	for i := range len(w) {
		if w[i] < 'a' || w[i] > 'z' {
			return false
		}
	}
	return true
}

// TypoShare is the share of one edit among all of a word of n letters, for edits of n+more letters: the four kinds of edit alike, and alike within a kind.
func TypoShare(n, more int, swap bool) float64 {
	l := float64(n)
	switch {
	case swap:
		return 1 / (4 * (l - 1))
	case more < 0:
		return 1 / (4 * l)
	case more == 0:
		return 1 / (4 * 26 * l)
	}
	return 1 / (4 * 26 * (l + 1))
}

// Table is what every edit is read as, those that the vocabulary holds among them.
func (t *Typos) Table() map[string]TypoReading {
	real := make(map[string]struct{}, len(t.Words)+len(t.Real))
	for _, w := range slices.Concat(t.Words, t.Real) {
		real[w] = struct{}{}
	}
	out := map[string]TypoReading{}
	for i, w := range t.Words {
		n := len(w)
		put := func(e string, share float64) {
			if _, ok := real[e]; ok || e == "" {
				return
			}
			if r, ok := out[e]; !ok || t.Counts[i]*share > r.Score {
				out[e] = TypoReading{t.IDs[i], t.Counts[i] * share}
			}
		}
		for at := range n {
			put(w[:at]+w[at+1:], TypoShare(n, -1, false))
			if at+1 < n {
				put(w[:at]+w[at+1:at+2]+w[at:at+1]+w[at+2:], TypoShare(n, 0, true))
			}
			for c := 'a'; c <= 'z'; c++ {
				put(w[:at]+string(c)+w[at+1:], TypoShare(n, 0, false))
			}
		}
		for at := range n + 1 {
			for c := 'a'; c <= 'z'; c++ {
				put(w[:at]+string(c)+w[at:], TypoShare(n, 1, false))
			}
		}
	}
	return out
}

// typoHash is FNV-1a over a word without the byte at skip (-1: all of it).
func typoHash(w []byte, skip int) uint64 {
	h := uint64(14695981039346656037)
	for i, c := range w {
		if i != skip {
			h = (h ^ uint64(c)) * 1099511628211
		}
	}
	return h >> 32 << 32
}

func (t *Typos) index() {
	t.real = make(map[string]struct{}, len(t.Real))
	for _, w := range t.Real {
		t.real[w] = struct{}{}
	}
	size := 0
	t.least = math.MaxInt
	for _, w := range t.Words {
		size += len(w) + 1
		t.least, t.most = min(t.least, len(w)-1), max(t.most, len(w)+1)
	}
	t.keys = make([]uint64, 0, size)
	for i, w := range t.Words {
		b := []byte(w)
		for skip := -1; skip < len(w); skip++ {
			if skip > 0 && w[skip] == w[skip-1] { // the same again
				continue
			}
			t.keys = append(t.keys, typoHash(b, skip)|uint64(uint32(i)))
		}
	}
	slices.Sort(t.keys)
	t.from = make([]int32, 1<<typoBits+1)
	at := 0
	for b := range t.from {
		for at < len(t.keys) && t.keys[at]>>(64-typoBits) < uint64(b) {
			at++
		}
		t.from[b] = int32(at)
	}
}

const typoBits = 14

// read finds the word that an edit is read as. It allocates nothing.
func (t *Typos) read(e []byte) (int32, bool) {
	t.once.Do(t.index)
	if len(e) < t.least || len(e) > t.most {
		return 0, false
	}
	for _, c := range e {
		if c < 'a' || c > 'z' {
			return 0, false
		}
	}
	if _, ok := t.real[string(e)]; ok {
		return 0, false
	}
	best, score := -1, 0.0
	for skip := -1; skip < len(e); skip++ {
		if skip > 0 && e[skip] == e[skip-1] {
			continue
		}
		h := typoHash(e, skip)
		b := h >> (64 - typoBits)
		at, _ := slices.BinarySearch(t.keys[t.from[b]:t.from[b+1]], h)
		for at += int(t.from[b]); at < len(t.keys) && t.keys[at]>>32 == h>>32; at++ {
			i := int(uint32(t.keys[at]))
			share, ok := typoOf(t.Words[i], e)
			if !ok {
				continue
			}
			if share == 0 { // the word itself
				return 0, false
			}
			if s := t.Counts[i] * share; best < 0 || s > score || s == score && i < best {
				best, score = i, s
			}
		}
	}
	if best < 0 {
		return 0, false
	}
	return t.IDs[best], true
}

// typoOf is the share of e among the edits of w; 0 when they are equal.
func typoOf(w string, e []byte) (float64, bool) {
	i := 0
	for i < len(w) && i < len(e) && w[i] == e[i] {
		i++
	}
	tail := func(a string, b []byte) bool { return a == unsafe.String(unsafe.SliceData(b), len(b)) }
	n := len(w)
	switch len(e) - n {
	case -1:
		return TypoShare(n, -1, false), tail(w[i+1:], e[i:])
	case 1:
		return TypoShare(n, 1, false), tail(w[i:], e[i+1:])
	case 0:
		if i == n {
			return 0, true
		}
		if tail(w[i+1:], e[i+1:]) {
			return TypoShare(n, 0, false), true
		}
		if i+1 < n && w[i] == e[i+1] && w[i+1] == e[i] && tail(w[i+2:], e[i+2:]) {
			return TypoShare(n, 0, true), true
		}
	}
	return 0, false
}

// typosField is what stands in the model of tokenizer.json: the words, and by what the entries that they stand for are known: the number of entries
// before them, their length as text and a sum of it.
type typosField struct {
	Entries int    `json:"entries"`
	Bytes   int    `json:"bytes"`
	Sum     uint32 `json:"sum"`
	*Typos
}

const typosName = "temper_typos"

// typoTail is the text of the entries after those of known: sorted, each after a comma.
func typoTail(table map[string]TypoReading, known func(string) bool) []byte {
	var names []string
	for e := range table {
		if !known(e) {
			names = append(names, e)
		}
	}
	slices.Sort(names)
	var b []byte
	for _, e := range names {
		b = fmt.Appendf(b, ",%q:%d", e, table[e].ID)
	}
	return b
}

// WithTypos adds the misspellings to a tokenizer.json whose model, and in it a WordPiece vocabulary, come last, as canon writes it. table is t.Table(),
// which callers have at hand.
func WithTypos(data []byte, t *Typos, table map[string]TypoReading) ([]byte, error) {
	if err := t.validate(nil); err != nil {
		return nil, fmt.Errorf("typos: %w", err)
	}
	vocab, model, end, err := lastVocab(data)
	if err != nil {
		return nil, fmt.Errorf("typos: %w", err)
	}
	// Words that the vocabulary holds are found there.
	real := slices.DeleteFunc(slices.Clone(t.Real), func(w string) bool { _, ok := vocab[w]; return ok })
	tail := typoTail(table, func(e string) bool { _, ok := vocab[e]; return ok })
	field, err := json.Marshal(typosField{len(vocab), len(tail), crc32.Checksum(tail, castagnoli), &Typos{Words: t.Words, IDs: t.IDs, Counts: t.Counts, Real: real}})
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(data)+len(tail)+len(field)+32)
	out = append(out, data[:model]...)
	out = fmt.Appendf(out, "%q:%s,", typosName, field)
	out = append(out, data[model:end]...)
	out = append(out, tail...)
	return append(out, data[end:]...), nil
}

// lastVocab finds the vocabulary that ends a tokenizer.json: its entries, the place of the model's first member and the place after the last entry.
func lastVocab(data []byte) (vocab map[string]int32, model, end int, err error) {
	wrong := errors.New("expected a tokenizer.json that ends in its model, which ends in its vocabulary")
	place := func(part []byte) int {
		return int(uintptr(unsafe.Pointer(unsafe.SliceData(part))) - uintptr(unsafe.Pointer(unsafe.SliceData(data))))
	}
	_, top, ok := apart(data, "model")
	if !ok || len(top["model"]) == 0 {
		return nil, 0, 0, wrong
	}
	_, parts, ok := apart(top["model"], "vocab")
	raw := parts["vocab"]
	if !ok || len(raw) == 0 {
		return nil, 0, 0, wrong
	}
	if err := json.Unmarshal(raw, &vocab); err != nil {
		return nil, 0, 0, fmt.Errorf("vocab: %w", err)
	}
	if end = place(raw) + lastEntry(raw); len(vocab) == 0 || end != lastEntry(data) {
		return nil, 0, 0, wrong
	}
	return vocab, place(top["model"]) + 1, end, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// lastEntry is the place after the last number of a file that ends in an object of numbers, and closing brackets.
func lastEntry(data []byte) int {
	return len(bytes.TrimRight(data, "} \t\r\n"))
}

// Strip leaves the misspellings that follow from "temper_typos" out of a tokenizer.json. Load reads the result as it reads the whole; other programs do
// not. It reports false, and returns data, when there are none, or when they, or the entries before them, are not those that belong there.
func Strip(data []byte) ([]byte, bool) {
	short, entries, ok := strip(data)
	if !ok {
		return data, false
	}
	if vocab, _, _, err := lastVocab(short); err != nil || len(vocab) != entries {
		return data, false
	}
	return short, true
}

// strip is Strip without a look at the entries before the misspellings, of which it returns the number that belongs there.
func strip(data []byte) (short []byte, entries int, ok bool) {
	at := bytes.Index(data, []byte(`"`+typosName+`":{"entries":`))
	if at < 0 {
		return nil, 0, false
	}
	var field struct {
		Entries, Bytes int
		Sum            uint32
	}
	head := data[at+len(typosName)+3:]
	comma := bytes.Index(head[:min(len(head), 200)], []byte(`,"words"`))
	if comma < 0 || json.Unmarshal(append(bytes.Clone(head[:comma]), '}'), &field) != nil {
		return nil, 0, false
	}
	end := lastEntry(data)
	from := end - field.Bytes
	if field.Bytes <= 0 || from <= at || crc32.Checksum(data[from:end], castagnoli) != field.Sum {
		return nil, 0, false
	}
	return slices.Concat(data[:from], data[end:]), field.Entries, true
}

// Expand puts back what Strip left out.
func Expand(data []byte) ([]byte, error) {
	var file struct {
		Model struct {
			Vocab map[string]int32 `json:"vocab"`
			Typos *typosField      `json:"temper_typos"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: %w", err)
	}
	f := file.Model.Typos
	if f == nil || f.Typos == nil || len(file.Model.Vocab) != f.Entries {
		return bytes.Clone(data), nil
	}
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("token: tokenizer.json: model: %s: %w (take the file of the folder that it comes from, or harden again)", typosName, err)
	}
	if err := f.validate(nil); err != nil {
		return fail(err)
	}
	vocab, _, end, err := lastVocab(data)
	if err != nil {
		return fail(err)
	}
	most := 0
	for _, w := range f.Words {
		most += (53*len(w) + 25) * (len(w) + 16) // edits, and what an entry takes
	}
	if f.Bytes < 0 || f.Bytes > most || most > maxTypoBytes {
		return fail(fmt.Errorf("%d words have no %d bytes of misspellings", len(f.Words), f.Bytes))
	}
	tail := typoTail(f.Table(), func(e string) bool { _, ok := vocab[e]; return ok })
	if len(tail) != f.Bytes || crc32.Checksum(tail, castagnoli) != f.Sum {
		return fail(errors.New("the words give other misspellings than the file was written with"))
	}
	return slices.Concat(data[:end], tail, data[end:]), nil
}

// maxTypoBytes bounds the misspellings of a file.
const maxTypoBytes = 1 << 29

// loadTypos reads the field of a model whose vocabulary lacks the misspellings; nil when it holds them.
func loadTypos(raw json.RawMessage, v *vocab) (*Typos, error) {
	if isNull(raw) {
		return nil, nil
	}
	var f typosField
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", typosName, err)
	}
	if len(v.ids) != f.Entries || f.Typos == nil {
		return nil, nil
	}
	if err := f.validate(v); err != nil {
		return nil, fmt.Errorf("%s: %w", typosName, err)
	}
	return f.Typos, nil
}
