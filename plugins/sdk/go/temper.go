// Package temper is for writing temper plugins in Go: perturbations of texts that might fool a classifier. It has no dependencies. The
// contract is plugins/ABI.md, version 1.
//
//	package main
//
//	import temper "github.com/temper-ml/temper/plugins/sdk/go"
//
//	func init() {
//		temper.Register("shout", func(t *temper.Text) []string {
//			var out []string
//			for _, i := range t.May {
//				out = append(out, t.Replace(i, strings.ToUpper(t.Word(i))))
//			}
//			return out
//		})
//	}
//
//	func main() {}
//
// Build with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o shout.wasm, and test the function as any other.
//
// A plugin is deterministic: do not range over maps where the order shows, and draw chance from Rand alone.
package temper

import (
	"encoding/binary"
	"errors"
	"math"
)

// Text is a text to perturb.
type Text struct {
	Text string
	// Words are the byte ranges of its words, May the indices of those that may change.
	Words []Span
	May   []int
	// Max is the largest number of candidates wanted; more are dropped.
	Max int
	// Label is the true class, an index into Labels.
	Label  int
	Labels []string
	Seed   uint64
	Params map[string]string

	index uint32
	rand  *Rand
}

// Span is a range [Start, End) of bytes.
type Span struct{ Start, End int }

// Candidate is a word and its probability.
type Candidate struct {
	Word string
	P    float32
}

// Errors of the host's functions. A plugin goes on without what it cannot have.
var (
	ErrUnavailable = errors.New("temper: the host or the model has no such capability")
	ErrBudget      = errors.New("temper: the query budget is used up")
	ErrArgument    = errors.New("temper: wrong argument")
	ErrFailed      = errors.New("temper: the host failed")
)

var (
	name = "go plugin"
	each func(*Text) []string
)

// Register names the plugin and says how it perturbs one text. Call it from init.
func Register(pluginName string, perturb func(*Text) []string) { name, each = pluginName, perturb }

// Word returns word i.
func (t *Text) Word(i int) string { return t.Text[t.Words[i].Start:t.Words[i].End] }

// Replace returns the text with word i replaced.
func (t *Text) Replace(i int, w string) string {
	return t.Text[:t.Words[i].Start] + w + t.Text[t.Words[i].End:]
}

// Param returns a parameter, or otherwise where it is not given.
func (t *Text) Param(key, otherwise string) string {
	if v, ok := t.Params[key]; ok {
		return v
	}
	return otherwise
}

// Rand returns the text's generator, seeded by the host.
func (t *Text) Rand() *Rand {
	if t.rand == nil {
		t.rand = &Rand{t.Seed}
	}
	return t.rand
}

// Rand is SplitMix64.
type Rand struct{ state uint64 }

// NewRand is for tests.
func NewRand(seed uint64) *Rand { return &Rand{seed} }

// Uint64 returns 64 bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// IntN returns a number in [0, n), 0 when n is below 2.
func (r *Rand) IntN(n int) int {
	if n < 2 {
		return 0
	}
	return int(r.Uint64() % uint64(n))
}

// Score asks the model for the class probabilities of texts. Each costs a query.
func (t *Text) Score(texts ...string) ([][]float32, error) {
	msg := appendUint32(nil, len(texts))
	for _, s := range texts {
		msg = appendString(msg, s)
	}
	n := len(t.Labels)
	b, err := ask(len(texts)*n*4, func(out []byte) int32 { return hostScore(t.index, msg, out) })
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	rows := make([][]float32, len(texts))
	for i := range rows {
		rows[i] = make([]float32, n)
		for k := range rows[i] {
			rows[i][k] = r.float()
		}
	}
	return rows, r.err
}

// Importance returns, per word, the norm of the loss's gradient at it.
func (t *Text) Importance() ([]float32, error) {
	var spans []byte
	for _, s := range t.Words {
		spans = appendUint32(appendUint32(spans, s.Start), s.End)
	}
	b, err := ask(len(t.Words)*4, func(out []byte) int32 {
		return hostImportance(t.index, t.Text, uint32(t.Label), spans, uint32(len(t.Words)), out)
	})
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	row := make([]float32, len(t.Words))
	for i := range row {
		row[i] = r.float()
	}
	return row, r.err
}

