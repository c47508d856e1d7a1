package main

import (
	"context"
	"fmt"
)

func (a *app) resolveHub(_ context.Context, ref string) (string, error) {
	return "", fmt.Errorf("%s: no such folder", ref)
}
