package command

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/artifacts"
	"github.com/kiln-build/kiln/deploy/cri"
	"github.com/kiln-build/kiln/deploy/criclient"
	"github.com/kiln-build/kiln/deploy/installer"
	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/deploy/lock"
	"github.com/kiln-build/kiln/deploy/nydus"
	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/deploy/systemd"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// apiPatience covers a server that starts again together with the runtime.
	apiPatience = 2 * time.Minute
	apiInterval = 2 * time.Second
	// grace is less than the 600 seconds of upstream's terminationGracePeriodSeconds.
	grace = 570 * time.Second
)

// nodeFlags say which node to change, and where everything of it is.
type nodeFlags struct {
	getenv func(string) string

	filesOnly bool
	node      string
	prefix    string
	payload   string
	digest    string
	cri       cri.Node

	kubeconfig, namespace       string
	lock, systemd, unit, socket string
	units                       string
	machineID                   string
	timeout                     time.Duration
	output                      outputFormat
}

func addNodeFlags(cmd *cobra.Command, getenv func(string) string) *nodeFlags {
	f := &nodeFlags{getenv: getenv, output: textOutput}
	flags := cmd.Flags()
	flags.BoolVar(&f.filesOnly, "files-only", false, "change files, and nothing else: no cluster is asked or told, no unit is started again, no lock is taken")
	flags.StringVar(&f.node, "node", getenv(settings.NodeName), "name of the node that this runs on (default $"+settings.NodeName+")")
	flags.StringVar(&f.prefix, "prefix", getenv(settings.Prefix), "install below this directory, in opt/kata (default /, or $"+settings.Prefix+")")
	flags.StringVar(&f.payload, "artifacts", artifacts.Source, "directory of the artefacts")
	flags.StringVar(&f.digest, "handler-digest", getenv(settings.HandlerDigest), "end the names of handlers with this prefix of the payload's digest (default $"+settings.HandlerDigest+")")
	flags.StringVar(&f.cri.ContainerdDirectory, "containerd-directory", cri.ContainerdDirectory, "where containerd of the node has its configuration")
	flags.StringVar(&f.cri.CRIODirectory, "crio-directory", cri.CRIODirectory, "where CRI-O of the node has its configuration")
	flags.StringVar(&f.socket, "cri-socket", "", "where the node's runtime listens (default: as the distribution has it)")
	flags.StringVar(&f.unit, "unit", "", "systemd's unit of the node's runtime (default: as the distribution has it)")
	flags.StringVar(&f.systemd, "systemd", systemd.Socket, "where systemd of the node listens")
	flags.StringVar(&f.units, "unit-directory", nydus.UnitDirectory, "where the node has units that are not of its distribution")
	flags.StringVar(&f.lock, "lock", lock.Path, "by which file installations on the node wait for each other")
	flags.StringVar(&f.machineID, "machine-id", "/etc/machine-id", "which file has the machine's ID")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster (default: as the pod that this is)")
	flags.StringVar(&f.namespace, "namespace", "", "where the DaemonSet is (default: where the pod is)")
	flags.DurationVar(&f.timeout, "runtime-timeout", 5*time.Minute, "how long the runtime may take to serve again")
	flags.Var(&f.output, "output", "how to print the result")
	return f
}

// installer makes what the flags and the environment say.
func (f *nodeFlags) installer(cmd *cobra.Command) (*installer.Installer, error) {
	s, err := settings.Read(f.getenv)
	if err != nil {
		return nil, err
	}
	f.cri.Settings, f.cri.Digest = s, f.digest
	if f.cri.Installation, err = artifacts.Destination(f.prefix, s.Suffix); err != nil {
		return nil, err
	}
	i := &installer.Installer{
		Node: &f.cri, Payload: f.payload, Unit: f.unit, Socket: f.socket, MachineID: f.machineID, UnitDirectory: f.units,
		Timeout: f.timeout, Grace: grace, Progress: cmd.ErrOrStderr(), Now: time.Now,
		Connect: func(socket string) installer.Runtime { return &criclient.Client{Socket: socket} },
	}
	if f.filesOnly {
		return i, nil
	}
	switch {
	case f.node == "":
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not set: name the node that this runs on, or say --files-only", settings.NodeName))
	case !filepath.IsAbs(f.lock):
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--lock=%s: give an absolute path", f.lock))
	}
	client, err := kubernetes.Connect(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	if i.Namespace = f.namespace; i.Namespace == "" && s.DaemonSet != "" {
		if i.Namespace, err = kubernetes.Namespace(kubernetes.NamespaceFile); err != nil {
			return nil, err
		}
	}
	i.Lock = f.lock
	i.Cluster = &kubernetes.Node{Client: client, Name: f.node, Suffix: s.Suffix, Patience: apiPatience, Interval: apiInterval}
	i.Services = &systemd.Manager{Socket: f.systemd}
	return i, nil
}

// stage makes a command of one action that ends by itself.
func stage[T any](getenv func(string) string, use, short, long string, do func(*installer.Installer, context.Context) (T, error), line func(T) string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long}
	f := addNodeFlags(cmd, getenv)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, err := f.installer(cmd)
		if err != nil {
			return err
		}
		res, err := do(i, cmd.Context())
		if err != nil {
			return err
		}
		return f.output.print(cmd.OutOrStdout(), res, line(res))
	}
	return cmd
}

func address(port int) string { return ":" + strconv.Itoa(port) }
