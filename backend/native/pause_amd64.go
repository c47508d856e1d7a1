//go:build amd64 && !purego

package native

// pause tells the core that this is a spinning loop.
func pause()
