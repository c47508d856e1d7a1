package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parrot repeats the words of the prompt, one a piece.
type parrot struct {
	mu   sync.Mutex
	last Generation
	hold chan struct{} // when not nil, Generate waits for it
}

func (p *parrot) Models() []Model {
	return []Model{{ID: "parrot", Created: 1, Context: 64, Kinds: []string{KindGenerate, KindEmbed, KindClassify}}}
}

func (p *parrot) known(model string) error {
	if model != "parrot" {
		return fmt.Errorf("%w: %q", ErrNoModel, model)
	}
	return nil
}

func (p *parrot) Prompt(model string, ms []Message, _ any) (string, error) {
	var b strings.Builder
	for _, m := range ms {
		if m.Role == "clown" {
			return "", fmt.Errorf("%w: unknown role clown", ErrBadRequest)
		}
		b.WriteString(m.Content + " ")
	}
	return b.String(), p.known(model)
}

func (p *parrot) Generate(ctx context.Context, g Generation, emit func(Piece) error) (Summary, error) {
	if err := p.known(g.Model); err != nil {
		return Summary{}, err
	}
	p.mu.Lock()
	p.last = g
	p.mu.Unlock()
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return Summary{}, ctx.Err()
		}
	}
	words := strings.Fields(g.Prompt)
	for i, w := range words {
		if g.PromptLogProbs {
			if err := emit(Piece{Prompt: true, LogProbs: []TokenLogProb{{First: i == 0, Token: w + " ", LogProb: -0.25}}}); err != nil {
				return Summary{}, err
			}
		}
	}
	s := Summary{PromptTokens: len(words), Finish: "stop"}
	for i, w := range words {
		if w == "BOOM" {
			return s, errors.New("broken weights")
		}
		if g.MaxTokens > 0 && i >= g.MaxTokens {
			s.Finish = "length"
			break
		}
		piece := Piece{Text: w + " "}
		if g.LogProbs >= 0 {
			piece.LogProbs = []TokenLogProb{{Token: w, Bytes: []byte(w), LogProb: -0.5, Top: []TokenLogProb{{Token: w, LogProb: -0.5}}}}
		}
		s.Tokens++
		if err := emit(piece); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (p *parrot) Embed(_ context.Context, model string, texts []string) ([][]float32, int, error) {
	out := make([][]float32, len(texts))
	for i := range out {
		out[i] = []float32{0.6, 0.8, 0}
	}
	return out, 7, p.known(model)
}

func (p *parrot) Classify(_ context.Context, model string, texts, labels []string) ([]Class, int, error) {
	out := make([]Class, len(texts))
	for i := range out {
		out[i] = Class{"ham", 0.9, map[string]float64{"ham": 0.9, "spam": 0.1}}
	}
	return out, 7, p.known(model)
}

func post(t *testing.T, h http.Handler, path, body string, header ...string) (int, string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestChat(t *testing.T) {
	p := &parrot{}
	s := New(p, Options{})
	code, body := post(t, s, "/v1/chat/completions", `{"model":"parrot","messages":[{"role":"user","content":[{"type":"text","text":"hello there"}]}],
		"max_completion_tokens":1,"logprobs":true,"top_logprobs":1,"seed":5,"temperature":0,"logit_bias":{"3":-2},"stop":"x"}`)
	require.Equal(t, 200, code, body)
	var a struct {
		Object  string
		Choices []struct {
			Message struct{ Role, Content string }
			Finish  string `json:"finish_reason"`
			LP      struct {
				Content []struct {
					Token string
					Bytes []int
				}
			} `json:"logprobs"`
		}
		Usage struct {
			Total int `json:"total_tokens"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &a))
	require.Equal(t, "chat.completion", a.Object)
	require.Equal(t, "hello ", a.Choices[0].Message.Content)
	require.Equal(t, "length", a.Choices[0].Finish)
	require.Equal(t, []int{'h', 'e', 'l', 'l', 'o'}, a.Choices[0].LP.Content[0].Bytes)
	require.Equal(t, 3, a.Usage.Total)
	require.Equal(t, uint64(5), p.last.Sample.Seed)
	require.Equal(t, -2.0, p.last.Sample.Bias[3])
	require.Equal(t, []string{"x"}, p.last.Stop)
	require.True(t, p.last.Raw)
}

func TestStream(t *testing.T) {
	s := httptest.NewServer(New(&parrot{}, Options{}))
	defer s.Close()
	resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(
		`{"model":"parrot","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"a b <c>"}]}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	var events []string
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if line := sc.Text(); line != "" {
			events = append(events, strings.TrimPrefix(line, "data: "))
		}
	}
	require.Len(t, events, 6) // three words, the finish, the usage, the end
	require.Contains(t, events[0], `"role":"assistant"`)
	require.Contains(t, events[2], `"content":"<c> "`)
	require.Contains(t, events[3], `"finish_reason":"stop"`)
	require.Contains(t, events[4], `"choices":[],"usage":{"prompt_tokens":3`)
	require.Equal(t, "[DONE]", events[5])
}

func TestStreamFailsLate(t *testing.T) {
	code, body := post(t, New(&parrot{}, Options{}), "/v1/completions", `{"model":"parrot","stream":true,"prompt":"a BOOM"}`)
	require.Equal(t, 200, code)
	require.Contains(t, body, "broken weights")
	require.NotContains(t, body, "[DONE]")
	code, _ = post(t, New(&parrot{}, Options{}), "/v1/completions", `{"model":"parrot","stream":true,"prompt":"BOOM"}`)
	require.Equal(t, 500, code)
}

func TestRoutes(t *testing.T) {
	s := New(&parrot{}, Options{MaxBody: 2000, MaxTexts: 3})
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/completions", `{"model":"parrot","prompt":"a b","echo":true,"logprobs":1}`, 200, `"text":"a ba b "`},
		{"/v1/completions", `{"model":"parrot","prompt":["a","b"]}`, 400, "one text a request"},
		{"/v1/completions", `{"model":"crow","prompt":"a"}`, 404, "model_not_found"},
		{"/v1/completions", `{"prompt":"a"}`, 400, "model is missing"},
		{"/v1/completions", `{"model":"parrot","prompt":"a","n":2}`, 400, "n = 2"},
		{"/v1/completions", `{"model":"parrot","prompt":"a","temperature":-1}`, 400, "temperature"},
		{"/v1/completions", `{"model":"parrot","prompt":"a","max_tokens":0}`, 400, "max_tokens"},
		{"/v1/completions", `{"model":"parrot","prompt":"a","logit_bias":{"x":1}}`, 400, "token id"},
		{"/v1/completions", `{"model":"parrot","prompt":"a","mirostat":2,"top_k":3}`, 400, "mirostat"},
		{"/v1/completions", `{"model":"parrot","prompt":"a"} {}`, 400, "more than one"},
		{"/v1/completions", `nope`, 400, "not the JSON object"},
		{"/v1/completions", `{"model":"` + strings.Repeat("x", 3000) + `"}`, 413, "larger than 2000"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[]}`, 400, "messages is empty"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[{"content":"x"}]}`, 400, "no role"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[{"role":"clown","content":"x"}]}`, 400, "clown"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, "only text"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[{"role":"user","content":"x"}],"response_format":{"type":"yaml"}}`, 400, "yaml"},
		{"/v1/chat/completions", `{"model":"parrot","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema"}}`, 400, "schema is missing"},
		{"/v1/embeddings", `{"model":"parrot","input":"x"}`, 200, `"embedding":[0.6,0.8,0]`},
		{"/v1/embeddings", `{"model":"parrot","input":["x","y"],"dimensions":1}`, 200, `"index":1,"embedding":[1]`},
		{"/v1/embeddings", `{"model":"parrot","input":"x","encoding_format":"base64"}`, 200, `"mpkZP83MTD8AAAAA"`},
		{"/v1/embeddings", `{"model":"parrot","input":["1","2","3","4"]}`, 400, "at most 3"},
		{"/v1/embeddings", `{"model":"parrot","input":7}`, 400, "string or a list"},
		{"/v1/classify", `{"model":"parrot","input":["x"],"labels":["a"]}`, 200, `"label":"ham","score":0.9`},
		{"/v1/nothing", `{}`, 404, "unknown_url"},
	} {
		code, body := post(t, s, c.path, c.body)
		require.Equal(t, c.status, code, "%s %s: %s", c.path, c.body, body)
		require.Contains(t, body, c.want)
	}
	for path, want := range map[string]string{"/v1/models": `"id":"parrot"`, "/v1/models/parrot": `"context_length":64`, "/health": "ok", "/metrics": `temper_requests_total{route="embeddings",status="200"} 3`} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Body.String(), want)
	}
}

