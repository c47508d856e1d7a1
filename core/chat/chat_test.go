package chat

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/temper-ml/temper/tests/fixture"
)

var vars = map[string]json.RawMessage{
	"n": json.RawMessage(`3`), "y": json.RawMessage(`-2.5`), "s": json.RawMessage(`"Hello World"`), "list": json.RawMessage(`[3,1,2]`),
	"d": json.RawMessage(`{"b":1,"a":{"c":[1,2.0,null,true]}}`), "recs": json.RawMessage(`[{"k":"z","v":1},{"k":"a","v":2}]`),
}

func render(t *testing.T, source string) (string, error) {
	t.Helper()
	tpl, err := Parse(source)
	if err != nil {
		return "", err
	}
	return tpl.Render(Input{Messages: Messages(Message{"user", " hi "}, Message{"assistant", "yo"}), Variables: vars, Tokens: map[string]string{"bos_token": "<s>"},
		Now: func() time.Time { return time.Date(2025, 1, 9, 13, 4, 5, 0, time.UTC) }})
}

func TestExpressions(t *testing.T) {
	for source, want := range map[string]string{
		`{{ n / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 1e20 }} {{ 0.1 + 0.2 }}`: "1.5 -4 2 1024 1e+20 0.30000000000000004",
		`{{ true }} {{ none }} {{ missing }}|{{ list }} {{ d }} {{ (1,) }}`:               "True None |[3, 1, 2] {'b': 1, 'a': {'c': [1, 2.0, None, True]}} (1,)",
		`{{ s[1:4] }}{{ s[::-1] }}{{ list[-1] }}{{ list[9] }}{{ list[1:] }}`:              "elldlroW olleH2[1, 2]",
		`{{ d|tojson }}`: `{"b": 1, "a": {"c": [1, 2.0, null, true]}}`,
		`{{ {'b': 1, 'a': ['é']}|tojson(indent=2) }}`:                                                                           "{\n  \"b\": 1,\n  \"a\": [\n    \"é\"\n  ]\n}",
		`{{ 'é<'|tojson }}{{ 'é'|tojson(ensure_ascii=true) }}`:                                                                  `"é<""\u00e9"`,
		`{{ 1 < 2 < 3 }}{{ 3 in list }}{{ 'q' not in d }}{{ n == 3.0 }}`:                                                        "TrueTrueTrueTrue",
		`{{ recs|map(attribute='k')|join(',') }}{{ recs|sort(attribute='k')|map(attribute='v')|list }}`:                         "z,a[2, 1]",
		`{{ recs|selectattr('v', 'gt', 1)|list|length }}{{ recs|rejectattr('k', 'in', ['z'])|map(attribute='k')|first }}`:       "1a",
		`{{ 'a' ~ 1 ~ none }}{{ '%s-%d' % ('a', 3) }}{{ '{}{x}'.format(1, x=2) }}`:                                              "a1Nonea-312",
		`{{ "it's" ~ ["it's", 'a"b'] }}`:                                                                                        `it's["it's", 'a"b']`,
		`{% for i in list %}{{ loop.index }}{{ i }}{{ ',' if not loop.last }}{% endfor %}`:                                      "13,21,32",
		`{% set a = 1 %}{% for i in list %}{% set a = i %}{% endfor %}{{ a }}`:                                                  "1",
		`{% set ns = namespace(t=0) %}{% for i in list %}{% set ns.t = ns.t + i %}{% endfor %}{{ ns.t }}`:                       "6",
		`{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ varargs }}]{% endmacro %}{{ m(1) }}{{ m(1, b=5) }}{{ m(1, 2, 3) }}`:             "[12()][15()][12(3,)]",
		`{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %}`:                                            "<in>",
		`{% for r in [[1, [2]], [3]] recursive %}{% if r is iterable %}({{ loop(r) }}){% else %}{{ r }}{% endif %}{% endfor %}`: "(1(2))(3)",
		"a\n  {% if true %}\n  b\n  {% endif %}\nc\n":                                                                           "a\n  b\nc",
		"a {#- x -#} b {{- 1 -}} c":                                                 "ab1c",
		"{% raw %}{{ x }}{% endraw %}":                                              "{{ x }}",
		`{{ strftime_now('%d %b %Y %H:%M') }}`:                                      "09 Jan 2025 13:04",
		`{{ messages[0].content | trim }}{{ messages[-1]['role'] }}{{ bos_token }}`: "hiassistant<s>",
		`{{ 'ß'.upper() }}{{ s.title() }}{{ ' x '.strip() }}{{ s.split('o', 1) }}`:  "SSHello Worldx['Hell', ' World']",
		`{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}`: "023",
	} {
		got, err := render(t, source)
		if assert.NoError(t, err, source) {
			assert.Equal(t, want, got, source)
		}
	}
}

func TestErrors(t *testing.T) {
	for source, want := range map[string]string{
		`{{ 'a' + 1 }}`:                 "can only concatenate str",
		`{{ missing.x }}`:               "'missing' is undefined",
		`{{ missing() }}`:               "'missing' is undefined",
		`{{ 1 / 0 }}`:                   "division by zero",
		`{{ list.append(1) }}`:          "unsafe",
		`{{ d.update({}) }}`:            "unsafe",
		`{{ n|nothing }}`:               "no filter named",
		`{{ n is nothing }}`:            "no test named",
		`{% for i in 5 %}{% endfor %}`:  "not iterable",
		`{% set n.x = 1 %}`:             "non-namespace",
		`{{ missing|tojson }}`:          "not JSON serializable",
		`{% if %}{% endif %}`:           "expected a value",
		`{% if true %}`:                 "not closed",
		`{{ 'a }}`:                      "not closed",
		`{{ (1 }}`:                      "unexpected",
		`{% include 'x' %}`:             "not supported",
		"\n\n{% nonsense %}":            "line 3",
		`{{ namespace(_x=1) }}`:         "underscore",
		`{{ 9223372036854775807 + 1 }}`: "64 bits",
	} {
		_, err := render(t, source)
		assert.ErrorContains(t, err, want, source)
	}
	_, err := render(t, `{{ raise_exception('no ' ~ n) }}`)
	var own *TemplateError
	require.True(t, errors.As(err, &own))
	assert.Equal(t, "no 3", own.Message)
}

