package serve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Options are the server's limits. Zero values mean the defaults in brackets.
type Options struct {
	Keys     []string      // API keys; none: open to all who can connect
	MaxBody  int64         // bytes of a request [4 MiB]
	Queue    int           // requests under way or waiting [256]
	Deadline time.Duration // for one request [10 min]
	MaxTexts int           // texts in one embedding or classification request, and labels [2048]
	CORS     []string      // origins that pages may call from; "*" for all; none: same origin only
	Log      *slog.Logger  // method, route, status, time; never texts [discarded]
}

// Server is an http.Handler.
type Server struct {
	engine  Engine
	opt     Options
	keys    [][sha256.Size]byte
	mux     *http.ServeMux
	active  atomic.Int64
	drain   atomic.Bool
	metrics *metrics.Set
	ids     atomic.Uint64
	start   time.Time
}

// New returns a server over engine.
func New(engine Engine, opt Options) *Server {
	if opt.MaxBody == 0 {
		opt.MaxBody = 4 << 20
	}
	if opt.Queue == 0 {
		opt.Queue = 256
	}
	if opt.Deadline == 0 {
		opt.Deadline = 10 * time.Minute
	}
	if opt.MaxTexts == 0 {
		opt.MaxTexts = 2048
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{engine: engine, opt: opt, mux: http.NewServeMux(), metrics: metrics.NewSet(), start: time.Now()}
	for _, k := range opt.Keys {
		s.keys = append(s.keys, sha256.Sum256([]byte(k)))
	}
	s.metrics.NewGauge("temper_requests_active", func() float64 { return float64(s.active.Load()) })
	s.mux.HandleFunc("GET /health", s.health)
	s.mux.HandleFunc("GET /metrics", s.guard("metrics", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		s.metrics.WritePrometheus(w)
		return nil
	}))
	s.mux.HandleFunc("GET /v1/models", s.guard("models", s.models))
	s.mux.HandleFunc("GET /v1/models/{model...}", s.guard("model", s.model))
	s.mux.HandleFunc("POST /v1/chat/completions", s.work("chat", s.chat))
	s.mux.HandleFunc("POST /v1/completions", s.work("completions", s.complete))
	s.mux.HandleFunc("POST /v1/embeddings", s.work("embeddings", s.embeddings))
	s.mux.HandleFunc("POST /v1/classify", s.work("classify", s.classify))
	s.mux.HandleFunc("/", s.guard("unknown", func(_ http.ResponseWriter, r *http.Request) error {
		return &apiError{http.StatusNotFound, "invalid_request_error", "unknown_url", fmt.Sprintf("unknown route %s %s", r.Method, r.URL.Path)}
	}))
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.cors(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) cors(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	for _, allowed := range s.opt.CORS {
		if allowed == "*" || allowed == origin && origin != "" {
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", allowed)
			h.Add("Vary", "Origin")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
			return
		}
	}
}

// apiError is what clients of the OpenAI libraries expect under "error".
type apiError struct {
	status              int
	kind, code, message string
}

func (e *apiError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "invalid_request_error", "", fmt.Sprintf(format, args...)}
}

// classifyError maps an engine's error to what is sent.
func classifyError(err error) *apiError {
	var a *apiError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &a):
		return a
	case errors.As(err, &tooLarge):
		return &apiError{http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large", fmt.Sprintf("the request is larger than %d bytes", tooLarge.Limit)}
	case errors.Is(err, ErrNoModel):
		return &apiError{http.StatusNotFound, "invalid_request_error", "model_not_found", err.Error()}
	case errors.Is(err, ErrBadRequest):
		return &apiError{http.StatusBadRequest, "invalid_request_error", "", strings.TrimPrefix(err.Error(), ErrBadRequest.Error()+": ")}
	case errors.Is(err, ErrBusy):
		return &apiError{http.StatusTooManyRequests, "rate_limit_error", "queue_full", err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusGatewayTimeout, "server_error", "deadline", "the request took longer than its deadline"}
	}
	return &apiError{http.StatusInternalServerError, "server_error", "", err.Error()}
}

func (s *Server) fail(w http.ResponseWriter, err error) int {
	e := classifyError(err)
	if e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	var code any
	if e.code != "" {
		code = e.code
	}
	writeJSON(w, e.status, map[string]any{"error": map[string]any{"message": e.message, "type": e.kind, "param": nil, "code": code}})
	return e.status
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client may have gone
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// guard checks the key, counts and logs.
func (s *Server) guard(route string, h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		w := &statusWriter{ResponseWriter: rw}
		err := s.authorise(r)
		if err == nil {
			err = h(w, r)
		}
		if err != nil && w.status == 0 {
			s.fail(w, err)
		}
		took := time.Since(begin)
		s.metrics.GetOrCreateCounter(fmt.Sprintf(`temper_requests_total{route=%q,status="%d"}`, route, w.status)).Inc()
		s.metrics.GetOrCreateHistogram(fmt.Sprintf(`temper_request_seconds{route=%q}`, route)).Update(took.Seconds())
		s.opt.Log.Info("request", "route", route, "status", w.status, "ms", took.Milliseconds())
	}
}

// work is guard for routes that compute: limited in number, size and time.
func (s *Server) work(route string, h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.guard(route, func(w http.ResponseWriter, r *http.Request) error {
		if s.drain.Load() {
			return &apiError{http.StatusServiceUnavailable, "server_error", "draining", "the server is shutting down"}
		}
		if n := s.active.Add(1); n > int64(s.opt.Queue) {
			s.active.Add(-1)
			return fmt.Errorf("%w: %d", ErrBusy, s.opt.Queue)
		}
		defer s.active.Add(-1)
		r.Body = http.MaxBytesReader(w, r.Body, s.opt.MaxBody)
		ctx, cancel := context.WithTimeout(r.Context(), s.opt.Deadline)
		defer cancel()
		return h(w, r.WithContext(ctx))
	})
}

func (s *Server) authorise(r *http.Request) error {
	if len(s.keys) == 0 {
		return nil
	}
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(key))
	good := 0
	for _, k := range s.keys {
		good |= subtle.ConstantTimeCompare(k[:], sum[:])
	}
	if !ok || good == 0 {
		return &apiError{http.StatusUnauthorized, "invalid_request_error", "invalid_api_key", "missing or wrong API key: send Authorization: Bearer KEY"}
	}
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.drain.Load() {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "draining"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) id(prefix string) string {
	return prefix + "-" + strconv.FormatInt(s.start.UnixNano(), 36) + strconv.FormatUint(s.ids.Add(1), 36)
}

// decode reads one JSON object and nothing after it.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(v); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return badRequest("the request is not the JSON object expected: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badRequest("the request has more than one JSON value")
	}
	return nil
}

// Run serves on l until ctx ends, then lets running requests finish for at most grace.
func (s *Server) Run(ctx context.Context, l net.Listener, grace time.Duration) error {
	h := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.drain.Store(true)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := h.Shutdown(stop); err != nil {
		_ = h.Close()
		return fmt.Errorf("requests were cut off after %s: %w", grace, err)
	}
	return nil
}
