// Package abi encodes and decodes the messages of plugins/ABI.md, for every host of plugins.
package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/attack"
)

// Version of the contract.
const Version = 1

// Limits of the contract.
const (
	MaxAnswer = 16 << 20
	MaxTexts  = 1024
	MaxModule = 32 << 20
	MaxName   = 64
)

// Results of imports that did not answer.
const (
	Unavailable = -1
	OverBudget  = -2
	BadArgument = -3
	Failed      = -4
)

// MaxCandidate is the largest size in bytes of a candidate for a text of n bytes.
func MaxCandidate(n int) int { return 4*n + 4096 }

// AppendString appends a str.
func AppendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// AppendStrings appends a list<str>.
func AppendStrings(b []byte, list []string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
	for _, s := range list {
		b = AppendString(b, s)
	}
	return b
}

// AppendFloats appends numbers one after another.
func AppendFloats(b []byte, row []float32) []byte {
	for _, x := range row {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// AppendCandidates appends the answer of fill.
func AppendCandidates(b []byte, list []attack.Candidate) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
	for _, c := range list {
		b = AppendString(AppendFloats(b, []float32{c.P}), c.Text)
	}
	return b
}

// AppendTokens appends the answer of tokenize.
func AppendTokens(b []byte, spans []attack.Span, tokens []string) []byte {
	n := min(len(spans), len(tokens))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, uint32(spans[i].Start))
		b = binary.LittleEndian.AppendUint32(b, uint32(spans[i].End))
		b = AppendString(b, tokens[i])
	}
	return b
}

// EncodeRequest makes the message for a batch. Labels and parameters are those of the first request; the caller batches equal ones.
func EncodeRequest(reqs []attack.Request) ([]byte, error) {
	if len(reqs) == 0 || len(reqs) > MaxTexts {
		return nil, fmt.Errorf("plugin request: %d texts, expected 1 to %d", len(reqs), MaxTexts)
	}
	b := AppendStrings(nil, reqs[0].Labels)
	keys := make([]string, 0, len(reqs[0].Params))
	for k := range reqs[0].Params {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(keys)))
	for _, k := range keys {
		b = AppendString(AppendString(b, k), reqs[0].Params[k])
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(reqs)))
	for _, q := range reqs {
		if !utf8.ValidString(q.Text) {
			return nil, errors.New("plugin request: a text is not valid UTF-8")
		}
		words := q.Words
		if words == nil {
			words = attack.Words(q.Text)
		}
		may := q.May
		if may == nil {
			may = make([]int, len(words))
			for i := range may {
				may[i] = i
			}
		}
		n := q.Max
		if n <= 0 {
			n = 32
		}
		b = binary.LittleEndian.AppendUint64(b, q.Seed)
		b = binary.LittleEndian.AppendUint32(b, uint32(max(0, q.Label)))
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
		b = AppendString(b, q.Text)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(words)))
		for _, s := range words {
			b = binary.LittleEndian.AppendUint32(b, uint32(s.Start))
			b = binary.LittleEndian.AppendUint32(b, uint32(s.End))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(may)))
		for _, i := range may {
			if i < 0 || i >= len(words) {
				return nil, fmt.Errorf("plugin request: word %d may change, but there are %d", i, len(words))
			}
			b = binary.LittleEndian.AppendUint32(b, uint32(i))
		}
	}
	return b, nil
}

// DecodeAnswer reads the answer to reqs and checks it against the limits.
func DecodeAnswer(b []byte, reqs []attack.Request) ([][]string, error) {
	r := Reader{B: b}
	if n := r.Uint32(); r.Err == nil && int(n) != len(reqs) {
		return nil, fmt.Errorf("answer holds candidates for %d texts, expected %d", n, len(reqs))
	}
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		limit := q.Max
		if limit <= 0 {
			limit = 32
		}
		n := r.Uint32()
		if r.Err == nil && int64(n) > int64(limit) {
			return nil, fmt.Errorf("answer holds %d candidates for text %d, expected at most %d", n, i, limit)
		}
		for k := uint32(0); k < n && r.Err == nil; k++ {
			s := r.String()
			if r.Err == nil && len(s) > MaxCandidate(len(q.Text)) {
				return nil, fmt.Errorf("candidate %d of text %d has %d bytes, expected at most %d", k, i, len(s), MaxCandidate(len(q.Text)))
			}
			out[i] = append(out[i], s)
		}
	}
	if r.Err != nil {
		return nil, fmt.Errorf("answer: %w", r.Err)
	}
	if len(r.B) != 0 {
		return nil, fmt.Errorf("answer: %d bytes too many", len(r.B))
	}
	return out, nil
}

// Reader reads a message; the first fault stays in Err, and everything after it reads as zero.
type Reader struct {
	B   []byte
	Err error
}

func (r *Reader) take(n int) []byte {
	if r.Err != nil {
		return nil
	}
	if n < 0 || n > len(r.B) {
		r.Err = fmt.Errorf("message ends %d bytes early", n-len(r.B))
		r.B = nil
		return nil
	}
	b := r.B[:n]
	r.B = r.B[n:]
	return b
}

// Uint32 reads a u32.
func (r *Reader) Uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a u64.
func (r *Reader) Uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// String reads a str.
func (r *Reader) String() string {
	n := r.Uint32()
	if r.Err == nil && uint64(n) > uint64(len(r.B)) {
		r.Err = fmt.Errorf("string of %d bytes in a message that has %d left", n, len(r.B))
		r.B = nil
	}
	s := string(r.take(int(n)))
	if r.Err == nil && !utf8.ValidString(s) {
		r.Err = errors.New("string is not valid UTF-8")
	}
	return s
}

// Strings reads a list<str>.
func (r *Reader) Strings() []string {
	n := r.Uint32()
	if r.Err == nil && uint64(n)*4 > uint64(len(r.B)) {
		r.Err = fmt.Errorf("list of %d strings in a message that has %d bytes left", n, len(r.B))
		return nil
	}
	out := make([]string, 0, n)
	for range n {
		out = append(out, r.String())
	}
	if r.Err != nil {
		return nil
	}
	return out
}

// Spans reads n spans and checks that they are ranges of text.
func (r *Reader) Spans(n int, text string) []attack.Span {
	if r.Err == nil && uint64(n)*8 > uint64(len(r.B)) {
		r.Err = fmt.Errorf("%d spans in a message that has %d bytes left", n, len(r.B))
		return nil
	}
	out := make([]attack.Span, 0, n)
	for range n {
		s := attack.Span{Start: int(r.Uint32()), End: int(r.Uint32())}
		if r.Err == nil && (s.Start > s.End || s.End > len(text)) {
			r.Err = fmt.Errorf("span %d to %d of a text of %d bytes", s.Start, s.End, len(text))
		}
		out = append(out, s)
	}
	if r.Err != nil {
		return nil
	}
	return out
}
