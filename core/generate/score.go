package generate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// Scorer computes how likely given tokens are. It is for one goroutine at a time.
type Scorer struct {
	m     model.Model
	k     backend.Kernels
	arena grad.Arena
	rows  int // of logits at once
	held  []int32
	cache *model.FloatCache
}

// chunkTokens bounds the tokens of one forward, logitBytes the logits.
const (
	chunkTokens = 512
	logitBytes  = 128 << 20
)

// NewScorer returns a scorer over a causal model.
func NewScorer(m model.Model, k backend.Kernels) (*Scorer, error) {
	cfg := m.Config()
	if cfg.Head != model.HeadCausal {
		return nil, fmt.Errorf("the model's head is %q: a causal language model is needed", cfg.Head)
	}
	return &Scorer{m: m, k: k, rows: min(max(logitBytes/4/cfg.Vocab, 16), chunkTokens), cache: model.NewCache(cfg, 1, chunkTokens)}, nil
}

func (s *Scorer) check(ids []int32) error {
	cfg := s.m.Config()
	if most := cfg.MaxPositions; most > 0 && len(ids) > most {
		return &RequestError{fmt.Errorf("%d tokens: the model takes at most %d", len(ids), most)}
	}
	for i, id := range ids {
		if id < 0 || int(id) >= cfg.Vocab {
			return &RequestError{fmt.Errorf("token %d is %d: the vocabulary has %d", i, id, cfg.Vocab)}
		}
	}
	return nil
}

// Sequence returns the natural log-probabilities of ids[from:], each given all before it. from is at least 1.
func (s *Scorer) Sequence(ctx context.Context, ids []int32, from int) ([]float64, error) {
	if from < 1 || from > len(ids) {
		return nil, &RequestError{fmt.Errorf("log-probabilities from token %d of %d: the first has nothing before it", from, len(ids))}
	}
	if err := s.check(ids); err != nil {
		return nil, err
	}
	out := make([]float64, 0, len(ids)-from)
	at := s.keep(ids[:from-1])
	for at < len(ids)-1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Tokens whose logits nobody wants run in large pieces.
		n := min(chunkTokens, from-1-at)
		if n <= 0 {
			n = min(s.rows, len(ids)-1-at)
		}
		b := &model.Batch{IDs: ids[at : at+n], Offsets: []int32{0, int32(n)}, Cache: s.cache, Want: model.WantLogits, Rows: []int32{}}
		for i := at; i < at+n; i++ {
			if i+1 >= from {
				b.Rows = append(b.Rows, int32(i-at))
			}
		}
		z, err := s.run(b)
		if err != nil {
			return nil, err
		}
		s.held = append(s.held, b.IDs...)
		for i := range b.Rows {
			out = append(out, s.logProb(z, i, ids[at+int(b.Rows[i])+1]))
		}
		at += n
	}
	return out, nil
}

// keep forgets what the cache holds beyond the beginning that it shares with ids, and returns its length.
func (s *Scorer) keep(ids []int32) int {
	n := 0
	for n < len(s.held) && n < len(ids) && s.held[n] == ids[n] {
		n++
	}
	s.held = s.held[:n]
	s.cache.Truncate(0, n)
	return n
}

func (s *Scorer) run(b *model.Batch) (*grad.Value, error) {
	s.arena.Reset()
	if len(b.Rows) == 0 {
		b.Want, b.Rows = 0, nil
	}
	out, err := s.m.Forward(grad.Infer(s.k, &s.arena), b)
	if err != nil { // the cache may hold half a step
		s.keep(nil)
	}
	return out.Logits, err
}

func (s *Scorer) logProb(z *grad.Value, row int, id int32) float64 {
	return -s.k.CrossEntropy(z.Data[row*z.Cols:(row+1)*z.Cols], []int32{id}, 1, z.Cols, nil, 1)
}

// Continuations returns, for each text that may follow the prompt, the natural log-probabilities of its tokens. The prompt is read once,
// and what it shares with the last call's is not read again.
func (s *Scorer) Continuations(ctx context.Context, prompt []int32, texts [][]int32) ([][]float64, error) {
	if len(prompt) == 0 {
		return nil, &RequestError{errors.New("the prompt is empty")}
	}
	longest := 0
	for _, t := range texts {
		if len(t) == 0 {
			return nil, &RequestError{errors.New("a continuation is empty")}
		}
		longest = max(longest, len(t))
		if err := s.check(t); err != nil {
			return nil, err
		}
	}
	if most := s.m.Config().MaxPositions; most > 0 && len(prompt)+longest > most {
		return nil, &RequestError{fmt.Errorf("%d tokens: the model takes at most %d", len(prompt)+longest, most)}
	}
	if err := s.check(prompt); err != nil {
		return nil, err
	}
	// The last token of the prompt always runs: its logits are wanted.
	for at := s.keep(prompt[:len(prompt)-1]); at < len(prompt)-1; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(chunkTokens, len(prompt)-1-at)
		if _, err := s.run(&model.Batch{IDs: prompt[at : at+n], Offsets: []int32{0, int32(n)}, Cache: s.cache}); err != nil {
			return nil, err
		}
		s.held = append(s.held, prompt[at:at+n]...)
		at += n
	}
	z, err := s.run(&model.Batch{IDs: prompt[len(prompt)-1:], Offsets: []int32{0, 1}, Cache: s.cache, Want: model.WantLogits, Rows: []int32{0}})
	if err != nil {
		return nil, err
	}
	s.held = append(s.held, prompt[len(prompt)-1])
	out := make([][]float64, len(texts))
	var more []int
	for i, t := range texts {
		out[i] = append(out[i], s.logProb(z, 0, t[0]))
		if len(t) > 1 {
			more = append(more, i)
		}
	}
	// What follows a first token, for all texts that begin alike, is read together: shared beginnings once.
	slices.SortStableFunc(more, func(a, b int) int { return slices.Compare(texts[a], texts[b]) })
	for len(more) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, rows := 0, 0
		for n < len(more) && n < 16 && rows+len(texts[more[n]])-1 <= max(s.rows, longest) {
			rows += len(texts[more[n]]) - 1
			n++
		}
		if err := s.follow(texts, more[:n], out); err != nil {
			return nil, err
		}
		more = more[n:]
	}
	return out, nil
}

