//go:build !amd64 || purego

package native

func levels() []string { return nil }

func table(string) *ops { return nil }
