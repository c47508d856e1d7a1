package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

func post(t *testing.T, url, key string, body any) (int, map[string]any) {
	t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(t, err)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(raw))
	require.NoError(t, err)
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+key)
	r, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	defer r.Body.Close()
	got := map[string]any{}
	require.NoError(t, json.NewDecoder(r.Body).Decode(&got))
	return r.StatusCode, got
}

// events reads a stream to its end and returns the texts of its pieces.
func events(t *testing.T, url, key string, body map[string]any, pick func(map[string]any) string) (pieces []string, last string) {
	t.Helper()
	body["stream"] = true
	raw, err := json.Marshal(body)
	require.NoError(t, err)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(raw))
	require.NoError(t, err)
	q.Header.Set("Authorization", "Bearer "+key)
	r, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, "text/event-stream", r.Header.Get("Content-Type"))
	s := bufio.NewScanner(r.Body)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue
		}
		last = data
		if data == "[DONE]" {
			continue
		}
		e := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(data), &e))
		require.NotContains(t, e, "error")
		pieces = append(pieces, pick(e))
	}
	require.NoError(t, s.Err())
	return pieces, last
}

func first(e map[string]any) map[string]any {
	list, _ := e["choices"].([]any)
	if len(list) == 0 {
		return nil
	}
	c, _ := list[0].(map[string]any)
	return c
}

func text(e map[string]any) string {
	s, _ := first(e)["text"].(string)
	return s
}

func delta(e map[string]any) string {
	d, _ := first(e)["delta"].(map[string]any)
	s, _ := d["content"].(string)
	return s
}

