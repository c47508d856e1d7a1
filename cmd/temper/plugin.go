package main

import (
	"context"
	"fmt"

	"github.com/temper-ml/temper/core/attack"
)

// plugin is an opened perturbation strategy.
type plugin interface {
	attack.Perturber
	Close() error
}

func openPlugin(_ context.Context, path string) (plugin, error) {
	return nil, fmt.Errorf("%s: plugins are not available in this build", path)
}
