package main

import (
	"fmt"

	"github.com/temper-ml/temper/core/checkpoint"
)

// named reports whether ref is a built-in model's name.
func (a *app) named(ref string) bool { return false }

// builtin opens a built-in model.
func (a *app) builtin(ref string) (*checkpoint.Folder, error) {
	return nil, fmt.Errorf("%s: no such built-in model", ref)
}
