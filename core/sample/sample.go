// Package sample chooses the next token from logits: penalties on what was said, truncation of the tail, temperature, mirostat; a seeded
// generator, so that the same logits and seed give the same tokens.
package sample

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Params are the usual knobs under their usual names. The zero value is greedy decoding.
type Params struct {
	Temperature float64 // 0: greedy
	TopK        int     // keep the K likeliest; 0: all
	TopP        float64 // nucleus (Holtzman et al., 2020): smallest set with this mass; 0 or 1: all
	MinP        float64 // keep tokens of at least MinP times the likeliest's probability; 0: all
	TypicalP    float64 // locally typical sampling (Meister et al., 2023); 0 or 1: all

	RepeatPenalty    float64 // divides positive, multiplies negative logits of seen tokens (Keskar et al., 2019); 0 or 1: none
	FrequencyPenalty float64 // subtracted per occurrence
	PresencePenalty  float64 // subtracted once if seen
	RepeatLastN      int     // window of the three penalties in tokens; 0: 64, negative: everything

	DRYMultiplier    float64 // "don't repeat yourself": 0 is off
	DRYBase          float64 // growth per repeated token beyond DRYAllowedLength; 0: 1.75
	DRYAllowedLength int     // 0: 2
	DRYBreakers      []int32 // tokens that end a repetition

	Mirostat    int     // 0 off, 1 or 2 (Basu et al., 2021)
	MirostatTau float64 // target surprise in bits; 0: 5
	MirostatEta float64 // learning rate; 0: 0.1

	Bias map[int32]float64 // added to logits; at most 1e6, -Inf excludes a token
	Seed uint64
}

// Validate reports the first option that makes no sense, by its flag name.
func (p Params) Validate() error {
	for _, c := range []struct {
		name    string
		v       float64
		lo      float64
		hi      float64
		allowed string
	}{
		{"temperature", p.Temperature, 0, 100, "0 to 100"},
		{"top-p", p.TopP, 0, 1, "0 to 1"},
		{"min-p", p.MinP, 0, 1, "0 to 1"},
		{"typical-p", p.TypicalP, 0, 1, "0 to 1"},
		{"repeat-penalty", p.RepeatPenalty, 0, 100, "0 to 100"},
		{"frequency-penalty", p.FrequencyPenalty, -100, 100, "-100 to 100"},
		{"presence-penalty", p.PresencePenalty, -100, 100, "-100 to 100"},
		{"dry-multiplier", p.DRYMultiplier, 0, 100, "0 to 100"},
		{"dry-base", p.DRYBase, 0, 100, "0 to 100"},
		{"mirostat-tau", p.MirostatTau, 0, 100, "0 to 100"},
		{"mirostat-eta", p.MirostatEta, 0, 10, "0 to 10"},
	} {
		if !(c.v >= c.lo && c.v <= c.hi) {
			return fmt.Errorf("%s %v: want %s", c.name, c.v, c.allowed)
		}
	}
	switch {
	case p.TopK < 0:
		return fmt.Errorf("top-k %d: want 0 (all) or more", p.TopK)
	case p.DRYAllowedLength < 0:
		return fmt.Errorf("dry-allowed-length %d: want 0 or more", p.DRYAllowedLength)
	case p.Mirostat < 0 || p.Mirostat > 2:
		return fmt.Errorf("mirostat %d: want 0 (off), 1 or 2", p.Mirostat)
	case p.Mirostat > 0 && p.Temperature == 0:
		return fmt.Errorf("mirostat needs a temperature above 0")
	case p.Mirostat > 0 && (p.TopK > 0 || cuts(p.TopP) || p.MinP > 0 || cuts(p.TypicalP)):
		return fmt.Errorf("mirostat replaces top-k, top-p, min-p and typical-p: give one or the other")
	}
	for id, b := range p.Bias {
		if !(b <= maxBias) {
			return fmt.Errorf("logit-bias %v for token %d: want at most %g", b, id, float64(maxBias))
		}
	}
	return nil
}

const (
	maxBias = 1e6
	// coldest is the temperature below which the likeliest token is taken: others have no share, and quotients would overflow.
	coldest = 1e-6
)

func cuts(p float64) bool { return p > 0 && p < 1 }

// Constraint restricts the next token (grammars, JSON schemas). Allow removes what may not come by setting its logit to -Inf; Accept
// moves on.
type Constraint interface {
	Allow(logits []float32) error
	Accept(id int32) error
}

