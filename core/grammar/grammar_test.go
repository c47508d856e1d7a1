package grammar

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		name, grammar string
		yes, no       []string
	}{
		{"literals", `root ::= "yes" | "no"`, []string{"yes", "no"}, []string{"", "y", "yesno", "maybe"}},
		{"repeats", "root ::= [0-9]+ (\".\" [0-9]{1,3})?", []string{"1", "12.5", "0.123"}, []string{"", ".5", "1.", "1.1234"}},
		{"unicode", `root ::= [α-ω]* [^a-z] .`, []string{"αβγ!x", "é漢", "1😀"}, []string{"a", "αaa"}},
		{"recursion", "root ::= \"(\" root \")\" | \"\"", []string{"", "()", "((()))"}, []string{"(", "())"}},
		{"lines and comments", "root ::= a # first\n  | b\na ::= \"x\"\n# more\nb ::= \"\\n\" \"\\u00e9\"", []string{"x", "\né"}, []string{"a"}},
		{"exact count", `root ::= ("ab"){2}`, []string{"abab"}, []string{"ab", "ababab"}},
		{"open count", `root ::= "a"{2,}`, []string{"aa", "aaaaa"}, []string{"a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := Parse(c.grammar)
			require.NoError(t, err)
			for _, s := range c.yes {
				ok, err := g.Matches(s)
				require.NoError(t, err)
				require.True(t, ok, "%q should match", s)
			}
			for _, s := range c.no {
				ok, err := g.Matches(s)
				require.NoError(t, err)
				require.False(t, ok, "%q should not match", s)
			}
		})
	}
}

// Bounded numbers: what the grammar takes lies between the bounds, and what lies between them is taken.
func TestBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 120 {
		lo, hi := rng.IntN(3000)-1500, 0
		hi = lo + 1 + rng.IntN(1+rng.IntN(4000))
		g, err := FromSchema([]byte(fmt.Sprintf(`{"type":"integer","minimum":%d,"exclusiveMaximum":%d.5}`, lo, hi)))
		require.NoError(t, err)
		limit, err := strconv.ParseFloat(fmt.Sprintf("%d.5", hi), 64)
		require.NoError(t, err)
		d, err := FromSchema([]byte(fmt.Sprintf(`{"type":"number","minimum":%d.25,"maximum":%d.5}`, lo, max(lo, hi)+1)))
		require.NoError(t, err)
		for range 60 {
			n := lo + rng.IntN(2*(hi-lo)+20) - (hi-lo)/2 - 10
			if rng.IntN(4) == 0 {
				n = []int{lo, lo - 1, hi, hi + 1}[rng.IntN(4)]
			}
			ok, err := g.Matches(strconv.Itoa(n))
			require.NoError(t, err)
			require.Equal(t, n >= lo && float64(n) < limit, ok, "%d in %d to %d", n, lo, hi)
			text := fmt.Sprintf("%d.%0*d", n, 1+rng.IntN(6), rng.IntN(10))
			v, err := strconv.ParseFloat(text, 64)
			require.NoError(t, err)
			from, to := bounds(t, lo, hi)
			ok, err = d.Matches(text)
			require.NoError(t, err)
			require.Equal(t, v >= from && v <= to && text != "-0.0", ok && text != "-0.0", "%s in %g to %g", text, from, to)
		}
	}
	for _, c := range []struct {
		schema  string
		yes, no []string
	}{
		{`{"type":"integer","minimum":0}`, []string{"0", "7", "123456789012"}, []string{"-1", "01", "1.0"}},
		{`{"type":"integer","maximum":-5}`, []string{"-5", "-123"}, []string{"-4", "0", "5"}},
		{`{"type":"integer","minimum":1,"maximum":5}`, []string{"1", "5"}, []string{"0", "6", "10"}},
		{`{"type":"number","minimum":0,"maximum":1}`, []string{"0", "1", "0.5", "0.000001", "1.0", "0.999999"}, []string{"1.1", "-0.1", "1.000001", "2", "1e-3"}},
		{`{"type":"number","exclusiveMinimum":0}`, []string{"0.1", "3", "12.5"}, []string{"0", "0.0", "-1"}},
		{`{"maximum":0.5}`, []string{"-3", "0.5", "0.50", "0.49", "0"}, []string{"0.51", "0.500001", "1"}},
	} {
		g, err := FromSchema([]byte(c.schema))
		require.NoError(t, err)
		for want, list := range map[bool][]string{true: c.yes, false: c.no} {
			for _, s := range list {
				ok, err := g.Matches(s)
				require.NoError(t, err)
				require.Equal(t, want, ok, "%s under %s", s, c.schema)
			}
		}
	}
}

