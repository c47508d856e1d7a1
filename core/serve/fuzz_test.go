package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// checked is a parrot that refuses what the routes must not let through.
type checked struct {
	parrot
	t *testing.T
}

func (c *checked) Generate(ctx context.Context, g Generation, emit func(Piece) error) (Summary, error) {
	require.NoError(c.t, g.Sample.Validate())
	require.GreaterOrEqual(c.t, g.MaxTokens, 0)
	require.GreaterOrEqual(c.t, g.LogProbs, -1)
	require.LessOrEqual(c.t, g.LogProbs, 20)
	require.LessOrEqual(c.t, len(g.Stop), 16)
	require.NotContains(c.t, g.Stop, "")
	require.False(c.t, g.Grammar != "" && (g.JSON || g.Schema != nil), "two grammars")
	g.Prompt = strings.ReplaceAll(g.Prompt, "BOOM", "") // at which a parrot fails
	return c.parrot.Generate(ctx, g, emit)
}

// Any body to any route gives an answer, or an error of the caller's in OpenAI's form; never a panic, a server's error, or half an answer.
func FuzzRequest(f *testing.F) {
	routes := []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify", "/v1/models", "/v1/models/parrot", "/metrics", "/v1/%2e%2e/models"}
	chat := func(more string) string {
		return `{"model":"parrot","messages":[{"role":"user","content":"a b"}]` + more + `}`
	}
	text := func(more string) string { return `{"model":"parrot","prompt":"a b"` + more + `}` }
	for route, bodies := range [][]string{
		{chat(""), chat(`,"stream":true,"stream_options":{"include_usage":true}`), chat(`,"logprobs":true,"top_logprobs":20`), chat(`,"top_logprobs":1`),
			chat(`,"max_tokens":1,"max_completion_tokens":2`), chat(`,"max_tokens":1e3`), chat(`,"max_tokens":9223372036854775808`), chat(`,"temperature":1e999`),
			chat(`,"logit_bias":{"3":1e308}`), chat(`,"logit_bias":{"99999999999":1}`), chat(`,"logit_bias":{"3":null}`), chat(`,"seed":-9223372036854775808`),
			chat(`,"stop":["","a"]`), chat(`,"stop":[["a"]]`), chat(`,"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}`),
			chat(`,"response_format":{"type":"json_object"},"grammar":"root ::= root"`), chat(`,"tools":` + strings.Repeat("[", 50) + strings.Repeat("]", 50)),
			chat(`,"mirostat":2,"top_k":1`), chat(`,"mirostat":3`), chat(`,"n":0`), chat(`,"stream":"yes"`),
			`{"model":"parrot","messages":[{"role":"user","content":null}]}`, `{"model":"parrot","messages":[{"role":"user","content":[{"type":"text","text":7}]}]}`,
			`{"model":"parrot","messages":[{"role":7,"content":"x"}]}`, `{"model":"parrot","messages":{}}`, `{"model":["parrot"]}`, `null`, `[]`, `7`, ``, "\xff\xfe", `{"a":`,
			strings.Repeat(`{"messages":[`, 50), `{"MODEL":"parrot","Messages":[{"ROLE":"user","content":"\ud800"}]}`},
		{text(""), text(`,"echo":true,"logprobs":0,"max_tokens":0`), text(`,"prompt_logprobs":20,"stream":true`), text(`,"logprobs":-1`), text(`,"suffix":"x","best_of":7`),
			text(`,"logprobs":true`), `{"model":"parrot","prompt":""}`, `{"model":"parrot","prompt":[]}`, `{"model":"parrot","prompt":[[1,2]]}`, `{"model":"parrot","prompt":[1]}`,
			"{\"model\":\"parrot\",\"prompt\":\"\xc3\x28 \x00\"}", text(`,"max_tokens":0`), text(`,"stream":true,"echo":true,"logprobs":2`)},
		{`{"model":"parrot","input":"x","dimensions":0}`, `{"model":"parrot","input":[],"encoding_format":"base64"}`, `{"model":"parrot","input":[""],"dimensions":1e2}`, `{"input":{}}`},
		{`{"model":"parrot","input":"x","labels":[""]}`, `{"model":"parrot","input":["x"],"labels":"a"}`, `{"model":"crow","input":["x"]}`},
		{"", "{}"}, {""}, {""}, {""},
	} {
		for _, b := range bodies {
			f.Add(uint8(route), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, route uint8, body []byte) {
		h := New(&checked{t: t}, Options{MaxBody: 1 << 20, MaxTexts: 100, Deadline: 5 * time.Second})
		path := routes[int(route)%len(routes)]
		method := http.MethodPost
		if int(route)%len(routes) > 3 {
			method = http.MethodGet
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(string(body))))
		if err := wellFormed(w, path == "/metrics"); err != nil {
			t.Fatalf("%s %q: %v: %d %s", path, body, err, w.Code, w.Body)
		}
	})
}

// wellFormed checks an answer of a server whose engine does not fail.
func wellFormed(w *httptest.ResponseRecorder, plain bool) error {
	body := w.Body.Bytes()
	switch {
	case w.Code >= 500:
		return fmt.Errorf("blames the server")
	case w.Code >= 400:
		var e struct {
			Error *struct {
				Message, Type string
				Param, Code   any
			}
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		if e.Error == nil || e.Error.Message == "" || e.Error.Type == "" {
			return fmt.Errorf("not an error of OpenAI's form")
		}
		return nil
	case w.Code != http.StatusOK && !(w.Code >= 300 && w.Code < 400):
		return fmt.Errorf("unexpected status")
	case plain || w.Code != http.StatusOK:
		return nil
	case w.Header().Get("Content-Type") != "text/event-stream":
		var v map[string]any
		return json.Unmarshal(body, &v)
	}
	last := ""
	for sc := bufio.NewScanner(w.Body); sc.Scan(); {
		line := sc.Text()
		if line == "" {
			continue
		}
		event, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return fmt.Errorf("line %q is no event", line)
		}
		if last = event; event == "[DONE]" {
			continue
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(event), &v); err != nil {
			return err
		}
	}
	if last != "[DONE]" {
		return fmt.Errorf("the stream ends with %q", last)
	}
	return nil
}
