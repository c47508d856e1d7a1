package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// fakeHub speaks the hub's API for one repository. Files in lfs are redirected to a storage host, as large files are.
type fakeHub struct {
	repo    string
	files   map[string][]byte
	lfs     map[string]bool
	private bool
	tree    bool // the description of a revision names no files

	mu       sync.Mutex
	requests []string
	// breakAfter cuts the first download of a file after so many bytes.
	breakAfter map[string]int
	corrupt    bool // storage sends wrong bytes
	noRange    bool
	down       int // so many answers are 503
	leaked     bool
}

func (h *fakeHub) etag(name string) string {
	b := h.files[name]
	if h.lfs[name] {
		s := sha256.Sum256(b)
		return hex.EncodeToString(s[:])
	}
	s := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
	return hex.EncodeToString(s[:])
}

func (h *fakeHub) serve(t *testing.T) (endpoint string) {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.log("storage " + r.Header.Get("Range"))
		if r.Header.Get("Authorization") != "" {
			h.leaked = true
		}
		h.send(w, r, strings.TrimPrefix(r.URL.Path, "/"))
	}))
	t.Cleanup(storage.Close)
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.log(r.Method + " " + r.URL.Path)
		h.mu.Lock()
		down := h.down > 0
		h.down--
		h.mu.Unlock()
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if h.private && r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if rev, ok := strings.CutPrefix(r.URL.Path, "/api/models/"+h.repo+"/revision/"); ok {
			if rev != "main" && rev != "v1/x" && rev != commit {
				w.Header().Set("X-Error-Code", "RevisionNotFound")
				w.WriteHeader(http.StatusNotFound)
				return
			}
			type sibling = map[string]any
			var list []sibling
			for name, b := range h.files {
				s := sibling{"rfilename": name, "size": len(b), "blobId": h.etag(name)}
				if h.lfs[name] {
					s["lfs"] = map[string]any{"sha256": h.etag(name), "size": len(b)}
					s["blobId"] = "ffff"
				}
				list = append(list, s)
			}
			if h.tree {
				list = nil
			}
			json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": list})
			return
		}
		if r.URL.Path == "/api/models/"+h.repo+"/tree/"+commit {
			// Two pages.
			var list []map[string]any
			for i, name := range slices.Sorted(maps.Keys(h.files)) {
				if (i%2 == 0) == (r.URL.Query().Get("cursor") == "") {
					list = append(list, map[string]any{"type": "file", "path": name, "size": len(h.files[name]), "oid": h.etag(name)})
				}
			}
			list = append(list, map[string]any{"type": "directory", "path": "1_Pooling", "size": 0})
			if r.URL.Query().Get("cursor") == "" {
				w.Header().Set("Link", `<`+r.URL.Path+`?cursor=x>; rel="next"`)
			}
			json.NewEncoder(w).Encode(list)
			return
		}
		if name, ok := strings.CutPrefix(r.URL.Path, "/"+h.repo+"/resolve/"+commit+"/"); ok && h.files[name] != nil {
			w.Header().Set("X-Repo-Commit", commit)
			if h.lfs[name] {
				w.Header().Set("X-Linked-Etag", `"`+h.etag(name)+`"`)
				w.Header().Set("X-Linked-Size", strconv.Itoa(len(h.files[name])))
				// The storage is another host: 127.0.0.1 and localhost differ by name.
				w.Header().Set("Location", strings.Replace(storage.URL, "127.0.0.1", "localhost", 1)+"/"+name)
				w.WriteHeader(http.StatusFound)
				return
			}
			w.Header().Set("ETag", `W/"`+h.etag(name)+`"`)
			h.send(w, r, name)
			return
		}
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(hub.Close)
	return hub.URL
}

func (h *fakeHub) log(line string) {
	h.mu.Lock()
	h.requests = append(h.requests, line)
	h.mu.Unlock()
}

func (h *fakeHub) send(w http.ResponseWriter, r *http.Request, name string) {
	b := h.files[name]
	if h.corrupt {
		b = []byte(strings.Repeat("x", len(b)))
	}
	h.mu.Lock()
	cut, breaks := h.breakAfter[name]
	if r.Method == http.MethodGet {
		delete(h.breakAfter, name)
	}
	h.mu.Unlock()
	from := 0
	status := http.StatusOK
	if rng := r.Header.Get("Range"); rng != "" && !h.noRange {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-"))
		if from >= len(b) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
		status = http.StatusPartialContent
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)-from))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if breaks && from < cut {
		w.Write(b[from:cut])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Write(b[from:])
}

