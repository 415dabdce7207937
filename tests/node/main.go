// Command node starts a throw-away Kubernetes node and runs a shell or a command on
// it. When that ends, nothing of the node is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tests/suite/node"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	node.IfChild()
	// An interrupt from the terminal is for the command on the node; before it
	// runs, it ends the start.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	var failed *commandError
	if errors.As(err, &failed) {
		os.Exit(failed.code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node: error:", err)
	}
	os.Exit(exitcode.Of(err))
}

// commandError is a command on the node that failed, and said itself why.
type commandError struct{ code int }

func (e *commandError) Error() string { return fmt.Sprintf("the command ended with %d", e.code) }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "node",
		Short: "Start a throw-away Kubernetes node",
		Long: `Start a throw-away Kubernetes node, with systemd, containerd, kubelet and a
control plane, on a root file system in memory. It needs root.

Exit codes: those of the command that ran on the node; of a node that did not
start, 1 when it did not become ready, 2 for bad usage or no right to make one.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	root.Args = func(_ *cobra.Command, args []string) error {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%q: give shell, or run and a command", args))
	}
	root.RunE = func(*cobra.Command, []string) error {
		return exitcode.With(exitcode.BadInput, errors.New("give shell, or run and a command"))
	}
	shell := &cobra.Command{
		Use:   "shell",
		Short: "A shell on the node; kubectl, helm and ctr are there",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), "bash", "--login")
		},
	}
	shell.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%q: shell takes no arguments; for a command, use run", args))
		}
		return nil
	}
	command := &cobra.Command{
		Use:   "run COMMAND [ARGUMENT...]",
		Short: "Run a command on the node",
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), args[0], args[1:]...)
		},
	}
	command.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exitcode.With(exitcode.BadInput, errors.New("run: which command?"))
		}
		return nil
	}
	// Flags behind the command are the command's.
	command.Flags().SetInterspersed(false)
	root.AddCommand(shell, command)
	return root
}

// run starts a node, runs a command on it and ends it.
func run(ctx context.Context, name string, args ...string) (err error) {
	o, err := node.FromRunfiles()
	if err != nil {
		return err
	}
	o.Log = os.Stderr
	n, err := node.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	cmd := n.Command(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &commandError{code: exit.ExitCode()}
	}
	return err
}