// Sampler draws tokens. It is not safe for concurrent use.
type Sampler struct {
	p       Params
	rng     *rand.Rand
	history []int32
	mu      float64 // mirostat
	counts  map[int32]int
	match   []int

	// cand are the likeliest candidates in order, rest the others, in no order, each with a logit below reach: few draws need more than the
	// first of a large vocabulary.
	cand  []token
	rest  []other
	reach float64
	step  float64
	top   float64 // the largest logit
	sum   float64 // of exp(logit-top) over all candidates
}

// token is a candidate; its logit is divided by the temperature.
type token struct {
	id    int32
	logit float64
	p     float64
}

// other is a candidate that is not in order yet; its logit is as it came.
type other struct {
	id int32
	v  float32
}

// New checks p and returns a sampler with an empty history.
func New(p Params) (*Sampler, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.RepeatLastN == 0 {
		p.RepeatLastN = 64
	}
	if p.Temperature < coldest {
		p.Temperature = 0
	}
	p.DRYBase = cmp.Or(p.DRYBase, 1.75)
	p.DRYAllowedLength = cmp.Or(p.DRYAllowedLength, 2)
	p.MirostatTau = cmp.Or(p.MirostatTau, 5)
	p.MirostatEta = cmp.Or(p.MirostatEta, 0.1)
	return &Sampler{p: p, rng: rand.New(rand.NewPCG(p.Seed, 0x74656d706572)), mu: 2 * p.MirostatTau, counts: map[int32]int{}}, nil
}

// Accept adds a token (of the prompt, or chosen) to the history that penalties look at.
func (s *Sampler) Accept(ids ...int32) { s.history = append(s.history, ids...) }

// Greedy reports whether sampling is an arg max of the raw logits, so that drafts can be checked without drawing.
func (s *Sampler) Greedy() bool { return s.p.Temperature == 0 && s.plain() }

func (s *Sampler) plain() bool {
	return (s.p.RepeatPenalty == 0 || s.p.RepeatPenalty == 1) && s.p.FrequencyPenalty == 0 && s.p.PresencePenalty == 0 &&
		s.p.DRYMultiplier == 0 && len(s.p.Bias) == 0
}

// ArgMax is the index of the largest logit, the first among equals; -1 when none is finite.
func ArgMax(logits []float32) int32 {
	best, at := float32(math.Inf(-1)), -1
	i := 0
	for ; i+8 <= len(logits); i += 8 { // a larger one is rare
		x := (*[8]float32)(logits[i:])
		if x[0] > best || x[1] > best || x[2] > best || x[3] > best || x[4] > best || x[5] > best || x[6] > best || x[7] > best {
			for j, v := range x {
				if v > best {
					best, at = v, i+j
				}
			}
		}
	}
	for ; i < len(logits); i++ {
		if logits[i] > best {
			best, at = logits[i], i
		}
	}
	return int32(at)
}

// Next draws a token from logits, which it may change. The token is not accepted yet. An error means that every token was excluded.
func (s *Sampler) Next(logits []float32) (int32, error) {
	s.penalise(logits)
	if s.p.Temperature == 0 {
		id := ArgMax(logits)
		if id < 0 {
			return 0, errNone
		}
		return id, nil
	}
	s.candidates(logits)
	if !s.has(0) {
		return 0, errNone
	}
	if s.p.Mirostat > 0 {
		return s.mirostat(len(logits)), nil
	}
	s.truncate()
	return s.draw(), nil
}

var errNone = fmt.Errorf("no token is left to choose from: every logit is excluded or not a number")

// penalise applies biases and repetition penalties in place.
func (s *Sampler) penalise(logits []float32) {
	for id, b := range s.p.Bias {
		if int(id) < len(logits) && id >= 0 {
			logits[id] += float32(b)
		}
	}
	if s.plain() {
		return
	}
	window := s.history
	if n := s.p.RepeatLastN; n > 0 && len(window) > n {
		window = window[len(window)-n:]
	}
	clear(s.counts)
	for _, id := range window {
		s.counts[id]++
	}
	rep := cmp.Or(s.p.RepeatPenalty, 1)
	for id, n := range s.counts {
		if int(id) >= len(logits) || id < 0 {
			continue
		}
		v := float64(logits[id])
		if v > 0 {
			v /= rep
		} else {
			v *= rep
		}
		logits[id] = float32(min(v-s.p.FrequencyPenalty*float64(n)-s.p.PresencePenalty, math.MaxFloat32))
	}
	s.dry(logits)
}