func modelHub() *fakeHub {
	return &fakeHub{repo: "org/model", lfs: map[string]bool{"model.safetensors": true}, files: map[string][]byte{
		"config.json": []byte("{}"), "model.safetensors": []byte(strings.Repeat("weights ", 5000)), "tokenizer.json": []byte(`{"a":1}`),
		"1_Pooling/config.json": []byte(`{"b":2}`), "pytorch_model.bin": []byte("pickle"), "onnx/model.onnx": []byte("onnx"), "run.py": []byte("code"),
	}}
}

func settings(t *testing.T, endpoint string) Settings {
	return Settings{Endpoint: endpoint, Cache: filepath.Join(t.TempDir(), "hub"), retryDelay: time.Millisecond, Log: func(l string) { t.Log(l) }}
}

func resolve(s Settings, ref string) (string, error) {
	r, err := ParseRef(ref)
	if err != nil {
		return "", err
	}
	return s.Resolve(context.Background(), r, nil)
}

func TestResolve(t *testing.T) {
	h := modelHub()
	s := settings(t, h.serve(t))
	r, err := ParseRef("org/model@v1/x")
	require.NoError(t, err)
	var last Progress
	dir, err := s.Resolve(context.Background(), r, func(p Progress) {
		assert.GreaterOrEqual(t, p.Done, last.Done)
		last = p
	})
	require.NoError(t, err)
	assert.Equal(t, Progress{File: last.File, Files: 4, FilesDone: 4, Done: last.Total, Total: 40016}, last)

	// The layout is the Python client's.
	repo := filepath.Join(s.Cache, "models--org--model")
	assert.Equal(t, filepath.Join(repo, "snapshots", commit), dir)
	ref, err := os.ReadFile(filepath.Join(repo, "refs", "v1", "x"))
	require.NoError(t, err)
	assert.Equal(t, commit, string(ref))
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		assert.Equal(t, h.files[name], b)
		blob, err := os.ReadFile(filepath.Join(repo, "blobs", h.etag(name)))
		require.NoError(t, err)
		assert.Equal(t, b, blob)
		if runtime.GOOS != "windows" {
			link, err := os.Readlink(filepath.Join(dir, filepath.FromSlash(name)))
			require.NoError(t, err)
			assert.Equal(t, strings.Repeat("../", 2+strings.Count(name, "/"))+"blobs/"+h.etag(name), filepath.ToSlash(link))
		}
	}
	for _, name := range []string{"pytorch_model.bin", "onnx", "run.py"} {
		assert.NoFileExists(t, filepath.Join(dir, name))
	}
	assert.DirExists(t, filepath.Join(s.Cache, ".locks", "models--org--model"))
	left, err := filepath.Glob(filepath.Join(repo, "blobs", "*.incomplete"))
	require.NoError(t, err)
	assert.Empty(t, left)

	// Again: one question, no file. A commit: no question at all.
	h.requests = nil
	again, err := resolve(s, "org/model@v1/x")
	require.NoError(t, err)
	assert.Equal(t, dir, again)
	assert.Len(t, h.requests, 1)
	_, err = resolve(s, "org/model@"+commit)
	require.NoError(t, err)
	assert.Len(t, h.requests, 1)

	// Offline, and with the hub away, the cache serves.
	off := s
	off.Offline = true
	again, err = resolve(off, "org/model@v1/x")
	require.NoError(t, err)
	assert.Equal(t, dir, again)
	_, err = resolve(off, "org/model")
	require.ErrorIs(t, err, ErrOffline)
	away := s
	away.Endpoint = "http://127.0.0.1:1"
	again, err = resolve(away, "org/model@v1/x")
	require.NoError(t, err)
	assert.Equal(t, dir, again)
	_, err = resolve(away, "org/other")
	require.ErrorContains(t, err, "pull org/other")
	assert.Len(t, h.requests, 1)

	// The cache tells what it holds.
	require.NoError(t, os.MkdirAll(filepath.Join(s.Cache, "models--org--partial", "snapshots", commit), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(s.Cache, "datasets--org--model"), 0o755))
	held, err := s.List()
	require.NoError(t, err)
	assert.Equal(t, []Cached{{Ref: "org/model@v1/x", Path: dir}}, held)
	none := s
	none.Cache = filepath.Join(s.Cache, "none")
	held, err = none.List()
	require.NoError(t, err)
	assert.Empty(t, held)

	// A snapshot with a missing blob is not a model.
	require.NoError(t, os.Remove(filepath.Join(repo, "blobs", h.etag("model.safetensors"))))
	_, err = resolve(off, "org/model@v1/x")
	require.ErrorIs(t, err, ErrOffline)
	_, err = resolve(s, "org/model@v1/x")
	require.NoError(t, err)
}

func TestResolveByTree(t *testing.T) {
	h := modelHub()
	h.tree = true
	dir, err := resolve(settings(t, h.serve(t)), "org/model")
	require.NoError(t, err)
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		assert.Equal(t, h.files[name], b)
	}
}

