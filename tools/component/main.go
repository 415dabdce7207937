// Component makes components: it packs files into a layer, or builds them
// first with a script in a build root.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/kiln-build/kiln/tools/component/command"
	"github.com/kiln-build/kiln/tools/component/sandbox"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

func main() {
	sandbox.IfChild()
	layer.BoundMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command.Run(ctx, os.Args[1:], os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "component: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}