// The server with two decoders, adapters over one, and encoders, over plain HTTP.
func TestServe(t *testing.T) {
	p := fixture.Parity(t)
	models := filepath.Join(p, "models")
	url, stop := server(t, "llama="+filepath.Join(models, "llama-causal"), "embed="+filepath.Join(models, "mpnet-embed"),
		"labels="+filepath.Join(models, "bert-seqcls"), "gguf="+filepath.Join(p, "gguf", "llama", "model-Q8_0.gguf"),
		"--adapter", "lora=llama:"+filepath.Join(p, "peft", "lora-llama"), "--adapter", "dora=llama:"+filepath.Join(p, "peft", "dora-llama"),
		"--api-key", "k1", "--api-key", "k2", "--parallel", "3", "--quiet")
	ask := func(model string, more map[string]any) map[string]any {
		q := map[string]any{"model": model, "prompt": "the quick brown", "max_tokens": 12, "temperature": 0}
		for k, v := range more {
			q[k] = v
		}
		return q
	}

	status, e := post(t, url+"/v1/completions", "wrong", ask("llama", nil))
	require.Equal(t, http.StatusUnauthorized, status)
	require.Contains(t, e["error"].(map[string]any)["message"], "API key")

	// Each model alone, then all at once: the same texts.
	alone := map[string]string{}
	for _, m := range []string{"llama", "lora", "dora", "gguf"} {
		status, e := post(t, url+"/v1/completions", "k1", ask(m, nil))
		require.Equal(t, http.StatusOK, status, e)
		alone[m] = text(e)
		require.LessOrEqual(t, e["usage"].(map[string]any)["completion_tokens"], 12.0)
		require.Contains(t, []any{"length", "stop"}, first(e)["finish_reason"])
	}
	require.NotEqual(t, alone["llama"], alone["lora"], "an adapter changes what is said")
	require.NotEqual(t, alone["lora"], alone["dora"])
	var wg sync.WaitGroup
	for range 3 {
		for m, want := range alone {
			wg.Go(func() {
				pieces, last := events(t, url+"/v1/completions", "k2", ask(m, nil), text)
				if got := strings.Join(pieces, ""); got != want || last != "[DONE]" {
					t.Errorf("%s: %q streamed, %q alone; last event %s", m, got, want, last)
				}
			})
		}
	}
	wg.Wait()

	// Dialogue, with a schema and log-probabilities.
	talk := map[string]any{"model": "llama", "temperature": 0, "max_tokens": 200, "logprobs": true, "top_logprobs": 2,
		"messages": []map[string]any{{"role": "system", "content": "be brief"}, {"role": "user", "content": []map[string]any{{"type": "text", "text": "hello"}}}},
		"response_format": map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "answer",
			"schema": map[string]any{"type": "object", "properties": map[string]any{"ok": map[string]any{"type": "boolean"}}, "required": []string{"ok"}, "additionalProperties": false}}}}
	status, e = post(t, url+"/v1/chat/completions", "k1", talk)
	require.Equal(t, http.StatusOK, status, e)
	var answer struct{ OK *bool }
	require.NoError(t, json.Unmarshal([]byte(first(e)["message"].(map[string]any)["content"].(string)), &answer))
	require.NotNil(t, answer.OK)
	require.Equal(t, "stop", first(e)["finish_reason"])
	require.NotEmpty(t, first(e)["logprobs"].(map[string]any)["content"])
	pieces, _ := events(t, url+"/v1/chat/completions", "k1", talk, delta)
	require.Equal(t, first(e)["message"].(map[string]any)["content"], strings.Join(pieces, ""))

	status, e = post(t, url+"/v1/embeddings", "k1", map[string]any{"model": "embed", "input": []string{"one", "two words"}})
	require.Equal(t, http.StatusOK, status, e)
	require.Len(t, e["data"], 2)
	status, e = post(t, url+"/v1/classify", "k1", map[string]any{"model": "labels", "input": "some text"})
	require.Equal(t, http.StatusOK, status, e)
	require.Len(t, e["data"].([]any)[0].(map[string]any)["scores"], 3)

	for _, m := range []string{"embed", "llama", "lora"} { // labels to choose from without training
		status, e = post(t, url+"/v1/classify", "k1", map[string]any{"model": m, "input": []string{"some text", "more"}, "labels": []string{"good", "bad", "odd"}})
		require.Equal(t, http.StatusOK, status, e)
		require.Len(t, e["data"], 2)
		require.Len(t, e["data"].([]any)[1].(map[string]any)["scores"], 3)
	}

	for _, c := range []struct {
		route  string
		body   any
		status int
		says   string
	}{
		{"completions", ask("nobody", nil), 404, "nobody"},
		{"completions", ask("embed", nil), 400, "does not write"},
		{"embeddings", map[string]any{"model": "llama", "input": "x"}, 400, "no embeddings"},
		{"classify", map[string]any{"model": "embed", "input": "x"}, 400, "labels"},
		{"classify", map[string]any{"model": "llama", "input": "x", "labels": []string{"one"}}, 400, "2 to"},
		{"completions", ask("llama", map[string]any{"prompt": strings.Repeat("word ", 4000)}), 400, "context"},
		{"completions", ask("llama", map[string]any{"grammar": `root ::= "a`}), 400, "grammar"},
		{"completions", ask("llama", map[string]any{"grammar": `root ::= "a" missing`}), 400, "missing"},
		{"completions", ask("llama", map[string]any{"logit_bias": map[string]any{"99999999": 1}}), 400, "vocabulary"},
		{"completions", ask("llama", map[string]any{"mirostat": 2}), 400, "temperature"},
		{"chat/completions", map[string]any{"model": "llama", "messages": []any{}}, 400, "messages"},
	} {
		status, e := post(t, url+"/v1/"+c.route, "k1", c.body)
		require.Equal(t, c.status, status, e)
		require.Contains(t, e["error"].(map[string]any)["message"], c.says)
	}

	// Requests under way when the end comes are finished.
	type outcome struct {
		pieces []string
		last   string
	}
	done := make(chan outcome, 1)
	begun := make(chan struct{})
	var once sync.Once
	go func() {
		p, last := events(t, url+"/v1/completions", "k1", ask("llama", map[string]any{"max_tokens": 60}), func(e map[string]any) string {
			once.Do(func() { close(begun) })
			return text(e)
		})
		done <- outcome{p, last}
	}()
	<-begun
	require.NoError(t, stop())
	select {
	case o := <-done:
		require.Equal(t, "[DONE]", o.last)
	case <-time.After(10 * time.Second):
		t.Fatal("the stream did not end")
	}
}

func TestServeMetricsAndModels(t *testing.T) {
	url, _ := server(t, filepath.Join(fixture.Parity(t), "models", "gpt2-causal"))
	status, e := post(t, url+"/v1/completions", "", map[string]any{"model": "gpt2-causal", "prompt": "a b", "max_tokens": 3})
	require.Equal(t, http.StatusOK, status, e)
	get := func(path string) string {
		r, err := http.Get(url + path)
		require.NoError(t, err)
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode, string(b))
		return string(b)
	}
	require.Contains(t, get("/v1/models"), `"gpt2-causal"`)
	require.Contains(t, get("/v1/models/gpt2-causal"), `"generate"`)
	require.Contains(t, get("/health"), "ok")
	require.Contains(t, get("/metrics"), "temper_generated_tokens_total 3")
}

func TestServeRefuses(t *testing.T) {
	m := filepath.Join(fixture.Parity(t), "models", "gpt2-causal")
	for says, args := range map[string][]string{
		"called":            {"serve", m, m},
		"no such":           {"serve", "./nothing-here"},
		"no decoder":        {"serve", filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), "--adapter", "x=" + m},
		"adapter_config":    {"serve", m, "--adapter", "x=" + m},
		"--parallel -1":     {"serve", m, "--parallel", "-1"},
		"requires at least": {"serve"},
	} {
		out, errs, code := run(t, "", args...)
		require.NotZero(t, code, out)
		require.Contains(t, errs, says)
	}
}