// hostile templates would take for ever, or all memory, or the stack.
var hostile = []string{
	`{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}`,
	`{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}`,
	`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`,
	`{% macro m() %}{{ m() ~ m() }}{% endmacro %}{{ m() }}`,
	`{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}`,
	`{% set ns = namespace(x=[1,2,3]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}`,
	`{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`,
	`{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}{{ ns.x|tojson }}`,
	`{{ 'x' * 1000000000000 }}`, `{{ [1] * 1000000000000 }}`, `{{ range(1000000000000)|list }}`, `{{ 2 ** 9999999 }}`, `{{ 'a'.ljust(99999999999) }}`,
	`{{ '%99999999d' % 1 }}`, `{{ ('a' * 10000).replace('', 'b' * 10000) }}`, `{{ ('a,' * 100000).split(',')|join('x' * 100000) }}`,
	strings.Repeat("{{ (", 1) + strings.Repeat("(", 5000), strings.Repeat("{% if 1 %}", 5000), "{{ " + strings.Repeat("not ", 5000) + "1 }}", "{{ " + strings.Repeat("-", 5000) + "1 }}",
	"{{ " + strings.Repeat("[", 5000) + " }}", "{{ 1" + strings.Repeat(" if 1 else 1", 5000) + " }}", "{{ x" + strings.Repeat("|upper", 9000) + " }}",
	`{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}{{ ns == ns }}{{ ns|tojson }}`,
	`{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}`, `{{ ''.join(['a' * 1000000] * 90000) }}`, `{{ (['a' * 1000000] * 90000)|tojson }}`,
	`{{ {1: 2}[[]] }}`, `{{ {[]: 2} }}`, `{{ 'abc'['x'] }}`, `{{ list|batch(0) }}`, `{{ list|sort(attribute='x.y') }}`, `{{ '{'.format() }}`, `{{ '%' % 1 }}`, "{{ '\\x' }}", "{{ '\\u12' }}",
	`{{ list[::0] }}`, `{{ list[-9223372036854775807:9223372036854775807:9223372036854775807] }}`, `{{ s[9223372036854775807] }}`, `{{ range(0, 9223372036854775807, 9223372036854775806)|list }}`,
}

func TestHostileTemplates(t *testing.T) {
	for _, source := range hostile {
		begin := time.Now()
		out, err := render(t, source)
		if err == nil {
			assert.LessOrEqual(t, len(out), maxText)
		}
		assert.NotContains(t, errText(err), "internal error", source)
		assert.Less(t, time.Since(begin), 10*time.Second, "%.80s", source)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzTemplate(f *testing.F) {
	for _, s := range hostile[10:] {
		f.Add(s)
	}
	f.Add(`{%- for m in messages -%}{{ m.role + '\n' + m.content | trim }}{%- endfor -%}{{ tools | tojson(indent=4) if tools }}`)
	f.Fuzz(func(t *testing.T, source string) {
		if len(source) > 1<<12 {
			return
		}
		fixture.Bounded(t, len(source), 512, 1<<16, func() { _, _ = Parse(source) })
		_, err := render(t, source)
		require.NotContains(t, errText(err), "internal error")
	})
}

func TestContinueFinalMessage(t *testing.T) {
	tpl, err := Parse(`{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}`)
	require.NoError(t, err)
	in := Input{Messages: Messages(Message{"user", "a"}, Message{"assistant", "It is "}), ContinueFinalMessage: true}
	got, err := tpl.Render(in)
	require.NoError(t, err)
	assert.Equal(t, "<user>a</user><assistant>It is", got)
	in.AddGenerationPrompt = true
	_, err = tpl.Render(in)
	assert.ErrorContains(t, err, "generation prompt")
	_, err = tpl.Render(Input{ContinueFinalMessage: true})
	assert.ErrorContains(t, err, "no final message")
}

func TestFromConfig(t *testing.T) {
	tpl, tokens, err := FromConfig([]byte(`{"chat_template":"{{ bos_token }}x","bos_token":{"content":"<s>"},"eos_token":"</s>","pad_token":null}`), "")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"bos_token": "<s>", "eos_token": "</s>"}, tokens)
	out, err := tpl.Render(Input{Tokens: tokens})
	require.NoError(t, err)
	assert.Equal(t, "<s>x", out)
	named := []byte(`{"chat_template":[{"name":"default","template":"a"},{"name":"tool_use","template":"b"}]}`)
	for name, want := range map[string]string{"": "a", "tool_use": "b"} {
		tpl, _, err = FromConfig(named, name)
		require.NoError(t, err)
		assert.Equal(t, want, tpl.Source())
	}
	_, _, err = FromConfig(named, "rag")
	assert.ErrorContains(t, err, "rag")
	tpl, _, err = FromConfig([]byte(`{}`), "")
	require.NoError(t, err)
	assert.Nil(t, tpl)
	for _, bad := range []Input{{Messages: []byte(`{}`)}, {Messages: []byte(`[1]`)}, {Messages: []byte(`[`)}, {Tools: []byte(`x`)}, {Variables: map[string]json.RawMessage{"a": []byte("?")}}} {
		tpl, err := Parse("x")
		require.NoError(t, err)
		_, err = tpl.Render(bad)
		assert.Error(t, err)
	}
}
