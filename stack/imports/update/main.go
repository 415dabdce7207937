// Command update renews the lock of what is imported: it resolves upstream's tags
// to the digests by which builds fetch it from then on.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/stack/imports/update/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	cmd := command.New(command.Environment{
		Workspace: os.Getenv("BUILD_WORKSPACE_DIRECTORY"),
		Registry:  os.Getenv(command.RegistryVariable),
	})
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "imports.update:", err)
		os.Exit(exitcode.Of(err))
	}
}
