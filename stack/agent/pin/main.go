// Command pin writes the lock of the upstream agent: it looks the agent up in
// a registry and records the digests by which builds fetch it from then on.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/stack/agent/importlock"
	"github.com/kiln-build/kiln/stack/agent/pin/resolve"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// lockPath is the lock's place in the workspace.
const lockPath = "stack/agent/import.lock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pin:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	var lock string
	var options resolve.Options
	cmd := &cobra.Command{
		Use:           "pin REFERENCE",
		Short:         "Pin the upstream agent that a reference names",
		Example:       "  bazel run //stack/agent:pin -- registry.example/kata/agent:4.1.0-x86_64",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("want one reference to an image, have %d", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			pinned, err := resolve.Resolve(cmd.Context(), args[0], options)
			if err != nil {
				return err
			}
			if err := importlock.Write(lock, pinned); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "pinned %s/%s@%s (%s) in %s\n", pinned.Registry, pinned.Repository, pinned.Digest, pinned.Version, lock)
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	flags := cmd.Flags()
	flags.StringVar(&lock, "lock", filepath.Join(os.Getenv("BUILD_WORKSPACE_DIRECTORY"), lockPath), "the lock to write")
	flags.StringVar(&options.Version, "version", "", "version of the agent, if the reference's tag is not it")
	flags.StringVar(&options.License, "license", "Apache-2.0", "SPDX licence expression, if the image does not state one")
	return cmd
}
