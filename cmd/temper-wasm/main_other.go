//go:build !wasip1

package main

import (
	"fmt"
	"os"
)

// The engine itself is only built for wasip1; elsewhere its tests run.
func main() {
	fmt.Fprintln(os.Stderr, "temper-wasm is built with go run ./cmd/temper-wasm/link")
	os.Exit(2)
}
