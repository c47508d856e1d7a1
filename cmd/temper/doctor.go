package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/hub"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine offers: instruction level, peak, memory bandwidth, caches",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := a.backend()
			if err != nil {
				return err
			}
			r := struct {
				Platform string   `json:"platform"`
				Cores    int      `json:"cores"`
				Threads  int      `json:"threads"`
				Level    string   `json:"level"`
				Levels   []string `json:"levels"`
				Peak     float64  `json:"peak_gflops"`
				Read     float64  `json:"bandwidth_gb_per_second"`
				Hub      string   `json:"hub_cache"`
			}{Platform: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Threads: k.Threads(), Level: k.Level(), Levels: native.Levels(), Hub: hubCache()}
			m := native.Measure(k.Threads())
			r.Peak, r.Read = m.FlopRate/1e9, m.ReadRate/1e9
			return a.result(r, func(w io.Writer) error {
				t := newTable(w, "", "")
				t.AppendRow([]any{"platform", fmt.Sprintf("%s, %d cores, %d threads", r.Platform, r.Cores, r.Threads)})
				t.AppendRow([]any{"level", r.Level + " (of " + strings.Join(r.Levels, ", ") + "; TEMPER_CPU forces one)"})
				t.AppendRow([]any{"float32 peak", fmt.Sprintf("%.0f GFLOP/s", r.Peak)})
				t.AppendRow([]any{"memory", fmt.Sprintf("%.1f GB/s", r.Read)})
				t.AppendRow([]any{"hub cache", r.Hub})
				t.Render()
				return nil
			})
		},
	}
}

// hubCache is where fetched models are kept.
func hubCache() string {
	s, err := hub.FromEnv()
	if err != nil {
		return ""
	}
	return s.Cache
}
