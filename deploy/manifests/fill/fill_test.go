package fill_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/manifests/fill"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func fake(registry string) *receipt.Receipt {
	return &receipt.Receipt{
		Platform: "fake", Registry: registry, Repository: "kiln/kata-deploy/fake", Digest: "sha256:01",
		Manifests: []receipt.Manifest{{Arch: "amd64"}, {Arch: "s390x"}},
	}
}

func TestOf(t *testing.T) {
	p, err := fill.Of(fake("registry.example:5000"), []string{"qemu=amd64,arm64,s390x", "qemu-se=s390x"})
	require.NoError(t, err)
	require.Equal(t, &fill.Payload{
		Platform: "fake", Repository: "registry.example:5000/kiln/kata-deploy/fake", Digest: "sha256:01",
		Shims: []fill.Shim{{Name: "qemu", Arches: []string{"amd64", "s390x"}}, {Name: "qemu-se", Arches: []string{"s390x"}}},
	}, p)
	require.Equal(t, map[string]string{"X86_64": "qemu", "S390X": "qemu qemu-se"}, p.Variables())

	p, err = fill.Of(fake("embedded"), []string{"qemu=amd64"})
	require.NoError(t, err)
	require.Empty(t, p.Repository, "no node finds a registry of this name")
}

func TestFill(t *testing.T) {
	p, err := fill.Of(fake("registry.example"), []string{"qemu=amd64,s390x"})
	require.NoError(t, err)
	got, err := fill.Fill(`{{range .Shims}}{{.Name}}: {{json .Arches}}{{end}}`, p)
	require.NoError(t, err)
	require.Equal(t, `qemu: ["amd64","s390x"]`, string(got))
	for text, want := range map[string]string{"{{": "reading the template", "{{.Absent}}": "filling the template"} {
		_, err := fill.Fill(text, p)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
}

func TestShimsThatAreNotThere(t *testing.T) {
	for want, shims := range map[string][]string{
		"none is given":                                 nil,
		`"qemu" is not SHIM=ARCH,ARCH`:                  {"qemu"},
		"has no architecture of the shim remote: arm64": {"qemu=amd64", "remote=arm64"},
	} {
		_, err := fill.Of(fake("registry.example"), shims)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
}
