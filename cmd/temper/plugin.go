package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/temper-ml/temper/plugins/host"
)

// openPlugin opens a perturbation strategy; its compiled code is kept in the user's cache folder.
func (a *app) openPlugin(ctx context.Context, path string) (*host.Plugin, error) {
	o := host.Options{Log: func(m string) { a.logf("%s: %s", filepath.Base(path), m) }}
	if dir, err := os.UserCacheDir(); err == nil {
		o.CacheDir = filepath.Join(dir, "temper", "plugins")
	}
	return host.Open(ctx, path, o)
}
