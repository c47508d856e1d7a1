package pretrain

import (
	"fmt"
	"math/rand/v2"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Sampler turns a corpus into rows of one length. The order of rows, where each epoch cuts them, and what is masked are functions of the
// seed and the row's number alone, so the number of steps done is all that a checkpoint needs to know.
type Sampler struct {
	c      *Corpus
	length int // tokens of a row
	body   int // of them from the corpus
	rows   int64
	moves  bool // the cuts differ from epoch to epoch
	seed   uint64
	mask   *masker // nil: causal
}

// newSampler cuts c into rows of length tokens, causal when m is nil.
func newSampler(c *Corpus, length int, seed uint64, m *masker) (*Sampler, error) {
	s := &Sampler{c: c, length: length, body: length, seed: seed, mask: m}
	spare := int64(1) // the token after the last one is its target
	if m != nil {
		s.body, spare = length-2, 0
	}
	if s.rows = (c.Tokens - spare) / int64(s.body); s.rows < 1 {
		return nil, fmt.Errorf("the text has %d tokens: expected at least %d, a row", c.Tokens, int64(s.body)+spare)
	}
	if s.rows > 2 { // one is given up, so that each epoch may cut elsewhere
		s.rows--
		s.moves = true
	}
	return s, nil
}

// Rows is their number in an epoch.
func (s *Sampler) Rows() int64 { return s.rows }

// Row returns the i-th row that training sees, epoch after epoch.
func (s *Sampler) Row(i int64) (train.Example, error) {
	epoch := uint64(i / s.rows)
	at := permute(i%s.rows, s.rows, mix(s.seed, epoch, 0x0bde5)) * int64(s.body)
	if s.moves {
		at += int64(mix(s.seed, epoch, 0x5417f7) % uint64(s.body))
	}
	return s.row(at, mix(s.seed, uint64(i), 0x3a54))
}

// row reads a row from position at of the corpus.
func (s *Sampler) row(at int64, seed uint64) (train.Example, error) {
	if s.mask == nil {
		ids := make([]int32, s.length+1)
		if err := s.c.Read(ids, at); err != nil {
			return train.Example{}, err
		}
		return train.Example{IDs: ids[:s.length], Targets: ids[1:]}, nil
	}
	ids := make([]int32, s.length)
	ids[0], ids[s.length-1] = s.mask.cls, s.mask.sep
	if err := s.c.Read(ids[1:s.length-1], at); err != nil {
		return train.Example{}, err
	}
	return s.mask.apply(ids, rand.New(rand.NewPCG(seed, 0x6d61736b))), nil
}

// permute maps i to its place in a permutation of n that key picks: a Feistel network over the next power of four, walked until the
// result lies below n. It needs no memory, however many rows there are.
func permute(i, n int64, key uint64) int64 {
	if n < 2 {
		return 0
	}
	half := uint(1)
	for int64(1)<<(2*half) < n {
		half++
	}
	mask := uint64(1)<<half - 1
	for {
		l, r := uint64(i)>>half, uint64(i)&mask
		for round := range uint64(4) {
			l, r = r, l^mix(key, round, r)&mask
		}
		if i = int64(l<<half | r); i < n {
			return i
		}
	}
}

// mix makes one seed of three numbers (SplitMix64).
func mix(a, b, c uint64) uint64 {
	z := a
	for _, v := range [...]uint64{b, c} {
		z += 0x9e3779b97f4a7c15 * (v + 1)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return z
}

// Masking says how tokens are hidden for the masked objective.
type Masking struct {
	// Share of the tokens to predict (default 0.15).
	Share float64
	// Span hides runs of words of geometric length (Joshi et al., 2020, SpanBERT: p = 0.2, at most 10 words); otherwise words are hidden one
	// by one, all pieces of a word together (whole-word masking).
	Span bool
	// Pieces hides pieces without regard to words, as in the first BERT.
	Pieces bool
}

const (
	spanEnd = 0.2 // probability that a span ends after a word
	spanMax = 10  // words
)

// masker hides tokens: 80 % become the mask token, 10 % a random one, 10 % stay (Devlin et al., 2019), decided word by word.
type masker struct {
	Masking
	cls, sep, mask int32
	vocab          int32
	fixed          []bool // by id: never hidden, never drawn
	inside         []bool // by id: goes on with the word before
}

func newMasker(tok *token.Tokenizer, vocab int, m Masking) (*masker, error) {
	sp := tok.Special()
	if sp.MASK < 0 {
		return nil, fmt.Errorf("the tokenizer has no mask token: the masked objective needs one")
	}
	k := &masker{Masking: m, cls: sp.CLS, sep: sp.SEP, mask: sp.MASK, vocab: int32(vocab), fixed: make([]bool, vocab), inside: make([]bool, vocab)}
	if k.cls < 0 {
		k.cls = sp.BOS
	}
	if k.sep < 0 {
		k.sep = sp.EOS
	}
	if k.cls < 0 || k.sep < 0 {
		return nil, fmt.Errorf("the tokenizer has no tokens for the beginning and the end of a text: the masked objective needs them")
	}
	var names []string
	var hash, space, meta int
	for id := range int32(vocab) {
		name, ok := tok.Token(id)
		names = append(names, name)
		k.fixed[id] = !ok || tok.IsSpecial(id)
		switch {
		case len(name) > 2 && name[:2] == "##":
			hash++
		case hasPrefixRune(name, 'Ġ'):
			space++
		case hasPrefixRune(name, '▁'):
			meta++
		}
	}
	for id, name := range names {
		switch {
		case hash >= max(space, meta):
			k.inside[id] = len(name) > 2 && name[:2] == "##"
		case space >= meta:
			k.inside[id] = !hasPrefixRune(name, 'Ġ') && wordy(name)
		default:
			k.inside[id] = !hasPrefixRune(name, '▁') && wordy(name)
		}
	}
	return k, nil
}

func hasPrefixRune(s string, r rune) bool {
	for _, c := range s {
		return c == r
	}
	return false
}

// wordy tells pieces of words from punctuation, which stands alone.
func wordy(s string) bool {
	for _, r := range s {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
	}
	return false
}

// apply hides tokens of ids, which it changes, and returns them with their targets: what was hidden, −1 elsewhere.
func (k *masker) apply(ids []int32, rng *rand.Rand) train.Example {
	targets := make([]int32, len(ids))
	for i := range targets {
		targets[i] = -1
	}
	var words [][2]int // runs of positions
	tokens := 0
	for i, id := range ids {
		if k.fixed[id] {
			continue
		}
		tokens++
		if n := len(words); !k.Pieces && n > 0 && k.inside[id] && words[n-1][1] == i {
			words[n-1][1] = i + 1
		} else {
			words = append(words, [2]int{i, i + 1})
		}
	}
	left := max(1, int(k.Share*float64(tokens)+rng.Float64()))
	hide := func(w [2]int, how float64) {
		for i := w[0]; i < w[1]; i++ {
			if targets[i] >= 0 {
				continue
			}
			targets[i] = ids[i]
			left--
			switch {
			case how < 0.8:
				ids[i] = k.mask
			case how < 0.9:
				ids[i] = k.random(rng)
			}
		}
	}
	if k.Span {
		for tries := 0; left > 0 && tries < 8*len(words); tries++ {
			n := 1
			for n < spanMax && rng.Float64() >= spanEnd {
				n++
			}
			at, how := rng.IntN(len(words)), rng.Float64()
			for j := at; j < min(at+n, len(words)) && left > 0; j++ {
				if j > at && words[j][0] != words[j-1][1] { // a boundary of documents
					break
				}
				hide(words[j], how)
			}
		}
	} else {
		for _, j := range rng.Perm(len(words)) {
			if left <= 0 {
				break
			}
			if w := words[j]; w[1]-w[0] <= left || left == int(k.Share*float64(tokens)) {
				hide(w, rng.Float64())
			}
		}
	}
	return train.Example{IDs: ids, Targets: targets}
}

func (k *masker) random(rng *rand.Rand) int32 {
	for {
		if id := rng.Int32N(k.vocab); !k.fixed[id] {
			return id
		}
	}
}
