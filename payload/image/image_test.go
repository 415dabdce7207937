package image_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func file(path string) metadata.File {
	return metadata.File{Path: path, Type: metadata.TypeFile, Mode: "0644", Size: 1, SHA256: strings.Repeat("e", 64)}
}

func dir(path string) metadata.File {
	return metadata.File{Path: path, Type: metadata.TypeDir, Mode: "0755"}
}

func link(path, target string) metadata.File {
	return metadata.File{Path: path, Type: metadata.TypeSymlink, Mode: "0777", Target: target}
}

func component(name, version, hex string, files ...metadata.File) *metadata.Component {
	return &metadata.Component{
		Name: name, Version: version, License: "Apache-2.0", Arch: "amd64",
		Layer: metadata.Layer{MediaType: metadata.MediaType, Digest: digest(hex), Size: 100, DiffID: digest("f" + hex)[:71]},
		Files: files,
	}
}

const kata = "opt/kata-artifacts/opt/kata/"

func spec() image.Spec {
	return image.Spec{
		Platform: "tdx", Arch: "amd64", RuntimeClasses: []string{"qemu-tdx"},
		Registry: receipt.Embedded, Agent: receipt.AgentBringup, Inputs: receipt.InputsPinned,
		Components: []*metadata.Component{
			component("kernel", "6.12", "a", dir("opt"), file(kata+"share/vmlinuz-6.12"), link(kata+"share/vmlinuz.container", "vmlinuz-6.12")),
			component("kata-deploy", "1", "b", dir("usr"), file("usr/bin/kata-deploy")),
		},
	}
}

