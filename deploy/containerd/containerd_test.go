package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// node is one below a temporary directory.
type node struct {
	dir string
	Node
}

func newNode(t *testing.T, version string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{dir, Node{
		Directory: filepath.Join(dir, "etc/containerd"), Installation: filepath.Join(dir, "opt/kata"),
		RuntimeVersion: "containerd://" + version,
	}}
	require.NoError(t, os.MkdirAll(n.Installation, 0o755))
	return n
}

func (n *node) config(t *testing.T, content string) *node {
	t.Helper()
	require.NoError(t, os.MkdirAll(n.Directory, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(n.Directory, "config.toml"), []byte(content), 0o600))
	return n
}

func (n *node) layout(t *testing.T) *Layout {
	t.Helper()
	l, err := Find(n.Node)
	require.NoError(t, err)
	return l
}

// content is all that there is on the node: files by name, with mode and content.
func (n *node) content(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(n.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		value := info.Mode().String()
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			value += " " + string(text)
		}
		all[strings.TrimPrefix(name, n.dir)] = value
		return nil
	}))
	return all
}

func handlers() []handler.Handler {
	return []handler.Handler{
		{Name: "kata-qemu-tdx", Shim: "/opt/kata/bin/containerd-shim-kata-v2", Config: "/opt/kata/tdx.toml", Snapshotter: "nydus"},
		{Name: "kata-qemu-snp", Shim: "/opt/kata/bin/containerd-shim-kata-v2", Config: "/opt/kata/snp.toml"},
	}
}