// bounds are those of the numbers in TestBounds, read as a JSON parser reads them.
func bounds(t *testing.T, lo, hi int) (from, to float64) {
	from, err := strconv.ParseFloat(fmt.Sprintf("%d.25", lo), 64)
	require.NoError(t, err)
	to, err = strconv.ParseFloat(fmt.Sprintf("%d.5", max(lo, hi)+1), 64)
	require.NoError(t, err)
	return from, to
}

func TestUTF8Ranges(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		lo := rune(rng.IntN(utf8.MaxRune))
		hi := min(lo+rune(rng.IntN(1<<rng.IntN(20))), utf8.MaxRune)
		p := &parser{g: &Grammar{}}
		el, err := p.set([]runeRange{{lo, hi}})
		require.NoError(t, err)
		p.g.rules = append(p.g.rules, []seq{el})
		p.g.root = len(p.g.rules) - 1
		for _, r := range []rune{lo, hi, lo - 1, hi + 1, (lo + hi) / 2, 'a', 0x10ffff} {
			if !utf8.ValidRune(r) {
				continue
			}
			ok, err := p.g.Matches(string(r))
			require.NoError(t, err)
			require.Equal(t, lo <= r && r <= hi, ok, "%x in [%x, %x]", r, lo, hi)
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                        "root",
		`root = "a"`:              "::=",
		`root ::= a`:              "not defined",
		`root ::= root "a" | "b"`: "left-recursive",
		"root ::= a \"x\" | \"q\"\na ::= \"\" root": "left-recursive",
		`root ::= "a" root`:                         "no finite text",
		`root ::= "a`:                               "not closed",
		`root ::= [a`:                               "not closed",
		`root ::= [z-a]`:                            "reversed",
		`root ::= ("a"`:                             "expected )",
		`root ::= "a"{3,2}`:                         "below",
		`root ::= "a"{999999}`:                      "at most",
		`root ::= "\q"`:                             "escape",
		"root ::= \"a\"\nroot ::= \"b\"":            "twice",
		strings.Repeat("(", 300):                    "rule name",
		"root ::= " + strings.Repeat("(", 300):      "nested",
	} {
		_, err := Parse(text)
		require.ErrorContains(t, err, want, "%q", text)
	}
}

const person = `{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer"},
 "tags":{"type":"array","items":{"enum":["a","b\"c"]},"minItems":1,"maxItems":2},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
 "required":["name","tags"],"additionalProperties":false}`