func TestResumeAndRetry(t *testing.T) {
	for name, change := range map[string]func(*fakeHub){
		"connection breaks":      func(h *fakeHub) { h.breakAfter = map[string]int{"model.safetensors": 12345} },
		"break without ranges":   func(h *fakeHub) { h.breakAfter = map[string]int{"model.safetensors": 12345}; h.noRange = true },
		"server errors at first": func(h *fakeHub) { h.down = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			h := modelHub()
			change(h)
			dir, err := resolve(settings(t, h.serve(t)), "org/model")
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
			require.NoError(t, err)
			assert.Equal(t, h.files["model.safetensors"], b)
			if name == "connection breaks" {
				assert.Contains(t, h.requests, "storage bytes=12345-")
			}
		})
	}
	for name, part := range map[string]string{"half": strings.Repeat("weights ", 100), "all": strings.Repeat("weights ", 5000), "too long": strings.Repeat("weights ", 6000)} {
		t.Run("left behind "+name, func(t *testing.T) {
			h := modelHub()
			s := settings(t, h.serve(t))
			blobs := filepath.Join(s.Cache, "models--org--model", "blobs")
			require.NoError(t, os.MkdirAll(blobs, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(blobs, h.etag("model.safetensors")+".incomplete"), []byte(part), 0o644))
			dir, err := resolve(s, "org/model")
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
			require.NoError(t, err)
			assert.Equal(t, h.files["model.safetensors"], b)
			if name == "half" {
				assert.Contains(t, h.requests, "storage bytes=800-")
			}
		})
	}
}

func TestWrongBytes(t *testing.T) {
	h := modelHub()
	s := settings(t, h.serve(t))
	s.Workers = 1
	h.corrupt = true
	_, err := resolve(s, "org/model")
	require.ErrorContains(t, err, "the checksum is")
	left, err := filepath.Glob(filepath.Join(s.Cache, "models--org--model", "blobs", "*"))
	require.NoError(t, err)
	assert.Empty(t, left, "no blob and no partial file with wrong bytes stays")
	h.corrupt = false
	_, err = resolve(s, "org/model")
	require.NoError(t, err)
}

func TestAccess(t *testing.T) {
	h := modelHub()
	h.private = true
	s := settings(t, h.serve(t))
	_, err := resolve(s, "org/model")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "set HF_TOKEN")
	s.Token = "secret"
	_, err = resolve(s, "org/model@nope")
	require.ErrorContains(t, err, `revision "nope": not found on the hub`)
	_, err = resolve(s, "org/absent")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = resolve(s, "org/model")
	require.NoError(t, err)
	assert.False(t, h.leaked, "the token went to the storage host")
}

