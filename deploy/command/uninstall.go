package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// uninstallResult is what uninstall prints.
type uninstallResult struct {
	Namespace string `json:"namespace"`
	DaemonSet string `json:"daemonSet"`
}

func newUninstall(getenv func(string) string) *cobra.Command {
	var name, namespace, kubeconfig string
	var timeout time.Duration
	output := textOutput
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Delete the DaemonSet, and wait until its pods have cleaned up their nodes",
		Long: `Delete the DaemonSet, and wait until its pods have cleaned up their nodes: while the
account is there as which they tell the cluster so. The chart runs this before it
is uninstalled. A DaemonSet that is gone is no error.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not set: name the DaemonSet", settings.DaemonSet))
			}
			if timeout <= 0 {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("--timeout=%s: give a positive duration", timeout))
			}
			client, err := kubernetes.Connect(kubeconfig)
			if err != nil {
				return err
			}
			if namespace == "" {
				if namespace, err = kubernetes.Namespace(kubernetes.NamespaceFile); err != nil {
					return err
				}
			}
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "uninstall: deleting DaemonSet %s/%s, whose pods clean up their nodes\n", namespace, name)
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("it took longer than %s", timeout))
			defer cancel()
			if err := kubernetes.DeleteDaemonSet(ctx, client, namespace, name, apiPatience, apiInterval); err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), uninstallResult{Namespace: namespace, DaemonSet: name},
				fmt.Sprintf("DaemonSet %s/%s and its pods are gone", namespace, name))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "daemonset", getenv(settings.DaemonSet), "name of the DaemonSet (default $"+settings.DaemonSet+")")
	flags.StringVar(&namespace, "namespace", "", "where the DaemonSet is (default: where the pod is that this runs in)")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "how to reach the cluster (default: as the pod that this is)")
	flags.DurationVar(&timeout, "timeout", 15*time.Minute, "how long the pods may take")
	flags.Var(&output, "output", "how to print the result")
	return cmd
}