func TestFind(t *testing.T) {
	const imports = "imports = ['%s/conf.d/*.toml']\n"
	for name, tc := range map[string]struct {
		version, distribution, suffix string
		// config is that of the node; %s is its directory.
		config string
		schema int
		// dropIn is below the directory, or below the installation; change says
		// that the configuration must import it.
		dropIn string
		change bool
	}{
		"old, no configuration":     {version: "1.7.24", schema: 2, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"2.0, no configuration":     {version: "2.0.1", schema: 3, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"2.2, no configuration":     {version: "2.2.0", schema: 3, dropIn: "etc/containerd/conf.d/kata-deploy.toml"},
		"3, no configuration":       {version: "v3.0.0-rc.1", schema: 3, dropIn: "etc/containerd/conf.d/kata-deploy.toml"},
		"2.2, a configuration":      {version: "2.2.0", config: "version = 3\n", schema: 3, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"2.2, one of an old schema": {version: "2.2.0", config: "version = 2\n", schema: 2, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"one without a version":     {version: "1.6.2", config: "root = '/x'\n", schema: 1, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"one of a schema to come":   {version: "3.1.0", config: "version = 4\n", schema: 3, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
		"one that imports conf.d":   {version: "2.2.0", config: "version = 3\n" + imports, schema: 3, dropIn: "etc/containerd/conf.d/kata-deploy.toml"},
		"conf.d of an older one":    {version: "1.7.0", config: "version = 2\n" + imports, schema: 2, dropIn: "etc/containerd/conf.d/kata-deploy.toml"},
		"a second installation":     {version: "2.2.0", suffix: "blue", schema: 3, dropIn: "etc/containerd/conf.d/kata-deploy-blue.toml"},
		"k0s":                       {version: "1.7.0", distribution: K0s, schema: 2, dropIn: "etc/containerd/containerd.d/kata-deploy.toml"},
		"k3s":                       {version: "1.7.0-k3s1", distribution: K3s, schema: 2, dropIn: "etc/containerd/config.toml.d/kata-deploy.toml"},
		"k3s with containerd 2":     {version: "2.0.4-k3s2", distribution: K3s, schema: 3, dropIn: "etc/containerd/config-v3.toml.d/kata-deploy.toml"},
		"rke2":                      {version: "2.0.4-k3s2", distribution: RKE2, suffix: "blue", schema: 3, dropIn: "etc/containerd/config-v3.toml.d/kata-deploy-blue.toml"},
		"microk8s":                  {version: "1.6.28", distribution: MicroK8s, config: "version = 2\n", schema: 2, dropIn: "opt/kata/containerd/config.d/kata-deploy.toml", change: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "")
			n.RuntimeVersion, n.Distribution, n.Suffix = "containerd://"+tc.version, tc.distribution, tc.suffix
			if tc.config != "" {
				n.config(t, strings.ReplaceAll(tc.config, "%s", n.Directory))
				if n.Distribution == MicroK8s {
					require.NoError(t, os.Rename(filepath.Join(n.Directory, "config.toml"), filepath.Join(n.Directory, "containerd-template.toml")))
				}
			}
			before := n.content(t)
			l := n.layout(t)
			require.Equal(t, tc.schema, l.Schema)
			require.Equal(t, filepath.Join(n.dir, tc.dropIn), l.DropIn)
			if tc.change {
				require.Contains(t, []string{"config.toml", "containerd-template.toml"}, filepath.Base(l.Config))
			} else {
				require.Empty(t, l.Config)
			}
			require.Equal(t, before, n.content(t))
		})
	}
}

func TestFindByAnotherName(t *testing.T) {
	n := newNode(t, "1.7.0").config(t, "version = 2\n")
	n.ConfigFile = "mine.toml"
	mine := filepath.Join(n.Directory, "mine.toml")
	require.NoError(t, os.Rename(filepath.Join(n.Directory, "config.toml"), mine))
	require.Equal(t, mine, n.layout(t).Config)
}

func TestFindRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*node)
		want   string
		code   int
	}{
		"another runtime":       {func(n *node) { n.RuntimeVersion = "cri-o://1.33.0" }, `"cri-o://1.33.0", not containerd`, exitcode.BadInput},
		"no version":            {func(n *node) { n.RuntimeVersion = "containerd://latest" }, "of which no version can be read", exitcode.BadInput},
		"unknown distribution":  {func(n *node) { n.Distribution = "k9s" }, "must be one of k8s, k3s, rke2, k0s, microk8s", exitcode.BadInput},
		"microk8s, no template": {func(n *node) { n.Distribution = MicroK8s }, "containerd-template.toml is not there", exitcode.BadInput},
		"broken configuration":  {func(n *node) { n.config(t, "version = 2\n[plugins\n") }, "config.toml:2:", exitcode.BadInput},
		"configuration no file": {func(n *node) { require.NoError(t, os.MkdirAll(filepath.Join(n.Directory, "config.toml"), 0o755)) }, "is a directory", exitcode.LocalIO},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "1.7.0")
			tc.change(n)
			before := n.content(t)
			_, err := Find(n.Node)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err))
			require.Equal(t, before, n.content(t))
		})
	}
}

// What each schema wants is in testdata.
func TestDropIn(t *testing.T) {
	for schema := 1; schema <= 3; schema++ {
		got, err := DropIn(schema, handlers(), nil)
		require.NoError(t, err)
		want, err := os.ReadFile(fmt.Sprintf("testdata/schema-%d.toml", schema))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
		var document map[string]any
		require.NoError(t, toml.Unmarshal(got, &document))
	}
	// A snapshotter that is a service of its own is told which image a layer is of.
	for schema, plugin := range map[int]string{1: "cri.containerd", 2: "'io.containerd.grpc.v1.cri'.containerd", 3: "'io.containerd.cri.v1.images'"} {
		got, err := DropIn(schema, handlers(), map[string]string{"nydus": "/run/n.sock"})
		require.NoError(t, err)
		require.Contains(t, string(got), "[proxy_plugins.nydus]\naddress = '/run/n.sock'\ntype = 'snapshot'\n")
		require.Contains(t, string(got), "[plugins."+plugin+"]\ndisable_snapshot_annotations = false\n")
	}
	_, err := DropIn(4, nil, nil)
	require.ErrorContains(t, err, "schema 4")
}