func TestSchema(t *testing.T) {
	for _, c := range []struct {
		name, schema string
		yes, no      []string
	}{
		{"person", person,
			[]string{`{"name":"Ann","tags":["a"]}`, `{"name":"","age":-3,"tags":["a","b\"c"],"next":null}`, `{"name":"x","tags":["a"],"next":{"name":"y","tags":["a"]}}`},
			[]string{`{}`, `{"name":"Ann"}`, `{"name":"Ann","tags":[]}`, `{"tags":["a"],"name":"Ann"}`, `{"name":"Ann","tags":["c"]}`, `{"name":"Ann","tags":["a"],"x":1}`, `{"name":"Ann","age":01,"tags":["a"]}`}},
		{"all optional", `{"properties":{"a":{"type":"boolean"},"b":{"type":"null"},"c":{"const":1}}}`,
			[]string{`{}`, `{"a":true}`, `{"b":null}`, `{"a":false,"c":1}`, `{"a":true,"b":null,"c":1}`, `{"b":null, "c":1}`}, []string{`{,"a":true}`, `{"a":true,}`, `{"c":2}`}},
		{"extra", `{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"string"}}`,
			[]string{`{}`, `{"a":1}`, `{"x":"y"}`, `{"a":1,"x":"y","z":""}`}, []string{`{"x":1}`, `{"a":1,}`}},
		{"tuple", `{"type":"array","prefixItems":[{"type":"integer"},{"type":["string","null"]}]}`, []string{`[1,"x"]`, `[ 1, null ]`}, []string{`[1]`, `[1,"x",2]`}},
		{"date", `{"type":"string","format":"date-time"}`, []string{`"2026-11-24T03:04:05Z"`}, []string{`"2026-13-24T03:04:05Z"`, `"x"`}},
		{"pattern", `{"type":"string","pattern":"^[A-Z]{2}-\\d{1,3}(x|yz)?$"}`, []string{`"AB-1"`, `"ZZ-123yz"`}, []string{`"AB-"`, `"AB-1234"`, `"aB-1"`, `" AB-1"`}},
		{"pattern inside", `{"type":"string","pattern":"a.c"}`, []string{`"abc"`, `"xxabcé"`, `"a\"c"`}, []string{`"ac"`, `"ab"`}},
		{"pattern of escapes", `{"pattern":"^[^a]\\\\\"$"}`, []string{`"b\\\""`, `"\n\\\""`}, []string{`"a\\\""`, "\"b\\\""}},
		{"patterns to choose from", `{"type":"string","pattern":"^a+$|^b"}`, []string{`"aa"`, `"bx"`}, []string{`"ab"`, `"xb"`}},
		{"formats", `{"type":"array","prefixItems":[{"format":"ipv4"},{"format":"email"},{"format":"hostname"},{"format":"uri"},{"format":"ipv6"}]}`,
			[]string{`["127.0.0.1","a.b@example.org","x-1.example","https://example.org:80/a/b?c=d","1:2:3:4:5:6:7:abcd"]`},
			[]string{`["256.0.0.1","a.b@example.org","x","https://example.org","1:2:3:4:5:6:7:8"]`, `["1.0.0.1","a.b@","x","https://example.org","1:2:3:4:5:6:7:8"]`}},
		{"values of a type", `{"type":["integer","null"],"enum":["a",1,2.0,2.5,null,true,[],{}]}`, []string{`1`, `2.0`, `null`}, []string{`"a"`, `2.5`, `true`, `[]`, `{}`}},
		{"type beside anyOf", `{"type":"string","anyOf":[{"enum":["a",1]},{"type":"string","pattern":"^b+$"}]}`, []string{`"a"`, `"bb"`}, []string{`1`, `"c"`}},
		{"allOf", `{"type":"object","allOf":[{"$ref":"#/$defs/a"},{"properties":{"y":{"type":"null"}},"required":["y"]}],"$defs":{"a":{"type":"object","properties":{"x":{"const":1}}}}}`,
			[]string{`{"x":1,"y":null}`, `{"y":null}`}, []string{`{"x":1}`}},
		{"any", `{}`, []string{`{"a":[1,2.5e3,{"b":null}]}`, `"\u00e9\n"`}, []string{`{a:1}`, `[1,]`, "\"\n\""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := FromSchema([]byte(c.schema))
			require.NoError(t, err)
			for _, s := range c.yes {
				ok, err := g.Matches(s)
				require.NoError(t, err)
				require.True(t, ok, "%s should match", s)
				require.True(t, json.Valid([]byte(s)))
			}
			for _, s := range c.no {
				ok, err := g.Matches(s)
				require.NoError(t, err)
				require.False(t, ok, "%s should not match", s)
			}
		})
	}
	for schema, want := range map[string]string{
		`{"type":"string","pattern":"a(?=b)"}`: "pattern", `{"type":"string","pattern":"a^b"}`: "at its ends", `{"type":"string","pattern":3}`: "want a string",
		`{"type":"string","pattern":"a","maxLength":3}`: "one at a time", `{"type":"string","format":"idn-email"}`: "not supported",
		`{"type":"integer","minimum":3,"maximum":2}`: "between the bounds", `{"type":"integer","minimum":"3"}`: "want a number", `{"type":"number","maximum":1e300}`: "plain decimal",
		`{"type":"integer","multipleOf":2}`: "multipleOf", `{"type":"number","exclusiveMinimum":1,"exclusiveMaximum":1}`: "between the bounds",
		`{"type":"number","minimum":0.00000001}`: "decimals",
		`{"type":"thing"}`:                       "thing", `[1]`: "object", `{"$ref":"#/x"}`: "nowhere",
		`{"$ref":"http://x"}`: "same schema", `{"enum":[]}`: "empty", `{"type":"array","minItems":3,"maxItems":1}`: "below", `{`: "EOF",
		`{"type":"string","const":1}`: "no value is of type string", `{"enum":[1,5],"minimum":3}`: `"minimum" beside "enum"`, `{"const":1,"enum":[1]}`: `"enum" beside "const"`,
		`{"anyOf":[{"type":"null"}],"required":["a"]}`: `"required" beside "anyOf"`, `{"anyOf":[{}],"oneOf":[{}]}`: `"oneOf" beside "anyOf"`, `{"oneOf":[]}`: "oneOf is empty",
		`{"type":"string","anyOf":[{"type":"null"}]}`: "want it in each", `{"$ref":"#/$defs/a","maxLength":3,"$defs":{"a":{"type":"string"}}}`: `"maxLength" beside "$ref"`,
		`{"allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]}`: `"additionalProperties" beside "allOf"`,
		`{"type":"array","prefixItems":[{}],"minItems":2}`:                                         "prefixItems has 1",
		`{"required":["a"]}`: "not described", `{"type":"string","maxLength":1e9}`: "maxLength",
	} {
		_, err := FromSchema([]byte(schema))
		require.ErrorContains(t, err, want, schema)
	}
}