func TestKeys(t *testing.T) {
	s := New(&parrot{}, Options{Keys: []string{"secret", "other"}, CORS: []string{"https://a.example"}})
	body := `{"model":"parrot","prompt":"a"}`
	for header, status := range map[string]int{"": 401, "Bearer wrong": 401, "secret": 401, "Bearer secret": 200, "Bearer other": 200} {
		code, _ := post(t, s, "/v1/completions", body, "Authorization", header)
		require.Equal(t, status, code, header)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodOptions, "/v1/completions", nil)
	r.Header.Set("Origin", "https://a.example")
	s.ServeHTTP(w, r)
	require.Equal(t, 204, w.Code)
	require.Equal(t, "https://a.example", w.Header().Get("Access-Control-Allow-Origin"))
	w = httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health", nil))
	require.Equal(t, 200, w.Code, "health needs no key")
}

func TestLimitsAndDrain(t *testing.T) {
	p := &parrot{hold: make(chan struct{})}
	s := New(p, Options{Queue: 1, Deadline: 5 * time.Second})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l, 5*time.Second) }()
	url := "http://" + l.Addr().String() + "/v1/completions"
	body := `{"model":"parrot","prompt":"a"}`
	type result struct {
		code int
		body string
	}
	got := make(chan result, 1)
	go func() {
		resp, err := http.Post(url, "", strings.NewReader(body))
		if err != nil {
			got <- result{0, err.Error()}
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- result{resp.StatusCode, string(b)}
	}()
	require.Eventually(t, func() bool { return s.active.Load() == 1 }, 3*time.Second, time.Millisecond)
	code, text := post(t, s, "/v1/completions", body)
	require.Equal(t, 429, code, text)
	stop() // drains: the running request ends well, a new one is refused
	require.Eventually(t, s.drain.Load, 3*time.Second, time.Millisecond)
	code, text = post(t, s, "/v1/completions", body)
	require.Equal(t, 503, code, text)
	close(p.hold)
	r := <-got
	require.Equal(t, 200, r.code, r.body)
	require.NoError(t, <-done)
}

