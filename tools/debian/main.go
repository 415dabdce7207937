// Command debian keeps debian.lock: it renews it, checks it against the
// mirror, and replaces what a mirror has dropped by a local lock.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/tools/debian/cli"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cli.New(cli.Machine(time.Now())).ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "debian: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}
