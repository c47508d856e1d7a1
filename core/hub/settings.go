// Package hub fetches models by reference (org/name) into the cache that the Python client of the hub keeps, in its layout and under its
// environment variables, so that both share one copy. Files are fetched in parallel, resumed where an earlier download broke off, and
// checked against the hub's checksums before they get their name.
package hub

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultEndpoint is the hub that is asked unless HF_ENDPOINT names another.
const DefaultEndpoint = "https://huggingface.co"

// Settings say where models come from and where they are kept.
type Settings struct {
	Endpoint string
	// Cache is the folder that holds models--org--name.
	Cache string
	// Token is sent to the endpoint only; "" is none.
	Token string
	// Offline forbids network use: only what is cached is found.
	Offline bool
	// Client makes the requests; nil is one with time limits for connecting and for headers.
	Client *http.Client
	// Workers is the number of files fetched at once; 0 is 4.
	Workers int
	// Log receives a line where something unusual was settled (a retry, the cache used because the hub cannot be reached); nil is silent.
	Log func(line string)

	retryDelay time.Duration // 0 is a second
}

// FromEnv reads the variables of the Python client: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE (and the older
// HUGGINGFACE_HUB_CACHE, HUGGING_FACE_HUB_TOKEN and TRANSFORMERS_OFFLINE).
func FromEnv() (Settings, error) { return fromEnv(os.Getenv, os.UserHomeDir) }

func fromEnv(get func(string) string, home func() (string, error)) (Settings, error) {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := get(k); v != "" {
				return v
			}
		}
		return ""
	}
	s := Settings{Endpoint: strings.TrimRight(first("HF_ENDPOINT"), "/")}
	if s.Endpoint == "" {
		s.Endpoint = DefaultEndpoint
	}
	expand := func(path string) (string, error) {
		path = os.Expand(path, get)
		if path != "~" && !strings.HasPrefix(path, "~/") {
			return path, nil
		}
		dir, err := home()
		return filepath.Join(dir, strings.TrimPrefix(path, "~")), err
	}
	root := get("HF_HOME")
	if root == "" {
		base := get("XDG_CACHE_HOME")
		if base == "" {
			base = "~/.cache"
		}
		root = filepath.Join(base, "huggingface")
	}
	root, err := expand(root)
	if err != nil {
		return s, fmt.Errorf("where to keep models: %w (set HF_HOME)", err)
	}
	s.Cache = filepath.Join(root, "hub")
	if v := first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"); v != "" {
		if s.Cache, err = expand(v); err != nil {
			return s, fmt.Errorf("HF_HUB_CACHE: %w", err)
		}
	}
	s.Offline = truth(first("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
	if s.Token = strings.TrimSpace(first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")); s.Token == "" && !truth(get("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		path := filepath.Join(root, "token")
		if v := get("HF_TOKEN_PATH"); v != "" {
			if path, err = expand(v); err != nil {
				return s, fmt.Errorf("HF_TOKEN_PATH: %w", err)
			}
		}
		// No file, no token: most people have none.
		b, _ := os.ReadFile(path)
		s.Token = strings.TrimSpace(string(b))
	}
	return s, nil
}

func truth(v string) bool {
	switch strings.ToUpper(v) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

func (s *Settings) log(format string, args ...any) {
	if s.Log != nil {
		s.Log(fmt.Sprintf(format, args...))
	}
}
