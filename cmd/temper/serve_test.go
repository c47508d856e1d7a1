package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/serve"
)

// builtinServer serves the built-in models as temper serve does.
func builtinServer(t testing.TB, deadline time.Duration) *serve.Server {
	a := &app{err: io.Discard, quiet: true, threads: 1}
	t.Cleanup(func() { a.close() })
	cmd := &cobra.Command{}
	cmd.SetContext(context.Background())
	e, err := a.newEngine(cmd, []string{"d=" + builtinStories, "e=" + builtinBase}, nil, nil, generate.Options{Parallel: 2, Context: 128})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return serve.New(e, serve.Options{Deadline: deadline, MaxTexts: 64, MaxBody: 1 << 20})
}

// ask posts a body and checks what every answer must be: no fault of the server's, errors in OpenAI's form, an end soon after the deadline.
func ask(t testing.TB, s http.Handler, path, body string, deadline time.Duration) (int, string) {
	w := httptest.NewRecorder()
	begun := time.Now()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	took := time.Since(begun)
	if took > deadline+5*time.Second {
		t.Fatalf("%s %.300q took %s", path, body, took)
	}
	if w.Code >= 500 && w.Code != http.StatusGatewayTimeout {
		t.Fatalf("%s %.300q: %d %s", path, body, w.Code, w.Body)
	}
	if w.Code >= 400 {
		var e struct {
			Error struct{ Message, Type string }
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
		require.NotEmpty(t, e.Error.Message)
		require.NotEmpty(t, e.Error.Type)
	}
	return w.Code, w.Body.String()
}

// What a stranger may send to real models.
func TestServeHostile(t *testing.T) {
	const deadline = 20 * time.Second
	s := builtinServer(t, deadline)
	gen := func(more string) string {
		return `{"model":"d","prompt":"Once upon a time","max_tokens":8` + more + `}`
	}
	many := func(n int, format string) string {
		return strings.TrimSuffix(strings.Repeat(format+",", n), ",")
	}
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"completions", gen(``), 200, `"finish_reason":"length"`},
		{"completions", gen(`,"temperature":1e-320,"seed":1`), 200, `"text"`},
		{"completions", gen(`,"repeat_penalty":1e-300,"frequency_penalty":-100`), 200, `"text"`},
		{"completions", gen(`,"logit_bias":{"3":1e308}`), 400, "logit-bias"},
		{"completions", gen(`,"logit_bias":{"99999":1}`), 400, "vocabulary"},
		{"completions", gen(`,"grammar":"root ::= root"`), 400, "no finite text"},
		{"completions", gen(`,"grammar":"root ::= \"日本\"","logit_bias":{"0":-1e300}`), 400, "no token is left"},
		{"completions", gen(`,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"array","minItems":900,"items":{"type":"integer"}}}}`), 200, `"finish_reason":"length"`},
		{"completions", gen(`,"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}`), 400, "finite"},
		{"completions", gen(`,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"string","pattern":"((a{900}){900}){900}"}}}`), 400, "invalid repeat count"},
		{"completions", `{"model":"d","prompt":"` + strings.Repeat("word ", 5000) + `"}`, 400, "leaves no room"},
		{"completions", `{"model":"d","prompt":"","max_tokens":2}`, 400, "the prompt is empty"},
		{"completions", `{"model":"e","prompt":"a"}`, 400, "does not write text"},
		{"completions", gen(`,"prompt_logprobs":3,"logprobs":3,"dry_multiplier":1,"mirostat":2,"logit_bias":{"7":-100}`), 200, `"prompt_logprobs"`},
		{"chat/completions", `{"model":"d","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"tools":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, 0, ""},
		{"embeddings", `{"model":"d","input":"x"}`, 400, "no embeddings"},
		{"embeddings", `{"model":"e","input":["",` + many(60, `"\u0000"`) + `]}`, 200, `"embedding"`},
		{"classify", `{"model":"e","input":["x"],"labels":[` + many(1, `"a"`) + `]}`, 400, "labels"},
		{"classify", `{"model":"e","input":["x"],"labels":[` + many(100, `"a"`) + `]}`, 400, "at most 64"},
		{"classify", `{"model":"d","input":["x"],"labels":["` + strings.Repeat("long ", 3000) + `","b"]}`, 400, "shorter word"},
		{"classify", `{"model":"d","input":["` + strings.Repeat("long ", 3000) + `"],"labels":["good","bad"]}`, 200, `"scores"`},
		{"classify", `{"model":"d","input":["x"],"labels":["\u0000","\ufffd"]}`, 0, ""},
	} {
		code, body := ask(t, s, "/v1/"+c.path, c.body, deadline)
		if c.status != 0 {
			assert.Equal(t, c.status, code, "%.200s: %s", c.body, body)
		}
		assert.Contains(t, body, c.want, "%.200s", c.body)
	}
}

// FuzzServe sends anything to the built-in models: no panic, no fault of the server's, nothing that goes on after its deadline.
func FuzzServe(f *testing.F) {
	routes := []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify"}
	for route, bodies := range [][]string{
		{`{"model":"d","messages":[{"role":"system","content":"x"},{"role":"user","content":"hi"}],"max_tokens":3,"temperature":0.5,"top_p":0.5,"logprobs":true,"top_logprobs":2}`,
			`{"model":"d","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"response_format":{"type":"json_object"},"stream":true}`},
		{`{"model":"d","prompt":"Once","max_tokens":4,"mirostat":2,"mirostat_tau":3,"dry_multiplier":1,"repeat_penalty":2,"logit_bias":{"3":-100,"9":1000000}}`,
			`{"model":"d","prompt":"Once","max_tokens":4,"grammar":"root ::= (\"a\" | [^b-z]{2,3} | root2)+\nroot2 ::= \"x\"? [0-9]*","temperature":1,"min_p":0.1,"typical_p":0.4,"top_k":4}`,
			`{"model":"d","prompt":"Once","max_tokens":9,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"a":{"type":"integer","minimum":-3},` +
				`"b":{"type":"string","pattern":"^a+$"},"c":{"enum":[1,null]},"d":{"type":"array","items":{"anyOf":[{"type":"string","maxLength":3},{"type":"number"}]},"maxItems":2}},"required":["a"]}}}}`,
			`{"model":"d","prompt":"Once","max_tokens":0,"echo":true,"logprobs":3,"stop":["a","b"],"stream":true}`},
		{`{"model":"e","input":["a","b"],"dimensions":3,"encoding_format":"base64"}`},
		{`{"model":"e","input":"a","labels":["good","bad"]}`, `{"model":"d","input":["a",""],"labels":["good one","good two","bad"]}`},
	} {
		for _, b := range bodies {
			f.Add(uint8(route), []byte(b))
		}
	}
	const deadline = 5 * time.Second
	s := builtinServer(f, deadline)
	f.Fuzz(func(t *testing.T, route uint8, body []byte) {
		if len(body) <= 4000 {
			ask(t, s, routes[int(route)%len(routes)], string(body), deadline)
		}
	})
}