// dry penalises tokens that would prolong a repetition of the recent past: for each earlier place whose preceding tokens equal the
// latest ones over n >= DRYAllowedLength tokens, the token that came next there loses multiplier·base^(n−allowed). The lengths of
// all such suffix matches come from one Z-function over the reversed history.
func (s *Sampler) dry(logits []float32) {
	if s.p.DRYMultiplier == 0 || len(s.history) < 2 {
		return
	}
	h := s.history
	n := len(h)
	if cap(s.match) < n {
		s.match = make([]int, n)
	}
	z := s.match[:n]
	at := func(i int) int32 { return h[n-1-i] } // reversed
	z[0] = n
	for i, l, r := 1, 0, 0; i < n; i++ {
		z[i] = 0
		if i < r {
			z[i] = min(r-i, z[i-l])
		}
		for i+z[i] < n && at(z[i]) == at(i+z[i]) && !slices.Contains(s.p.DRYBreakers, at(z[i])) {
			z[i]++
		}
		if i+z[i] > r {
			l, r = i, i+z[i]
		}
	}
	longest := map[int32]int{}
	for i := 1; i < n; i++ {
		if z[i] >= s.p.DRYAllowedLength {
			next := at(i - 1)
			longest[next] = max(longest[next], z[i])
		}
	}
	for id, m := range longest {
		if id >= 0 && int(id) < len(logits) {
			logits[id] -= float32(min(1e6, s.p.DRYMultiplier*math.Pow(s.p.DRYBase, float64(m-s.p.DRYAllowedLength))))
		}
	}
}

// cutOff is how far below the likeliest, in nats, a token of a large vocabulary cannot matter: 1e-9 of its probability.
const cutOff = 20.7

// candidates fills rest with the finite logits.
func (s *Sampler) candidates(logits []float32) {
	s.cand, s.rest, s.sum = s.cand[:0], s.rest[:0], 0
	best := ArgMax(logits)
	if best < 0 {
		return
	}
	s.top = float64(logits[best]) / s.p.Temperature
	s.reach, s.step = s.top, 4
	least := math.Inf(-1)
	if s.p.Mirostat == 0 && moreThan(logits, 256) { // mirostat needs all
		least = s.top - cutOff
	}
	floor := float32(least * s.p.Temperature)
	floor -= max(1, -floor, floor) / (1 << 20) // rounding: what comes near is looked at
	for i, v := range logits {
		if v >= floor && v > float32(math.Inf(-1)) && float64(v)/s.p.Temperature >= least {
			s.rest = append(s.rest, other{int32(i), v})
		}
	}
	if k := s.p.TopK; k > 0 && k < len(s.rest) {
		s.has(k - 1)
		s.keep(k)
		return
	}
	for _, t := range s.rest {
		s.sum += math.Exp(float64(t.v)/s.p.Temperature - s.top)
	}
}

// moreThan reports whether more than n logits are above -Inf.
func moreThan(logits []float32, n int) bool {
	for _, v := range logits {
		if v > float32(math.Inf(-1)) {
			if n--; n < 0 {
				return true
			}
		}
	}
	return false
}

// has reports whether there is a candidate i, the likeliest being the first; it is then in cand.
func (s *Sampler) has(i int) bool {
	for i >= len(s.cand) && len(s.rest) > 0 {
		s.reach -= s.step
		s.step *= 2
		from, left := len(s.cand), 0
		for _, t := range s.rest {
			if logit := float64(t.v) / s.p.Temperature; logit >= s.reach || math.IsInf(s.reach, 0) {
				s.cand = append(s.cand, token{id: t.id, logit: logit, p: math.Exp(logit-s.top) / s.sum})
			} else {
				s.rest[left] = t
				left++
			}
		}
		s.rest = s.rest[:left]
		slices.SortFunc(s.cand[from:], func(a, b token) int {
			if c := cmp.Compare(b.logit, a.logit); c != 0 {
				return c
			}
			return cmp.Compare(a.id, b.id)
		})
	}
	return i < len(s.cand)
}