func TestCancel(t *testing.T) {
	h := modelHub()
	s := settings(t, h.serve(t))
	ctx, cancel := context.WithCancel(context.Background())
	_, err := s.Resolve(ctx, Ref{Repo: "org/model", Revision: "main"}, func(Progress) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	// A lock that another process holds is waited for until the context ends.
	cache := s.repo("org/model")
	unlock, err := cache.lock(context.Background(), "x")
	require.NoError(t, err)
	short, stop := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer stop()
	_, err = cache.lock(short, "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	unlock()
	unlock, err = cache.lock(context.Background(), "x")
	require.NoError(t, err)
	unlock()
}

func TestHostileListing(t *testing.T) {
	for _, name := range []string{"../x", "/etc/x", "a/../../x", `a\x`, "c:x"} {
		h := modelHub()
		h.files[name] = []byte("x")
		_, err := resolve(settings(t, h.serve(t)), "org/model")
		require.ErrorContains(t, err, "points outside the model", name)
	}
}

func TestChoose(t *testing.T) {
	list := func(names ...string) (files []remoteFile) {
		for _, n := range names {
			files = append(files, remoteFile{name: n})
		}
		return files
	}
	for _, c := range []struct {
		name, variant string
		files         []string
		want          []string
		gguf, err     string
	}{
		{name: "shards", files: []string{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "original/x.pth"},
			want: []string{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}},
		{name: "whole before shards", files: []string{"model.safetensors", "model-00001-of-00001.safetensors", "model.safetensors.index.json"}, want: []string{"model.safetensors"}},
		{name: "adapter", files: []string{"adapter_config.json", "adapter_model.safetensors", "optimizer.pt"}, want: []string{"adapter_config.json", "adapter_model.safetensors"}},
		{name: "only gguf", files: []string{"README.md", "m-iq3.gguf"}, want: []string{"m-iq3.gguf"}, gguf: "m-iq3.gguf"},
		{name: "usual gguf", files: []string{"m-Q8_0.gguf", "m-q4_k_m.gguf", "mmproj-m.gguf"}, want: []string{"m-q4_k_m.gguf"}, gguf: "m-q4_k_m.gguf"},
		{name: "variant", variant: "q4_0", files: []string{"m-Q8_0.gguf", "m-IQ4_0.gguf", "m.Q4_0.gguf", "model.safetensors"}, want: []string{"m.Q4_0.gguf"}, gguf: "m.Q4_0.gguf"},
		{name: "no variant", variant: "Q2_K", files: []string{"m-Q8_0.gguf"}, err: "choose one of its GGUF files with org/name:TYPE: m-Q8_0.gguf"},
		{name: "two fit", variant: "Q8_0", files: []string{"a-Q8_0.gguf", "b-Q8_0.gguf"}, err: "fits several"},
		{name: "divided", variant: "m-Q8_0-00001-of-00002.gguf", files: []string{"m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"}, err: "divided GGUF"},
		{name: "pickle", files: []string{"config.json", "pytorch_model.bin"}, err: "only pickles (pytorch_model.bin)"},
		{name: "nothing", files: []string{"README.md"}, err: "the repository has none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wanted, gguf, err := choose(list(c.files...), Ref{Variant: c.variant})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.ElementsMatch(t, list(c.want...), wanted)
			assert.Equal(t, c.gguf, gguf)
		})
	}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]Ref{
		"org/name":           {Repo: "org/name", Revision: "main"},
		"gpt2":               {Repo: "gpt2", Revision: "main"},
		"org/name@v1.0":      {Repo: "org/name", Revision: "v1.0"},
		"org/name@refs/pr/1": {Repo: "org/name", Revision: "refs/pr/1"},
		"o/n@v1:Q4_K_M":      {Repo: "o/n", Revision: "v1", Variant: "Q4_K_M"},
	} {
		r, err := ParseRef(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, r)
		assert.Equal(t, in, r.String())
	}
	for _, in := range []string{"", "/", "a/b/c", "../x", "a/..", "a--b/c", "a/b@", "a/b@../x", "a/b@/x", "a/b:", "a b/c", "a/b.git", "-a/b", "a/b:x/y"} {
		_, err := ParseRef(in)
		require.Error(t, err, in)
	}
}

func TestFromEnv(t *testing.T) {
	home := func() (string, error) { return "/home/u", nil }
	env := func(kv ...string) Settings {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		s, err := fromEnv(func(k string) string { return m[k] }, home)
		require.NoError(t, err)
		s.Cache = filepath.ToSlash(s.Cache)
		return s
	}
	assert.Equal(t, Settings{Endpoint: DefaultEndpoint, Cache: "/home/u/.cache/huggingface/hub"}, env())
	assert.Equal(t, "/x/huggingface/hub", env("XDG_CACHE_HOME", "/x").Cache)
	assert.Equal(t, "/h/hub", env("HF_HOME", "/h").Cache)
	assert.Equal(t, "/home/u/h/hub", env("HF_HOME", "~/h").Cache)
	assert.Equal(t, "/c", env("HF_HOME", "/h", "HF_HUB_CACHE", "/c").Cache)
	assert.Equal(t, "/c", env("HUGGINGFACE_HUB_CACHE", "/c").Cache)
	assert.Equal(t, "http://mirror", env("HF_ENDPOINT", "http://mirror/").Endpoint)
	assert.True(t, env("HF_HUB_OFFLINE", "1").Offline && env("TRANSFORMERS_OFFLINE", "yes").Offline && !env("HF_HUB_OFFLINE", "0").Offline)
	assert.Equal(t, "t", env("HF_TOKEN", " t\n").Token)

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte("from file\n"), 0o600))
	assert.Equal(t, "from file", env("HF_HOME", dir).Token)
	assert.Equal(t, "from file", env("HF_TOKEN_PATH", filepath.Join(dir, "token")).Token)
	assert.Empty(t, env("HF_HOME", dir, "HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").Token)
	_, err := fromEnv(func(string) string { return "" }, func() (string, error) { return "", errors.New("no home") })
	require.ErrorContains(t, err, "set HF_HOME")
}

// Without symbolic links the files themselves stand in the snapshot.
func TestWithoutLinks(t *testing.T) {
	c := repoCache{root: t.TempDir(), name: "models--a--b"}
	require.NoError(t, os.MkdirAll(c.dir("blobs"), 0o755))
	for _, fresh := range []bool{true, false} {
		require.NoError(t, os.WriteFile(c.dir("blobs", "e"), []byte("x"), 0o644))
		require.NoError(t, c.link(commit, "d/f", "e", fresh))
		b, err := os.ReadFile(filepath.Join(c.snapshot(commit), "d", "f"))
		require.NoError(t, err)
		assert.Equal(t, "x", string(b))
	}
}
