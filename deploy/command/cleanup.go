package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/installer"
)

func newCleanup(getenv func(string) string) *cobra.Command {
	var done string
	cmd := stage(getenv, "cleanup", "Remove what install brought, and nothing else",
		`Remove what install brought, and nothing else: labels, the runtime's configuration,
files. The runtime is started again last.

While the DaemonSet of $DAEMONSET_NAME is there and selects the node, nothing is
removed: then a pod that ends is one of an upgrade. HELM_POST_DELETE_HOOK=true says
that Helm has deleted it.`,
		func(i *installer.Installer, ctx context.Context) (*installer.CleanupResult, error) {
			i.DoneLabel = done
			return i.Cleanup(ctx)
		}, describeCleanup)
	cmd.Flags().StringVar(&done, "done-label", "", "give the shared label this value when all is done, for an operator that waits for it (default: the label goes)")
	return cmd
}

func newRevertCRI(getenv func(string) string) *cobra.Command {
	return stage(getenv, "cleanup-stage-revert-cri", "Make the node's container runtime forget the shims",
		"Make the node's container runtime forget the shims, and start it again. The node's\nlabels say before that that it is not ready.",
		(*installer.Installer).RevertCRI, describeCleanup)
}

func newRemoveArtifacts(getenv func(string) string) *cobra.Command {
	return stage(getenv, "cleanup-stage-remove-artifacts", "Remove the payload's files from the node",
		"Remove the payload's files from the node, and then its labels.",
		(*installer.Installer).RemoveArtifacts, describeCleanup)
}

func newReset(getenv func(string) string) *cobra.Command {
	return stage(getenv, "reset", "Take the labels away and start the runtime and the kubelet again",
		"Take the labels away and start the runtime and the kubelet again. Files stay.",
		(*installer.Installer).Reset, describeCleanup)
}

// describeCleanup says in one line what cleaning up did.
func describeCleanup(res *installer.CleanupResult) string {
	if res.Wanted {
		return "the DaemonSet wants this node: nothing was removed"
	}
	var parts []string
	if res.Artifacts != nil {
		line := fmt.Sprintf("removed %d files from %s", res.Artifacts.Removed, res.Artifacts.Destination)
		if len(res.Artifacts.Kept) > 0 {
			line += "; kept: " + strings.Join(res.Artifacts.Kept, ", ")
		}
		parts = append(parts, line)
	}
	switch {
	case res.Restarted:
		parts = append(parts, "the runtime was started again")
	case res.Restart:
		parts = append(parts, "the runtime must be started again")
	default:
		parts = append(parts, "the runtime goes on as it is")
	}
	return strings.Join(parts, "\n")
}