// follow scores the tokens of some texts after their first.
func (s *Scorer) follow(texts [][]int32, which []int, out [][]float64) error {
	b := &model.Batch{Offsets: []int32{0}, Want: model.WantLogits, Rows: []int32{}}
	for _, i := range which {
		t := texts[i]
		b.IDs = append(b.IDs, t[:len(t)-1]...)
		for len(b.Rows) < len(b.IDs) {
			b.Rows = append(b.Rows, int32(len(b.Rows)))
		}
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	b.Cache = &fork{base: s.cache, sequences: len(which)}
	z, err := s.run(b)
	if err != nil {
		return err
	}
	for n, i := range which {
		for k, id := range texts[i][1:] {
			out[i] = append(out[i], s.logProb(z, int(b.Offsets[n])+k, id))
		}
	}
	return nil
}

// fork is the cache of several texts that go on from one: it copies what that holds and adds nothing to it.
type fork struct {
	base      *model.FloatCache
	sequences int
	k, v      []float32
	seqs      []backend.Seq
}

func (f *fork) Len(int) int { return f.base.Len(0) }

func (f *fork) Append(layer int, k, v []float32, cols int, offsets []int32) (ks, vs []float32, seqs []backend.Seq) {
	past := f.base.Len(0)
	bk, bv, _ := f.base.Append(layer, nil, nil, cols, []int32{0, 0})
	longest := 0
	for i := range f.sequences {
		longest = max(longest, int(offsets[i+1]-offsets[i]))
	}
	room := past + longest
	if need := f.sequences * room * cols; cap(f.k) < need {
		f.k, f.v = make([]float32, need), make([]float32, need)
	}
	f.seqs = f.seqs[:0]
	for i := range f.sequences {
		lo, hi := int(offsets[i]), int(offsets[i+1])
		at := i * room * cols
		copy(f.k[at:], bk[:past*cols])
		copy(f.v[at:], bv[:past*cols])
		copy(f.k[at+past*cols:], k[lo*cols:hi*cols])
		copy(f.v[at+past*cols:], v[lo*cols:hi*cols])
		f.seqs = append(f.seqs, backend.Seq{QStart: lo, QLen: hi - lo, KStart: i * room, KLen: past + hi - lo})
	}
	return f.k, f.v, f.seqs
}

func (f *fork) Advance([]int32) {}

// Perplexity is how well a model predicts a text.
type Perplexity struct {
	Perplexity float64 `json:"perplexity"`    // exp of the mean negative log-probability of a token
	Loss       float64 `json:"loss"`          // that mean, in nats
	BitsByte   float64 `json:"bits_per_byte"` // comparable between vocabularies
	Tokens     int     `json:"tokens"`        // scored
	Context    int     `json:"context"`
	Stride     int     `json:"stride"`
}

// Text measures the perplexity of ids (a text of so many bytes) in windows of context tokens, each of which scores its last stride tokens
// (the first one all), so that every token is scored once and has at least context−stride tokens before it. bos, when not negative,
// stands at the beginning of every window. progress, when not nil, is told how many tokens are done.
func (s *Scorer) Text(ctx context.Context, ids []int32, bos int32, bytes, window, stride int, progress func(done, total int)) (Perplexity, error) {
	lead := 0
	if bos >= 0 {
		lead = 1
	}
	if window < lead+2 || stride < 1 || stride > window-lead-1 {
		return Perplexity{}, &RequestError{fmt.Errorf("windows of %d tokens, %d apart: want at least 2 tokens and a smaller distance", window, stride)}
	}
	if len(ids) < 2-lead {
		return Perplexity{}, &RequestError{fmt.Errorf("the text has %d tokens: too few to predict any", len(ids))}
	}
	p := Perplexity{Context: window, Stride: stride}
	body := window - lead
	sum := 0.0
	for done := 1 - lead; done < len(ids); { // without a beginning token, the first has nothing before it
		hi := min(done+stride, len(ids))
		if done <= 1 {
			hi = min(body, len(ids))
		}
		lo := max(0, hi-body)
		win := make([]int32, 0, window)
		if bos >= 0 {
			win = append(win, bos)
		}
		win = append(win, ids[lo:hi]...)
		lps, err := s.Sequence(ctx, win, len(win)-(hi-done))
		if err != nil {
			return p, err
		}
		for _, lp := range lps {
			sum -= lp
		}
		p.Tokens += len(lps)
		done = hi
		if progress != nil {
			progress(done, len(ids))
		}
	}
	p.Loss = sum / float64(p.Tokens)
	if math.IsNaN(p.Loss) {
		return Perplexity{}, errors.New("the model's outputs are not numbers: are its weights?")
	}
	p.Perplexity = math.Exp(p.Loss)
	if bytes > 0 {
		p.BitsByte = sum / math.Ln2 / float64(bytes)
	}
	return p, nil
}
