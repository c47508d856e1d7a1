//go:build !amd64 || purego

package native

import "runtime"

func pause() { runtime.Gosched() }
