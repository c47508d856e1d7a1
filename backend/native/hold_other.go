//go:build !linux

package native

// hugePages does nothing where pages cannot be chosen.
func hugePages([]float32) {}