// nodes are those whose configuration is touched in different ways.
func nodes(t *testing.T) map[string]*node {
	t.Helper()
	blue := newNode(t, "1.7.0").config(t, "version = 2\n")
	blue.Suffix = "blue"
	return map[string]*node{
		"conf.d":           newNode(t, "2.2.0"),
		"no configuration": newNode(t, "1.7.0"),
		"a configuration":  newNode(t, "1.7.0").config(t, "# mine\nversion = 2\n\n[plugins.\"x\"]\n  a = 1 # one\n"),
		"an empty one":     newNode(t, "1.7.0").config(t, ""),
		"imports":          newNode(t, "2.0.0").config(t, "imports = [\n  '/a',\n]\nversion = 3"),
		"a suffix":         blue,
	}
}

func TestInstallAndRemove(t *testing.T) {
	for name, n := range nodes(t) {
		t.Run(name, func(t *testing.T) {
			before := n.content(t)
			l := n.layout(t)
			changed, err := l.Install(t.Context(), handlers(), nil)
			require.NoError(t, err)
			require.True(t, changed)
			installed := n.content(t)
			require.Contains(t, installed, strings.TrimPrefix(l.DropIn, n.dir))
			if l.Config != "" {
				config, err := os.ReadFile(l.Config)
				require.NoError(t, err)
				d, err := parse(config)
				require.NoError(t, err)
				require.Contains(t, d.Imports, l.DropIn)
				require.Equal(t, l.Schema, d.Version)
			}

			// Find sees what Install made, and gives the same.
			again := n.layout(t)
			require.Equal(t, l, again)
			changed, err = again.Install(t.Context(), handlers(), nil)
			require.NoError(t, err)
			require.False(t, changed, "containerd would be started again for nothing")
			require.Equal(t, installed, n.content(t))

			changed, err = again.Install(t.Context(), handlers()[:1], nil)
			require.NoError(t, err)
			require.True(t, changed)

			changed, err = n.layout(t).Remove(t.Context())
			require.NoError(t, err)
			require.True(t, changed)
			require.Equal(t, before, n.content(t))
			changed, err = n.layout(t).Remove(t.Context())
			require.NoError(t, err)
			require.False(t, changed)
		})
	}
}

// stopping is a context that ends after it was asked a number of times, as an
// installer ends that is killed between two steps.
type stopping struct {
	context.Context
	left int
}

func (s *stopping) Err() error {
	if s.left--; s.left < 0 {
		return errors.New("killed")
	}
	return nil
}

func TestInterruptedAnywhereItGoesOn(t *testing.T) {
	for name := range nodes(t) {
		for steps := 0; steps < 6; steps++ {
			t.Run(fmt.Sprintf("%s/%d steps", name, steps), func(t *testing.T) {
				n := nodes(t)[name]
				before := n.content(t)
				_, err := n.layout(t).Install(&stopping{t.Context(), steps}, handlers(), nil)
				if steps < 2 {
					require.ErrorContains(t, err, "killed", "nothing was interrupted")
				}
				// From here both ways are open.
				_, err = n.layout(t).Install(t.Context(), handlers(), nil)
				require.NoError(t, err)
				whole := nodes(t)[name]
				_, err = whole.layout(t).Install(t.Context(), handlers(), nil)
				require.NoError(t, err)
				require.Len(t, n.content(t), len(whole.content(t)))
				_, err = n.layout(t).Remove(&stopping{t.Context(), steps})
				if steps == 0 {
					require.ErrorContains(t, err, "killed", "nothing was interrupted")
				}
				if err != nil {
					_, err = n.layout(t).Remove(t.Context())
					require.NoError(t, err)
				}
				require.Equal(t, before, n.content(t))

				n = nodes(t)[name]
				before = n.content(t)
				_, _ = n.layout(t).Install(&stopping{t.Context(), steps}, handlers(), nil)
				_, err = n.layout(t).Remove(t.Context())
				require.NoError(t, err)
				require.Equal(t, before, n.content(t))
			})
		}
	}
}

