package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Distributions of Kubernetes, by the names of upstream's K8S_DISTRIBUTION.
const (
	K8s      = "k8s"
	K3s      = "k3s"
	RKE2     = "rke2"
	K0s      = "k0s"
	MicroK8s = "microk8s"
)

// Node is what must be known of a node.
type Node struct {
	// Directory is that of containerd's configuration, /etc/containerd by
	// default: where the distribution has its own, that is mounted there.
	Directory string
	// Distribution is one of the constants; empty means K8s.
	Distribution string
	// RuntimeVersion is what the node's status says of its runtime, such as
	// containerd://2.2.1.
	RuntimeVersion string
	// Installation is the directory of the artefacts, such as /opt/kata.
	Installation string
	// Suffix tells this installation from another one on the node.
	Suffix string
	// ConfigFile is the name of the configuration in the directory; empty means that
	// of the distribution.
	ConfigFile string
}

// Layout is where containerd of a node takes configuration from.
type Layout struct {
	// Schema is that of the drop-in.
	Schema int
	// DropIn is the file that makes containerd know the handlers.
	DropIn string
	// Config is the configuration that must import it, or empty where that is
	// so already.
	Config string
	// record is where it is written down what was done.
	record string
}

// firstConfD is the first version that imports /etc/containerd/conf.d by default.
var firstConfD = [2]int{2, 2}

// Find finds the layout of a node. A configuration that cannot be read is an error
// that names the line, and nothing is changed.
func Find(n Node) (*Layout, error) {
	major, minor, err := version(n.RuntimeVersion)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	name := "kata-deploy"
	if n.Suffix != "" {
		name += "-" + n.Suffix
	}
	file := name + ".toml"
	l := &Layout{
		// What containerd writes by default since that version.
		Schema: min(max(major+1, 2), 3),
		record: filepath.Join(n.Installation, "containerd", "."+name+".json"),
	}
	below := func(dirs ...string) string {
		return filepath.Join(append([]string{n.Directory}, append(dirs, file)...)...)
	}
	main := "config.toml"
	switch n.Distribution {
	case K0s:
		l.DropIn = below("containerd.d")
		return l, nil
	case K3s, RKE2:
		l.DropIn = below("config.toml.d")
		if l.Schema >= 3 {
			l.DropIn = below("config-v3.toml.d")
		}
		return l, nil
	case MicroK8s:
		main = "containerd-template.toml"
	case K8s, "":
	default:
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("distribution %q of Kubernetes: must be one of %s", n.Distribution, strings.Join([]string{K8s, K3s, RKE2, K0s, MicroK8s}, ", ")))
	}

	if n.ConfigFile != "" {
		main = n.ConfigFile
	}
	config := filepath.Join(n.Directory, main)
	content, err := os.ReadFile(config)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading containerd's configuration: %w", err))
	}
	if absent && n.Distribution == MicroK8s {
		// One that is made would take the place of all that microk8s configures.
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not there: is %s the directory of microk8s?", config, n.Directory))
	}
	if !absent {
		read, err := parse(content)
		if err != nil {
			return nil, broken(config, err)
		}
		// All files must be of one schema, up to 3; containerd migrates older
		// ones each by itself.
		l.Schema = min(read.Version, 3)
		if slices.Contains(read.Imports, filepath.Join(n.Directory, "conf.d", "*.toml")) {
			l.DropIn = below("conf.d")
			return l, nil
		}
	} else if major > firstConfD[0] || major == firstConfD[0] && minor >= firstConfD[1] {
		l.DropIn = below("conf.d")
		return l, nil
	}
	l.DropIn = filepath.Join(n.Installation, "containerd", "config.d", file)
	l.Config = config
	return l, nil
}

// version reads what a node says of its runtime.
func version(text string) (major, minor int, err error) {
	rest, ok := strings.CutPrefix(text, "containerd://")
	if !ok {
		return 0, 0, fmt.Errorf("the node's runtime is %q, not containerd://VERSION", text)
	}
	parts := strings.SplitN(strings.TrimPrefix(rest, "v"), ".", 3)
	if len(parts) >= 2 {
		if major, err = strconv.Atoi(parts[0]); err == nil {
			minor, err = strconv.Atoi(parts[1])
		}
	}
	if len(parts) < 2 || err != nil || major < 1 {
		return 0, 0, fmt.Errorf("the node's runtime is %q, of which no version can be read", text)
	}
	return major, minor, nil
}
