// Command kiln says what CI must do, and what it did.
//
// Usage: bazel run //ci:kiln -- COMMAND ..., or go run ./ci/cmd/kiln COMMAND ...
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kiln-build/kiln/ci/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