func TestTwoInstallations(t *testing.T) {
	for _, config := range []string{"", "version = 2 # mine\n"} {
		for _, first := range []string{"", "blue"} {
			n := newNode(t, "1.7.0")
			if config != "" {
				n.config(t, config)
			}
			before := n.content(t)
			other := *n
			other.Suffix = "blue"
			for _, i := range []*node{n, &other} {
				_, err := i.layout(t).Install(t.Context(), handlers(), nil)
				require.NoError(t, err)
			}
			order := []*node{n, &other}
			if first == "blue" {
				order = []*node{&other, n}
			}
			_, err := order[0].layout(t).Remove(t.Context())
			require.NoError(t, err)
			l := order[1].layout(t)
			content, err := os.ReadFile(l.Config)
			require.NoError(t, err)
			d, err := parse(content)
			require.NoError(t, err)
			require.Equal(t, []string{l.DropIn}, d.Imports)
			require.FileExists(t, l.DropIn)
			_, err = l.Remove(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, n.content(t))
		}
	}
}

func TestWhatOthersChangeStays(t *testing.T) {
	n := newNode(t, "1.7.0").config(t, "version = 2\n")
	l := n.layout(t)
	_, err := l.Install(t.Context(), handlers(), nil)
	require.NoError(t, err)
	content, err := os.ReadFile(l.Config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.Config, append(content, "root = '/mine'\n"...), 0o600))
	changed, err := n.layout(t).Install(t.Context(), handlers(), nil)
	require.NoError(t, err)
	require.False(t, changed)
	_, err = n.layout(t).Remove(t.Context())
	require.NoError(t, err)
	content, err = os.ReadFile(l.Config)
	require.NoError(t, err)
	require.Equal(t, "version = 2\nroot = '/mine'\n", string(content))
}

func TestALinkStaysOne(t *testing.T) {
	n := newNode(t, "1.7.0").config(t, "version = 2\n")
	config := filepath.Join(n.Directory, "config.toml")
	require.NoError(t, os.Rename(config, filepath.Join(n.Directory, "real.toml")))
	require.NoError(t, os.Symlink("real.toml", config))
	before := n.content(t)
	_, err := n.layout(t).Install(t.Context(), handlers(), nil)
	require.NoError(t, err)
	require.NotEqual(t, before, n.content(t))
	_, err = n.layout(t).Remove(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, n.content(t))
}

func TestARecordOfAnotherVersion(t *testing.T) {
	n := newNode(t, "2.2.0")
	l := n.layout(t)
	_, err := l.Install(t.Context(), handlers(), nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.record, []byte(`{"schemaVersion": 2}`), 0o600))
	_, err = l.Remove(t.Context())
	require.ErrorContains(t, err, "clean up with the version that installed")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	require.FileExists(t, l.DropIn)
}

// A newer containerd, or its owner, may make another file the right one between
// two calls.
func TestTheNodeChanges(t *testing.T) {
	for name, remove := range map[string]bool{"and then it is removed": true, "and then it is installed again": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "2.1.0").config(t, "version = 3\n")
			old := n.layout(t)
			_, err := old.Install(t.Context(), handlers(), nil)
			require.NoError(t, err)
			confD := "imports = ['" + n.Directory + "/conf.d/*.toml', '" + old.DropIn + "']\nversion = 3\n"
			n.config(t, confD)
			l := n.layout(t)
			require.NotEqual(t, old.DropIn, l.DropIn)
			if !remove {
				changed, err := l.Install(t.Context(), handlers(), nil)
				require.NoError(t, err)
				require.True(t, changed)
				require.FileExists(t, l.DropIn)
			} else {
				_, err := l.Remove(t.Context())
				require.NoError(t, err)
			}
			require.NoFileExists(t, old.DropIn)
			content, err := os.ReadFile(old.Config)
			require.NoError(t, err)
			require.NotContains(t, string(content), old.DropIn, "containerd would not start: what it imports is gone")
			_, err = n.layout(t).Remove(t.Context())
			require.NoError(t, err)
			require.NoFileExists(t, l.DropIn)
			require.NoDirExists(t, filepath.Join(n.Installation, "containerd"))
		})
	}
}
