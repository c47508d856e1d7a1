package token

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"unicode/utf8"
)

// Settings of the Unigram trainer, those of SentencePiece.
const (
	maxPieceRunes = 16   // longest piece
	seedsPerPiece = 10   // candidates to begin with, for each piece wanted
	keepShare     = 0.75 // of the pieces survive a round of pruning
	emSteps       = 2    // of expectation and maximisation between prunings
	maxWordBytes  = 256  // longer words are left out of the training
	rareExpected  = 0.5  // pieces expected fewer times are dropped
	maxWords      = 200_000
)

// TrainUnigram learns a Unigram vocabulary (Kudo 2018): from all frequent parts of words, those whose loss would hurt the likelihood of the texts least are
// dropped round by round, with expectation maximisation between the rounds. Every character that was seen stays a piece (of the Alphabet most frequent ones).
// The same texts give the same vocabulary. Special defaults to <pad>, </s> and <unk> with T5's template; with [CLS] and [SEP] the template is BERT's, and the
// unknown token is the one called <unk> or [UNK].
func TrainUnigram(texts iter.Seq[string], o TrainOptions) (*Tokenizer, error) {
	o.VocabSize, o.MinCount, o.Alphabet = cmp.Or(o.VocabSize, 30000), cmp.Or(o.MinCount, 2), cmp.Or(o.Alphabet, 1000)
	if o.Special == nil {
		o.Special = []string{"<pad>", "</s>", "<unk>"}
	}
	unk := max(slices.Index(o.Special, "<unk>"), slices.Index(o.Special, "[UNK]"))
	if unk < 0 {
		return nil, fmt.Errorf("token: train: the special tokens %v lack <unk> and [UNK]", o.Special)
	}
	counts := map[string]int{}
	for text := range texts {
		metaWords(text, o.Lowercase, func(w string) {
			if len(w) <= maxWordBytes {
				counts[w]++
			}
		})
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("token: train: the texts hold no words")
	}
	t := &unigramTrainer{want: o.VocabSize - len(o.Special)}
	// Memory goes with the number of different words; beyond the most frequent ones they are names and typing errors.
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	words = words[:min(len(words), maxWords)]
	slices.Sort(words)
	for _, w := range words {
		t.words = append(t.words, w)
		t.counts = append(t.counts, float64(counts[w]))
	}
	t.seed(o)
	if t.want < t.letters {
		return nil, fmt.Errorf("token: train: a vocabulary of %d: expected room for %d characters and %d special tokens", o.VocabSize, t.letters, len(o.Special))
	}
	for {
		for range emSteps {
			t.step()
		}
		if len(t.pieces) <= t.want {
			break
		}
		t.prune()
	}
	vocab := make([]any, 0, o.VocabSize)
	var added []any
	for i, s := range o.Special {
		vocab = append(vocab, []any{s, 0.0})
		added = append(added, addedJSON(i, s, true))
	}
	slices.SortStableFunc(t.pieces, func(a, b candidatePiece) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.text, b.text))
	})
	for _, p := range t.pieces {
		vocab = append(vocab, []any{p.text, p.score})
	}
	file := fileJSON(added)
	file["normalizer"] = object{"type": "NFKC"}
	if o.Lowercase {
		file["normalizer"] = object{"type": "Sequence", "normalizers": []any{object{"type": "NFKC"}, object{"type": "Lowercase"}}}
	}
	meta := object{"type": "Metaspace", "replacement": metaMark, "prepend_scheme": "always", "split": true}
	file["pre_tokenizer"] = object{"type": "Sequence", "pretokenizers": []any{object{"type": "WhitespaceSplit"}, meta}}
	file["decoder"] = meta
	end, cls, sep := slices.Index(o.Special, "</s>"), slices.Index(o.Special, "[CLS]"), slices.Index(o.Special, "[SEP]")
	switch {
	case cls >= 0 && sep >= 0:
		file["post_processor"] = bertTemplate(cls, sep)
	case end >= 0:
		eos := object{"SpecialToken": object{"id": "</s>", "type_id": 0}}
		text := func(name string) object { return object{"Sequence": object{"id": name, "type_id": 0}} }
		file["post_processor"] = object{"type": "TemplateProcessing", "single": []any{text("A"), eos}, "pair": []any{text("A"), eos, text("B"), eos},
			"special_tokens": object{"</s>": object{"id": "</s>", "ids": []int{end}, "tokens": []string{"</s>"}}}}
	}
	file["model"] = object{"type": "Unigram", "unk_id": unk, "byte_fallback": false, "vocab": vocab}
	return build(file)
}