func TestDeadline(t *testing.T) {
	s := New(&parrot{hold: make(chan struct{})}, Options{Deadline: 20 * time.Millisecond})
	code, body := post(t, s, "/v1/completions", `{"model":"parrot","prompt":"a"}`)
	require.Equal(t, 504, code, body)
}

// With echo and logprobs the prompt's tokens come first, the first of them with null; max_tokens 0 asks for nothing else.
func TestPromptLogProbs(t *testing.T) {
	s := httptest.NewServer(New(&parrot{}, Options{}))
	t.Cleanup(s.Close)
	ask := func(body string) (int, map[string]any) {
		r, err := http.Post(s.URL+"/v1/completions", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer r.Body.Close()
		var v map[string]any
		require.NoError(t, json.NewDecoder(r.Body).Decode(&v))
		return r.StatusCode, v
	}
	code, v := ask(`{"model":"parrot","prompt":"one two","echo":true,"logprobs":1,"max_tokens":0}`)
	require.Equal(t, 200, code)
	choice := v["choices"].([]any)[0].(map[string]any)
	require.Equal(t, "one two", choice["text"])
	require.Equal(t, "length", choice["finish_reason"])
	lp := choice["logprobs"].(map[string]any)
	require.Equal(t, []any{"one ", "two "}, lp["tokens"])
	require.Equal(t, []any{nil, -0.25}, lp["token_logprobs"])
	require.Equal(t, []any{0.0, 4.0}, lp["text_offset"])
	require.Equal(t, 0.0, v["usage"].(map[string]any)["completion_tokens"])

	_, v = ask(`{"model":"parrot","prompt":"one two","echo":true,"logprobs":1,"max_tokens":1}`)
	choice = v["choices"].([]any)[0].(map[string]any)
	require.Equal(t, "one twoone ", choice["text"])
	require.Len(t, choice["logprobs"].(map[string]any)["tokens"], 3)

	_, v = ask(`{"model":"parrot","prompt":"one two","prompt_logprobs":0,"max_tokens":1}`)
	choice = v["choices"].([]any)[0].(map[string]any)
	require.Nil(t, choice["logprobs"])
	require.Equal(t, []any{nil, -0.25}, choice["prompt_logprobs"].(map[string]any)["token_logprobs"])

	for body, want := range map[string]string{
		`{"model":"parrot","prompt":"a","max_tokens":0}`:                    "want 1 or more",
		`{"model":"parrot","prompt":"a","prompt_logprobs":21}`:              "want 0 to 20",
		`{"model":"parrot","prompt":"a","prompt_logprobs":1,"stream":true}`: "cannot be streamed",
		`{"model":"parrot","prompt":"a","prompt_logprobs":1,"logprobs":2}`:  "the same number",
		`{"model":"parrot","prompt":"a","echo":true,"max_tokens":-1}`:       "want 0 or more",
	} {
		code, v := ask(body)
		require.Equal(t, 400, code, body)
		require.Contains(t, v["error"].(map[string]any)["message"], want)
	}
}