// Nearest returns up to n words near word in the model's embedding space or the user's lexicon.
func Nearest(word string, n int) ([]string, error) {
	b, err := ask(1024, func(out []byte) int32 { return hostNearest(word, uint32(n), out) })
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	list := make([]string, 0, n)
	for k := r.uint32(); k > 0 && r.err == nil; k-- {
		list = append(list, r.string())
	}
	return list, r.err
}

// Fill returns up to n words that a masked language model puts at the span.
func (t *Text) Fill(at Span, n int) ([]Candidate, error) {
	b, err := ask(1024, func(out []byte) int32 { return hostFill(t.Text, uint32(at.Start), uint32(at.End), uint32(n), out) })
	if err != nil {
		return nil, err
	}
	r := reader{b: b}
	list := make([]Candidate, 0, n)
	for k := r.uint32(); k > 0 && r.err == nil; k-- {
		p := r.float()
		list = append(list, Candidate{r.string(), p})
	}
	return list, r.err
}

// Tokens returns how the model splits the text.
func (t *Text) Tokens() ([]Span, []string, error) {
	b, err := ask(64*len(t.Words)+256, func(out []byte) int32 { return hostTokenize(t.Text, out) })
	if err != nil {
		return nil, nil, err
	}
	r := reader{b: b}
	var spans []Span
	var tokens []string
	for k := r.uint32(); k > 0 && r.err == nil; k-- {
		spans = append(spans, Span{int(r.uint32()), int(r.uint32())})
		tokens = append(tokens, r.string())
	}
	return spans, tokens, r.err
}

// Log tells the user something; the host may drop it.
func Log(message string) { hostLog(message) }

// ask calls f with room for the answer, and again when it needs more.
func ask(room int, f func(out []byte) int32) ([]byte, error) {
	for {
		out := make([]byte, room)
		switch n := f(out); {
		case n == -1:
			return nil, ErrUnavailable
		case n == -2:
			return nil, ErrBudget
		case n == -3:
			return nil, ErrArgument
		case n < 0:
			return nil, ErrFailed
		case int(n) > room:
			room = int(n)
		default:
			return out[:n], nil
		}
	}
}

// answer perturbs every text of a request message.
func answer(request []byte) ([]byte, error) {
	r := reader{b: request}
	var labels []string
	for k := r.uint32(); k > 0 && r.err == nil; k-- {
		labels = append(labels, r.string())
	}
	params := map[string]string{}
	for k := r.uint32(); k > 0 && r.err == nil; k-- {
		key := r.string()
		params[key] = r.string()
	}
	n := r.uint32()
	out := appendUint32(nil, int(n))
	for i := uint32(0); i < n && r.err == nil; i++ {
		t := &Text{Labels: labels, Params: params, index: i}
		t.Seed = uint64(r.uint32()) | uint64(r.uint32())<<32
		t.Label, t.Max = int(r.uint32()), int(r.uint32())
		t.Text = r.string()
		for k := r.uint32(); k > 0 && r.err == nil; k-- {
			t.Words = append(t.Words, Span{int(r.uint32()), int(r.uint32())})
		}
		for k := r.uint32(); k > 0 && r.err == nil; k-- {
			t.May = append(t.May, int(r.uint32()))
		}
		if r.err != nil {
			break
		}
		var list []string
		if each != nil {
			list = each(t)
		}
		if len(list) > t.Max {
			list = list[:t.Max]
		}
		out = appendUint32(out, len(list))
		for _, s := range list {
			out = appendString(out, s)
		}
	}
	return out, r.err
}

func appendUint32(b []byte, v int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) }

func appendString(b []byte, s string) []byte { return append(appendUint32(b, len(s)), s...) }

type reader struct {
	b   []byte
	err error
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.b, r.err = nil, errors.New("temper: message ends early")
		return 0
	}
	v := binary.LittleEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) float() float32 { return math.Float32frombits(r.uint32()) }

func (r *reader) string() string {
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.b, r.err = nil, errors.New("temper: message ends early")
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