// keep leaves the n likeliest, which are in cand, and normalises them.
func (s *Sampler) keep(n int) {
	s.cand, s.rest = s.cand[:n], s.rest[:0]
	s.normalise()
}

func (s *Sampler) normalise() {
	s.sum = 0
	for i := range s.cand {
		s.cand[i].p = math.Exp(s.cand[i].logit - s.cand[0].logit)
		s.sum += s.cand[i].p
	}
	for i := range s.cand {
		s.cand[i].p /= s.sum
	}
}

// truncate applies typical, top-p and min-p, in this order.
func (s *Sampler) truncate() {
	if cuts(s.p.TypicalP) {
		for s.has(len(s.cand)) {
		}
		h := 0.0
		for _, t := range s.cand {
			if t.p > 0 {
				h -= t.p * math.Log(t.p)
			}
		}
		odd := func(t token) float64 { return math.Abs(-math.Log(t.p) - h) }
		slices.SortStableFunc(s.cand, func(a, b token) int { return cmp.Compare(odd(a), odd(b)) })
		s.cand = s.cand[:s.mass(s.p.TypicalP)]
		slices.SortStableFunc(s.cand, func(a, b token) int { return cmp.Compare(b.p, a.p) })
		s.normalise()
	}
	if cuts(s.p.TopP) {
		s.keep(s.mass(s.p.TopP))
	}
	if s.p.MinP > 0 {
		n := 1
		for s.has(n) && s.cand[n].p >= s.p.MinP*s.cand[0].p {
			n++
		}
		s.keep(n)
	}
}

// mass is the length of the shortest prefix that holds probability p.
func (s *Sampler) mass(p float64) int {
	sum := 0.0
	for i := 0; s.has(i); i++ {
		if sum += s.cand[i].p; sum >= p {
			return i + 1
		}
	}
	return len(s.cand)
}

func (s *Sampler) draw() int32 {
	u := s.rng.Float64()
	for i := 0; s.has(i); i++ {
		if u -= s.cand[i].p; u < 0 {
			return s.cand[i].id
		}
	}
	return s.cand[len(s.cand)-1].id
}

// mirostat keeps the surprise of the text near MirostatTau bits.
func (s *Sampler) mirostat(vocab int) int32 {
	k := math.MaxInt
	if s.p.Mirostat == 1 {
		s.has(100)
		// Zipf exponent from the 100 likeliest, then the k that gives the wanted surprise (eq. 30 of the paper).
		var num, den float64
		for i := 0; i < min(100, len(s.cand)-1); i++ {
			if s.cand[i+1].p == 0 {
				break
			}
			t := math.Log(float64(i+2) / float64(i+1))
			b := math.Log(s.cand[i].p / s.cand[i+1].p)
			num, den = num+t*b, den+t*t
		}
		if den > 0 {
			zipf := num / den
			e := zipf - 1
			k = int(math.Round(math.Pow(e*math.Pow(2, s.mu)/(1-math.Pow(float64(vocab), -e)), 1/zipf)))
		}
	} else {
		k = 0
		for s.has(k) && -math.Log2(s.cand[k].p) <= s.mu {
			k++
		}
	}
	s.has(k)
	s.keep(max(1, min(k, len(s.cand))))
	id := s.draw()
	for _, t := range s.cand {
		if t.id == id {
			s.mu -= s.p.MirostatEta * (-math.Log2(t.p) - s.p.MirostatTau)
		}
	}
	return id
}

// LogProb is a token with the natural logarithm of its probability under the unmodified logits.
type LogProb struct {
	ID int32
	LP float64
}

// LogProbs returns the log-probability of id and of the n likeliest tokens.
func LogProbs(logits []float32, id int32, n int) (LogProb, []LogProb) {
	z := logSumExp(logits)
	own := LogProb{id, float64(logits[id]) - z}
	if n <= 0 {
		return own, nil
	}
	top := make([]LogProb, 0, n+1)
	for i, v := range logits {
		lp := float64(v) - z
		if len(top) == n && lp <= top[n-1].LP {
			continue
		}
		j, _ := slices.BinarySearchFunc(top, lp, func(t LogProb, lp float64) int {
			if t.LP >= lp {
				return -1
			}
			return 1
		})
		top = slices.Insert(top, j, LogProb{int32(i), lp})
		if len(top) > n {
			top = top[:n]
		}
	}
	return own, top
}

func logSumExp(x []float32) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, float64(v))
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}
