//go:build !unix && !windows

package hub

import "os"

// Systems without file locks download one model at a time.
func tryLock(*os.File) (bool, error) { return true, nil }

func releaseLock(*os.File) {}