// candidatePiece is a piece with its log-probability. Characters are never dropped.
type candidatePiece struct {
	text   string
	score  float64
	letter bool
}

type unigramTrainer struct {
	words   []string
	counts  []float64
	pieces  []candidatePiece
	letters int
	want    int
}

// seed takes all parts of words that were seen MinCount times, those that cover most text first.
func (t *unigramTrainer) seed(o TrainOptions) {
	letters := map[string]int{}
	for i, w := range t.words {
		for _, r := range w {
			letters[string(r)] += int(t.counts[i])
		}
	}
	known := slices.SortedFunc(maps.Keys(letters), func(a, b string) int { return cmp.Or(letters[b]-letters[a], cmp.Compare(a, b)) })
	known = known[:min(len(known), o.Alphabet)]
	keep := map[string]bool{}
	for _, c := range known {
		keep[c] = true
	}
	// Words with other characters teach nothing: they become unknown tokens.
	var words []string
	var counts []float64
	parts := map[string]int{}
next:
	for i, w := range t.words {
		for _, r := range w {
			if !keep[string(r)] {
				continue next
			}
		}
		words, counts = append(words, w), append(counts, t.counts[i])
		for lo := 0; lo < len(w); {
			_, n := utf8.DecodeRuneInString(w[lo:])
			hi := lo + n
			for runes := 2; hi < len(w) && runes <= maxPieceRunes; runes++ {
				_, m := utf8.DecodeRuneInString(w[hi:])
				hi += m
				parts[w[lo:hi]] += int(t.counts[i])
			}
			lo += n
		}
	}
	t.words, t.counts = words, counts
	weight := func(s string) int { return parts[s] * utf8.RuneCountInString(s) }
	var list []string
	for s, n := range parts {
		if n >= o.MinCount {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(weight(b)-weight(a), cmp.Compare(a, b)) })
	list = list[:min(len(list), seedsPerPiece*o.VocabSize)]
	total := 0.0
	for _, c := range known {
		t.pieces = append(t.pieces, candidatePiece{c, float64(letters[c]), true})
		total += float64(letters[c])
	}
	t.letters = len(known)
	for _, s := range list {
		t.pieces = append(t.pieces, candidatePiece{s, float64(weight(s)), false})
		total += float64(weight(s))
	}
	for i := range t.pieces {
		t.pieces[i].score = math.Log(t.pieces[i].score) - math.Log(total)
	}
}

func (t *unigramTrainer) trie() *trie {
	names, ids := make([]string, len(t.pieces)), make([]int32, len(t.pieces))
	for i, p := range t.pieces {
		names[i], ids[i] = p.text, int32(i)
	}
	return newTrie(names, ids)
}

// arc is a piece in a word, from byte lo to byte hi.
type arc struct{ lo, hi, id int32 }

// arcs lists all pieces in a word, by where they begin.
func arcs(dst []arc, tr *trie, w string) []arc {
	for lo := 0; lo < len(w); lo++ {
		if !utf8.RuneStart(w[lo]) {
			continue
		}
		at := int32(0)
		for i := lo; i < len(w); i++ {
			if at = tr.child(at, w[i]); at < 0 {
				break
			}
			if id := tr.nodes[at].id; id >= 0 {
				dst = append(dst, arc{int32(lo), int32(i + 1), id})
			}
		}
	}
	return dst
}

// step is one round of expectation maximisation, with the Bayesian update of SentencePiece, which thins out rare pieces.
func (t *unigramTrainer) step() {
	tr := t.trie()
	expected := make([]float64, len(t.pieces))
	var list []arc
	var fore, back []float64
	for i, w := range t.words {
		list = arcs(list[:0], tr, w)
		fore, back = lattice(list, t.pieces, len(w), fore, back)
		all := fore[len(w)]
		if math.IsInf(all, -1) {
			continue
		}
		for _, a := range list {
			if p := fore[a.lo] + t.pieces[a.id].score + back[a.hi] - all; !math.IsInf(p, -1) && !math.IsNaN(p) {
				expected[a.id] += t.counts[i] * math.Exp(p)
			}
		}
	}
	kept, total := t.pieces[:0], 0.0
	var values []float64
	for i, p := range t.pieces {
		if expected[i] < rareExpected && !p.letter {
			continue
		}
		e := max(expected[i], rareExpected)
		values = append(values, e)
		total += e
		kept = append(kept, p)
	}
	t.pieces = kept
	logTotal := digamma(total)
	for i := range kept {
		kept[i].score = digamma(values[i]) - logTotal
	}
}

