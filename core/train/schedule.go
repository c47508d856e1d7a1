package train

import (
	"fmt"
	"math"
)

// Schedule gives the share of the peak learning rate at each optimiser step, counted from 0. The conventions are those of
// transformers' get_scheduler: under warm-up step 0 has rate 0, and step Warmup is the first at the full rate.
type Schedule struct {
	// Kind is "linear", "cosine", "constant" or "wsd" (warm-up, stable, decay; Hu et al., 2024, MiniCPM).
	Kind string
	// Warmup and Total are numbers of optimiser steps.
	Warmup, Total int
	// Decay is the length of the last phase of "wsd"; 0 means a tenth of Total.
	Decay int
	// MinRatio is the share that "cosine" and "wsd" end at.
	MinRatio float64
}

// Schedules are the kinds that Validate accepts.
var Schedules = []string{"linear", "cosine", "constant", "wsd"}

// Validate reports an unknown kind or impossible lengths.
func (s Schedule) Validate() error {
	switch s.Kind {
	case "linear", "cosine", "constant", "wsd":
	default:
		return fmt.Errorf("schedule %q: expected one of %v", s.Kind, Schedules)
	}
	if s.Warmup < 0 || s.Total < 0 || s.Decay < 0 || s.MinRatio < 0 || s.MinRatio > 1 {
		return fmt.Errorf("schedule %s: warm-up %d, total %d, decay %d steps, minimum share %g: expected nothing negative and a share of at most 1",
			s.Kind, s.Warmup, s.Total, s.Decay, s.MinRatio)
	}
	return nil
}

// At returns the share of the peak rate at step.
func (s Schedule) At(step int) float64 {
	if step < s.Warmup {
		return float64(step) / float64(max(1, s.Warmup))
	}
	rest := float64(max(1, s.Total-s.Warmup))
	switch s.Kind {
	case "linear":
		return max(0, float64(s.Total-step)/rest)
	case "cosine":
		progress := min(1, float64(step-s.Warmup)/rest)
		return s.MinRatio + (1-s.MinRatio)*0.5*(1+math.Cos(math.Pi*progress))
	case "wsd":
		decay := s.Decay
		if decay == 0 {
			decay = max(1, s.Total/10)
		}
		start := max(s.Warmup, s.Total-decay)
		if step < start {
			return 1
		}
		progress := min(1, float64(step-start)/float64(max(1, s.Total-start)))
		return s.MinRatio + (1-s.MinRatio)*0.5*(1+math.Cos(math.Pi*progress))
	}
	return 1
}
