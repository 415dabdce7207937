package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/artifacts"
	"github.com/kiln-build/kiln/deploy/cri"
	"github.com/kiln-build/kiln/deploy/settings"
)

// criFlags gives a command the flags that say where a node is, and what finds it.
func criFlags(cmd *cobra.Command, getenv func(string) string) func() (*cri.Node, error) {
	n := &cri.Node{}
	var prefix string
	prefixFlag(cmd, &prefix, getenv(settings.Prefix))
	cmd.Flags().StringVar(&n.ContainerdDirectory, "containerd-directory", cri.ContainerdDirectory, "where containerd of the node has its configuration")
	cmd.Flags().StringVar(&n.CRIODirectory, "crio-directory", cri.CRIODirectory, "where CRI-O of the node has its configuration")
	return func() (_ *cri.Node, err error) {
		if n.Settings, err = settings.Read(getenv); err != nil {
			return nil, err
		}
		n.Installation, err = artifacts.Destination(prefix)
		return n, err
	}
}

func restart(r *cri.Result) string {
	if r.Restart {
		return "; start it again to make it so"
	}
	return ", as before"
}

func newInstallCRI(getenv func(string) string) *cobra.Command {
	output := textOutput
	cmd := &cobra.Command{
		Use:   "install-stage-cri",
		Short: "Make the node's container runtime know the shims that are installed",
		Long: `Make the node's container runtime know the shims that are installed.

The environment says what to do: CONTAINER_RUNTIME_VERSION is what the node's
status says of its runtime, K8S_DISTRIBUTION whose Kubernetes it is, SHIMS_<ARCH>
which shims, SNAPSHOTTER_HANDLER_MAPPING_<ARCH> and PULL_TYPE_MAPPING_<ARCH>
how their images come, MULTI_INSTALL_SUFFIX which installation, DEBUG how much
they say.`,
	}
	node := criFlags(cmd, getenv)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := node()
		if err != nil {
			return err
		}
		res, err := n.Install(cmd.Context())
		if err != nil {
			return err
		}
		return output.print(cmd.OutOrStdout(), res, fmt.Sprintf("%s knows %s%s", res.Runtime, strings.Join(res.Handlers, ", "), restart(res)))
	}
	cmd.Flags().Var(&output, "output", "how to print the result")
	return cmd
}

func newRevertCRI(getenv func(string) string) *cobra.Command {
	output := textOutput
	cmd := &cobra.Command{
		Use:   "cleanup-stage-revert-cri",
		Short: "Make the node's container runtime forget the shims",
	}
	node := criFlags(cmd, getenv)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := node()
		if err != nil {
			return err
		}
		res, err := n.Remove(cmd.Context())
		if err != nil {
			return err
		}
		return output.print(cmd.OutOrStdout(), res, fmt.Sprintf("%s knows none of this installation%s", res.Runtime, restart(res)))
	}
	cmd.Flags().Var(&output, "output", "how to print the result")
	return cmd
}
