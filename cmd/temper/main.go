// Command temper fine-tunes, hardens and ships small language models on plain CPUs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	restGC()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