// lattice sums the probabilities of all cuts up to each byte, and from each byte on, as logarithms.
func lattice(list []arc, pieces []candidatePiece, n int, fore, back []float64) ([]float64, []float64) {
	fore, back = fore[:0], back[:0]
	for range n + 1 {
		fore, back = append(fore, math.Inf(-1)), append(back, math.Inf(-1))
	}
	fore[0], back[n] = 0, 0
	for _, a := range list {
		fore[a.hi] = logAdd(fore[a.hi], fore[a.lo]+pieces[a.id].score)
	}
	for _, a := range slices.Backward(list) {
		back[a.lo] = logAdd(back[a.lo], back[a.hi]+pieces[a.id].score)
	}
	return fore, back
}

func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// digamma is the derivative of the logarithm of the gamma function (asymptotic series above 7).
func digamma(x float64) float64 {
	r := 0.0
	for ; x < 7; x++ {
		r -= 1 / x
	}
	x -= 0.5
	xx := 1 / x
	xx2 := xx * xx
	xx4 := xx2 * xx2
	return r + math.Log(x) + xx2/24 - 7.0/960*xx4 + 31.0/8064*xx4*xx2 - 127.0/30720*xx4*xx4
}

// prune drops the pieces without which the likelihood of the texts would fall least: each would be replaced by its best cut into others.
func (t *unigramTrainer) prune() {
	tr := t.trie()
	freq := make([]float64, len(t.pieces))
	var list []arc
	for i, w := range t.words {
		list = arcs(list[:0], tr, w)
		for _, id := range viterbi(list, t.pieces, len(w), -1) {
			freq[id] += t.counts[i]
		}
	}
	total := 0.0
	for _, f := range freq {
		total += f
	}
	logTotal := math.Log(total)
	type loss struct {
		at   int
		loss float64
	}
	var losses []loss
	drop := make([]bool, len(t.pieces))
	for i, p := range t.pieces {
		if p.letter {
			continue
		}
		list = arcs(list[:0], tr, p.text)
		// A piece that is not even its own best cut is never used.
		if best := viterbi(list, t.pieces, len(p.text), -1); len(best) != 1 {
			drop[i] = true
			continue
		}
		if freq[i] == 0 {
			drop[i] = true
			continue
		}
		other := viterbi(list, t.pieces, len(p.text), int32(i))
		now := math.Log(freq[i]) - logTotal
		grown := math.Log(total + freq[i]*float64(len(other)-1))
		instead := 0.0
		for _, id := range other {
			instead += math.Log(freq[id]+freq[i]) - grown
		}
		losses = append(losses, loss{i, freq[i] * (now - instead)})
	}
	slices.SortStableFunc(losses, func(a, b loss) int {
		return cmp.Or(cmp.Compare(b.loss, a.loss), cmp.Compare(t.pieces[a.at].text, t.pieces[b.at].text))
	})
	keep := max(t.want, int(keepShare*float64(len(t.pieces)))) - t.letters
	for _, l := range losses[min(max(keep, 0), len(losses)):] {
		drop[l.at] = true
	}
	kept := t.pieces[:0]
	for i, p := range t.pieces {
		if !drop[i] {
			kept = append(kept, p)
		}
	}
	t.pieces = kept
}

// viterbi is the best cut of a word, without the piece called not, back to front.
func viterbi(list []arc, pieces []candidatePiece, n int, not int32) []int32 {
	best := make([]float64, n+1)
	last := make([]int32, n+1)
	for i := range best {
		best[i], last[i] = math.Inf(-1), -1
	}
	best[0] = 0
	for i, a := range list {
		if a.id == not {
			continue
		}
		if s := best[a.lo] + pieces[a.id].score; s > best[a.hi] {
			best[a.hi], last[a.hi] = s, int32(i)
		}
	}
	var out []int32
	for at := int32(n); at > 0; {
		i := last[at]
		if i < 0 {
			return nil
		}
		out = append(out, list[i].id)
		at = list[i].lo
	}
	return out
}
