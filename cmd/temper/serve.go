package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/serve"
)

func (a *app) serveCmd() *cobra.Command {
	var addr string
	var cache string
	var keys, adapters, drafters, origins []string
	var parallel, context, draft, queue, chunk int
	var deadline, grace time.Duration
	cmd := &cobra.Command{
		Use:   "serve MODEL…",
		Short: "Serve models over HTTP with the OpenAI-compatible routes",
		Long: "Serve models over HTTP: /v1/chat/completions and /v1/completions (streaming), /v1/embeddings, /v1/classify, /v1/models, /metrics, /health.\n" +
			"A model is named by its file or folder, or by what stands before it: NAME=MODEL. Adapters over a decoder are models of their own and\n" +
			"share its weights: --adapter NAME=FOLDER, or --adapter NAME=MODEL:FOLDER where several decoders are served. API keys come from\n" +
			"--api-key or, separated by commas, from TEMPER_API_KEYS. SIGINT and SIGTERM let running requests finish for --grace.",
		Example: `  temper serve gemma-3-270m-q4_k_m.gguf minilm/ --addr 127.0.0.1:8080
  temper serve chat=model/ --adapter support=adapter/ --api-key secret`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, n := range map[string]int{"--parallel": parallel, "--context": context, "--draft": draft, "--queue": queue, "--prompt-chunk": chunk} {
				if n < 0 {
					return usagef("%s %d: want 0 (the default) or more", name, n)
				}
			}
			if deadline < 0 || grace < 0 {
				return usagef("--deadline %s --grace %s: want 0 or more", deadline, grace)
			}
			if err := checkCacheType(cache); err != nil {
				return err
			}
			for _, k := range strings.Split(os.Getenv("TEMPER_API_KEYS"), ",") {
				if k = strings.TrimSpace(k); k != "" {
					keys = append(keys, k)
				}
			}
			for _, k := range keys {
				if k == "" {
					return usagef("--api-key \"\": want a key")
				}
			}
			e, err := a.newEngine(cmd, args, adapters, drafters,
				generate.Options{Parallel: parallel, Context: context, Draft: draft, Chunk: chunk, Waiting: queue, Cache: cache})
			if err != nil {
				return err
			}
			defer e.Close()
			log := slog.New(slog.DiscardHandler)
			if !a.quiet {
				log = slog.New(slog.NewTextHandler(a.err, nil))
			}
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("--addr: %w", err)
			}
			s := serve.New(e, serve.Options{Keys: keys, Queue: queue, Deadline: deadline, CORS: origins, Log: log})
			for _, m := range e.Models() {
				a.logf("%-24s %s", m.ID, strings.Join(m.Kinds, ", "))
			}
			if host, _, _ := net.SplitHostPort(l.Addr().String()); len(keys) == 0 && !net.ParseIP(host).IsLoopback() {
				a.logf("warning: open to the network without API keys")
			}
			fmt.Fprintf(a.err, "listening on http://%s\n", l.Addr())
			return s.Run(cmd.Context(), l, grace)
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "addr", "127.0.0.1:8080", "address to listen on (port 0: any that is free)")
	f.StringArrayVar(&keys, "api-key", nil, "key that clients must send (repeatable)")
	f.StringArrayVar(&adapters, "adapter", nil, "folder of a PEFT adapter over a decoder, as a model of its own: NAME=FOLDER or NAME=MODEL:FOLDER (repeatable)")
	f.StringArrayVar(&origins, "cors", nil, "origin of pages that may call, * for all (repeatable)")
	f.IntVar(&parallel, "parallel", 0, "texts that one decoder writes at once (0: 4)")
	f.IntVar(&context, "context", 0, "tokens of prompt and answer together (0: what the model takes)")
	f.IntVar(&draft, "draft", 0, "tokens to guess ahead by look-up in the text; the output stays the same")
	f.StringArrayVar(&drafters, "draft-model", nil,
		"smaller decoder with the same vocabulary that guesses ahead, MODEL or, where several decoders are served, NAME=MODEL (repeatable); the output stays the same")
	f.StringVar(&cache, "cache-type", "", "store keys and values as f32, f16 or q8_0 (default f16)")
	f.IntVar(&chunk, "prompt-chunk", 0, "prompt tokens read in one step, between tokens of running answers (0: 512)")
	f.IntVar(&queue, "queue", 0, "requests under way or waiting (0: 256)")
	f.DurationVar(&deadline, "deadline", 0, "longest time for a request (0: 10m)")
	f.DurationVar(&grace, "grace", 30*time.Second, "time for running requests to finish at the end")
	return cmd
}