func TestBuildIsTheImageThatWasAskedFor(t *testing.T) {
	p, err := image.Build(spec())
	require.NoError(t, err)

	var index v1.IndexManifest
	require.NoError(t, json.Unmarshal(p.Index, &index))
	require.Len(t, index.Manifests, 1)
	require.Equal(t, "linux/amd64", index.Manifests[0].Platform.String())
	require.Equal(t, sum(p.Manifest), index.Manifests[0].Digest.String())
	require.Equal(t, int64(len(p.Manifest)), index.Manifests[0].Size)
	require.Equal(t, "tdx", index.Annotations[image.LabelPlatform])

	manifest, err := v1.ParseManifest(bytes.NewReader(p.Manifest))
	require.NoError(t, err)
	require.Equal(t, sum(p.Config), manifest.Config.Digest.String())
	require.Equal(t, int64(len(p.Config)), manifest.Config.Size)
	require.Len(t, manifest.Layers, 2)
	require.Equal(t, digest("a"), manifest.Layers[0].Digest.String())
	require.Equal(t, metadata.MediaType, string(manifest.Layers[0].MediaType))

	config, err := v1.ParseConfigFile(bytes.NewReader(p.Config))
	require.NoError(t, err)
	require.Equal(t, []string{image.Entrypoint}, config.Config.Entrypoint)
	require.Equal(t, int64(0), config.Created.Unix())
	require.Len(t, config.RootFS.DiffIDs, 2)
	require.Len(t, config.History, 2)
	require.Equal(t, map[string]string{
		"kiln.platform":                     "tdx",
		"kiln.runtime-classes":              "qemu-tdx",
		"kiln.agent":                        "bringup",
		"kiln.inputs":                       "pinned",
		"kiln.version.kernel":               "6.12",
		"kiln.version.kata-deploy":          "1",
		"org.opencontainers.image.title":    "kata-deploy tdx",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}, config.Config.Labels)

	require.Equal(t, &receipt.Receipt{
		SchemaVersion: 1, Platform: "tdx", Registry: "embedded", Repository: "kata-deploy/tdx",
		Digest:    sum(p.Index),
		Manifests: []receipt.Manifest{{Arch: "amd64", Digest: sum(p.Manifest)}},
		Components: []receipt.Component{
			{Name: "kernel", Version: "6.12", Digest: digest("a"), Size: 100},
			{Name: "kata-deploy", Version: "1", Digest: digest("b"), Size: 100},
		},
		Agent: "bringup", Inputs: "pinned",
	}, p.Receipt)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

func TestWhatAPayloadLacksIsALabel(t *testing.T) {
	s := spec()
	s.Lacks = []string{"nydus", "tool"}
	p, err := image.Build(s)
	require.NoError(t, err)
	config, err := v1.ParseConfigFile(bytes.NewReader(p.Config))
	require.NoError(t, err)
	require.Equal(t, "nydus,tool", config.Config.Labels[image.LabelLacks])
}

func TestBuildIsDeterministicAndCanonical(t *testing.T) {
	first, err := image.Build(spec())
	require.NoError(t, err)
	for range 20 {
		again, err := image.Build(spec())
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
	for _, doc := range [][]byte{first.Config, first.Manifest, first.Index} {
		var v map[string]any
		require.NoError(t, json.Unmarshal(doc, &v))
		// encoding/json sorts the keys of maps and adds no white space.
		want, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, string(want), string(doc))
	}
}

func TestRegistryChangesTheReceiptOnly(t *testing.T) {
	embedded, err := image.Build(spec())
	require.NoError(t, err)
	s := spec()
	s.Registry = "ghcr.io/kiln-build"
	real, err := image.Build(s)
	require.NoError(t, err)
	require.Equal(t, embedded.Index, real.Index)
	require.Equal(t, "ghcr.io", real.Receipt.Registry)
	require.Equal(t, "kiln-build/kata-deploy/tdx", real.Receipt.Repository)
}

func TestRevisionIsThereOnRequest(t *testing.T) {
	s := spec()
	s.Revision = "0123abcd"
	p, err := image.Build(s)
	require.NoError(t, err)
	require.Contains(t, string(p.Config), `"org.opencontainers.image.revision":"0123abcd"`)
}

func TestLicensesAreCombined(t *testing.T) {
	s := spec()
	s.Components[0].License = "GPL-2.0-only OR BSD-2-Clause"
	s.Components[1].License = "MIT AND Apache-2.0 AND MIT"
	p, err := image.Build(s)
	require.NoError(t, err)
	require.Contains(t, string(p.Config), `"(GPL-2.0-only OR BSD-2-Clause) AND Apache-2.0 AND MIT"`)
}

func TestBuildRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*image.Spec)
		want   string
	}{
		"no component": {
			func(s *image.Spec) { s.Components = nil },
			"payload tdx: it has no component",
		},
		"the same component twice": {
			func(s *image.Spec) { s.Components = append(s.Components, s.Components[0]) },
			"payload tdx: component kernel is listed twice: remove one",
		},
		"another architecture": {
			func(s *image.Spec) { s.Components[0].Arch = "s390x" },
			"payload tdx: component kernel is for s390x, the payload is for amd64",
		},
		"two components install one path": {
			func(s *image.Spec) {
				s.Components = append(s.Components, component("kernel-debug", "6.12", "c", file(kata+"share/vmlinuz.container")))
			},
			"payload tdx: components kernel and kernel-debug both install /" + kata + "share/vmlinuz.container: take it out of one of them",
		},
		"two components disagree about a directory": {
			func(s *image.Spec) {
				d := dir("opt")
				d.Mode = "0700"
				s.Components = append(s.Components, component("odd", "1", "c", d))
			},
			"payload tdx: components kernel and odd disagree about the mode of directory /opt: 0755 and 0700",
		},
		"a file where another has a directory": {
			func(s *image.Spec) {
				s.Components = append(s.Components, component("odd", "1", "c", file(kata+"share")))
			},
			"but /" + kata + "share of component odd is no directory",
		},
		"no entry point": {
			func(s *image.Spec) { s.Components = s.Components[:1] },
			"payload tdx: no component installs the entry point /usr/bin/kata-deploy",
		},
		"unknown agent":        {func(s *image.Spec) { s.Agent = "mystery" }, `agent is "mystery"`},
		"registry with scheme": {func(s *image.Spec) { s.Registry = "http://x" }, "without a scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec()
			tc.change(&s)
			_, err := image.Build(s)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestConfigurations(t *testing.T) {
	for name, tc := range map[string]struct {
		target  string
		content string
		want    string
		code    int
	}{
		"it holds": {
			"vmlinuz-6.12",
			"[hypervisor.qemu]\nkernel = \"/opt/kata/share/vmlinuz.container\"\n", "", exitcode.OK,
		},
		"an absolute symlink holds": {
			"/opt/kata/share/vmlinuz-6.12",
			"[hypervisor.qemu]\nkernel = \"/opt/kata/share/vmlinuz.container\"\n", "", exitcode.OK,
		},
		"what lies elsewhere is the node's": {
			"vmlinuz-6.12",
			"[hypervisor.qemu]\nentropy_source = \"/dev/urandom\"\n", "", exitcode.OK,
		},
		"a missing file": {
			"vmlinuz-6.12",
			"[hypervisor.qemu]\nkernel = \"/opt/kata/share/vmlinuz.container\"\nfirmware = \"/opt/kata/share/ovmf/OVMF.fd\"\n",
			"payload tdx: configuration-qemu-tdx.toml:3: hypervisor.qemu.firmware names /opt/kata/share/ovmf/OVMF.fd, which no component installs",
			exitcode.Unverified,
		},
		"a dangling symlink": {
			"/opt/kata/share/vmlinuz-6.13",
			"[hypervisor.qemu]\nkernel = \"/opt/kata/share/vmlinuz.container\"\n",
			"names /opt/kata/share/vmlinuz.container, which leads to /opt/kata/share/vmlinuz-6.13, which no component installs",
			exitcode.Unverified,
		},
		"a symlink to itself": {
			"vmlinuz.container",
			"[hypervisor.qemu]\nkernel = \"/opt/kata/share/vmlinuz.container\"\n",
			"names /opt/kata/share/vmlinuz.container, which no component installs",
			exitcode.Unverified,
		},
		"it is not TOML": {
			"vmlinuz-6.12",
			"[hypervisor.qemu\n",
			"payload tdx: configuration-qemu-tdx.toml: parsing configuration: line ",
			exitcode.BadInput,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec()
			s.Components[0].Files[2].Target = tc.target
			s.Configurations = []image.Configuration{{Name: "configuration-qemu-tdx.toml", Content: []byte(tc.content)}}
			_, err := image.Build(s)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err))
		})
	}
}
