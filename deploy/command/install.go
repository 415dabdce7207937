package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/health"
	"github.com/kiln-build/kiln/deploy/installer"
)

func newInstall(getenv func(string) string) *cobra.Command {
	var once bool
	var serve string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the payload on the node, and stay to clean up",
		Long: `Install the payload on the node, and stay to clean up.

The node is checked, and labelled so that pods stay away. Then come the files, each
whole and under a new inode, so running virtual machines keep what they have open;
then the runtime's configuration. The runtime is started again if anything is new
to it, and asked whether it serves each handler. Then the node is labelled ready,
/readyz says so, and this stays. SIGTERM means cleanup, also while it installs.

Installing again changes nothing. What an earlier version brought and this one
does not is removed; what kata-deploy did not bring is never touched.`,
	}
	f := addNodeFlags(cmd, getenv)
	cmd.Flags().BoolVar(&once, "once", false, "end when the node is ready, as --files-only does")
	cmd.Flags().StringVar(&serve, "health", "", "where to serve /healthz and /readyz (default :8090, or :$HEALTH_PORT)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		i, err := f.installer(cmd)
		if err != nil {
			return err
		}
		installed := func(res *installer.Result) error { return f.output.print(cmd.OutOrStdout(), res, describe(res)) }
		if once || f.filesOnly {
			res, err := i.Install(cmd.Context())
			if err != nil {
				return err
			}
			return installed(res)
		}
		if serve == "" {
			serve = address(i.Node.Settings.HealthPort)
		}
		h, err := health.Serve(cmd.Context(), serve)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.Close()) }()
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "health: serving on %s\n", h.Address())
		return i.Serve(cmd.Context(), h, installed)
	}
	return cmd
}

// describe says in one line what an installation did.
func describe(res *installer.Result) string {
	var parts []string
	if res.Artifacts != nil {
		parts = append(parts, installer.Describe(res.Artifacts))
	}
	if res.Runtime != "" {
		handlers := strings.Join(res.Handlers, ", ")
		switch {
		case res.Restart:
			parts = append(parts, res.Runtime+", when it is started again, serves "+handlers)
		case res.Restarted:
			parts = append(parts, res.Runtime+", started again, serves "+handlers)
		default:
			parts = append(parts, res.Runtime+" knows "+handlers+", as before")
		}
	}
	return strings.Join(parts, "\n")
}

func newInstallHostCheck(getenv func(string) string) *cobra.Command {
	return stage(getenv, "install-stage-host-check", "Find out whether the node can be installed on",
		"Find out whether the node can be installed on. Nothing is changed.",
		(*installer.Installer).HostCheck,
		func(res *installer.Result) string {
			return res.Runtime + " can have " + strings.Join(res.Handlers, ", ")
		})
}

func newInstallArtifacts(getenv func(string) string) *cobra.Command {
	return stage(getenv, "install-stage-artifacts", "Bring the payload's files to the node",
		"Bring the payload's files to the node. Its labels say before that that it is not\nready.",
		(*installer.Installer).Artifacts, describe)
}

func newInstallCRI(getenv func(string) string) *cobra.Command {
	return stage(getenv, "install-stage-cri", "Make the node's container runtime know the shims that are installed",
		"Make the node's container runtime know the shims that are installed: write its\nconfiguration, start it again, see that it serves them, and label the node ready.",
		(*installer.Installer).CRI, describe)
}