// Random walks over a small vocabulary always end in text that parses, whatever the model wants.
func TestMatcherAlwaysParses(t *testing.T) {
	var vocab [][]byte
	for b := range 256 {
		vocab = append(vocab, []byte{byte(b)})
	}
	for _, w := range []string{`{"`, `":`, `name`, `"name"`, `tags`, `["a`, `"]}`, `null`, `ab`, `é`, `, `} {
		vocab = append(vocab, []byte(w))
	}
	eos := int32(len(vocab))
	vocab = append(vocab, []byte("</s>"))
	v := NewVocab(vocab, []int32{eos})
	g, err := FromSchema([]byte(person))
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		m, err := NewMatcher(g, v, vocab)
		require.NoError(t, err)
		var text []byte
		for {
			logits := make([]float32, len(vocab))
			for i := range logits {
				logits[i] = rng.Float32()
			}
			logits['}'] += 0.5 // end sooner
			logits['"'] += 0.5
			require.NoError(t, m.Allow(logits))
			best := int32(0)
			for i, l := range logits {
				if l > logits[best] {
					best = int32(i)
				}
			}
			require.False(t, math.IsInf(float64(logits[best]), -1))
			require.NoError(t, m.Accept(best))
			if best == eos {
				break
			}
			text = append(text, vocab[best]...)
			require.Less(t, len(text), 100000)
		}
		var p struct{ Name *string }
		require.NoError(t, json.Unmarshal(text, &p), "%s", text)
		require.NotNil(t, p.Name)
	}
}

func TestMatcherRefusesOutsiders(t *testing.T) {
	vocab := [][]byte{[]byte("a"), []byte("b"), {}}
	g, err := Parse(`root ::= "c"`)
	require.NoError(t, err)
	m, err := NewMatcher(g, NewVocab(vocab, []int32{2}), vocab)
	require.NoError(t, err)
	require.ErrorContains(t, m.Allow(make([]float32, 3)), "no token")
	require.Error(t, m.Accept(0))
	require.Error(t, m.Accept(2))
	require.Error(t, m.Accept(9))
	require.False(t, slices.Contains(m.states, nil))
}

func FuzzParse(f *testing.F) {
	f.Add(`root ::= [a-z]+ ("x" | root2)? {2}`+"\nroot2 ::= \"y\"", "abc")
	f.Add(`root ::= ("a" | "b"){1,5}`, "ab")
	f.Fuzz(func(t *testing.T, text, input string) {
		if len(text) > 500 || len(input) > 100 {
			return
		}
		if g, err := Parse(text); err == nil {
			_, _ = g.Matches(input)
		}
	})
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(person), `{"name":"x"}`)
	f.Fuzz(func(t *testing.T, schema []byte, input string) {
		if len(schema) > 500 || len(input) > 100 {
			return
		}
		if g, err := FromSchema(schema); err == nil {
			if ok, err := g.Matches(input); err == nil && ok && !json.Valid([]byte(input)) {
				t.Fatalf("%q meets %s but is not JSON", input, schema)
			}
		}
	})
}
