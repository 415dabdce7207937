// Package command is the command `kata-deploy`: one file a sub-command.
package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the command and gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	err := run(ctx, args, getenv, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return exitcode.Of(err)
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:           "kata-deploy",
		Short:         "Install Kata Containers on a node, and take it away again",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Install Kata Containers on a node, and take it away again.

The environment says what to do; its variables are upstream's. NODE_NAME is the node,
DAEMONSET_NAME whose pod this is. SHIMS_<ARCH> says which runtime classes,
DEFAULT_SHIM_<ARCH> which of them is the default, SNAPSHOTTER_HANDLER_MAPPING_<ARCH>,
PULL_TYPE_MAPPING_<ARCH> and EXPERIMENTAL_FORCE_GUEST_PULL_<ARCH> how their images
come, ALLOWED_HYPERVISOR_ANNOTATIONS_<ARCH> what pods may ask of them,
AGENT_HTTPS_PROXY and AGENT_NO_PROXY what their guests are told. DEBUG adds a runtime
class to each, kata-<shim>-debug, that says more. INSTALLATION_PREFIX and MULTI_INSTALL_SUFFIX say where, K8S_DISTRIBUTION,
CONTAINER_RUNTIME_VERSION and CONTAINERD_CONFIG_FILE_NAME what the node has,
NODE_MACHINE_ID which machine it is, STARTUP_TAINTS what to remove once it is ready,
HEALTH_PORT where that is told. HANDLER_DIGEST ends the names of the handlers with a
prefix of the payload's digest.

Exit codes: 0 ok; 1 failed or interrupted; 2 bad usage, or something that is not
kata-deploy's is in the way; 3 the cluster, systemd or the runtime does not answer; 4
the artefacts must not reach a node; 5 a file could not be read or written, most often
because the disk is full or the directory is mounted read-only. After any failure the
same command goes on from where it stopped.`,
	}
	// An error before a command starts to run is one of usage.
	started := false
	for _, newCommand := range []func(func(string) string) *cobra.Command{
		newInstall, newCleanup, newReset, newInstallHostCheck, newInstallArtifacts, newInstallCRI, newRevertCRI, newRemoveArtifacts, newUninstall,
	} {
		c := newCommand(getenv)
		inner := c.RunE
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started = true
			return inner(cmd, args)
		}
		root.AddCommand(c)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		return exitcode.With(exitcode.BadInput, err)
	}
	return err
}

// outputFormat is the value of --output.
type outputFormat string

const (
	textOutput outputFormat = "text"
	jsonOutput outputFormat = "json"
)

func (o *outputFormat) String() string { return string(*o) }
func (o *outputFormat) Type() string   { return "text|json" }

func (o *outputFormat) Set(s string) error {
	switch outputFormat(s) {
	case textOutput, jsonOutput:
		*o = outputFormat(s)
		return nil
	}
	return fmt.Errorf("give %q or %q", textOutput, jsonOutput)
}

// print writes a result as JSON or as the given line.
func (o outputFormat) print(w io.Writer, result any, line string) error {
	data := []byte(line + "\n")
	if o == jsonOutput {
		var err error
		if data, err = json.MarshalIndent(result, "", "  "); err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
		data = append(data, '\n')
	}
	if _, err := w.Write(data); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the result: %w", err))
	}
	return nil
}
