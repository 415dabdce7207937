package command_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/manifests/command"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func run(args ...string) (code int, stderr string) {
	var out, errs bytes.Buffer
	code = command.Run(context.Background(), args, &out, &errs)
	return code, out.String() + errs.String()
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
	return name
}

func TestFill(t *testing.T) {
	dir := t.TempDir()
	digest := "sha256:" + strings.Repeat("0", 64)
	of := filepath.Join(dir, "receipt.json")
	require.NoError(t, receipt.WriteFile(of, &receipt.Receipt{
		SchemaVersion: receipt.SchemaVersion, Platform: "fake", Registry: "registry.example", Repository: "kata-deploy/fake", Digest: digest,
		Manifests:  []receipt.Manifest{{Arch: "amd64", Digest: digest}},
		Components: []receipt.Component{{Name: "kernel", Version: "1", Digest: digest, Size: 1}},
		Agent:      receipt.AgentNone, Inputs: receipt.InputsPinned,
	}))
	template, out := write(t, dir, "template", "{{.Repository}}@{{.Digest}}\n"), filepath.Join(dir, "out")
	code, stderr := run("fill", "--receipt="+of, "--template="+template, "--shim=qemu=amd64,arm64", "--out="+out)
	require.Equal(t, 0, code, stderr)
	require.Empty(t, stderr)
	content, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "registry.example/kata-deploy/fake@"+digest+"\n", string(content))

	for want, args := range map[string][]string{
		"has no architecture of the shim qemu": {"--receipt=" + of, "--template=" + template, "--shim=qemu=s390x"},
		"decoding a receipt":                   {"--receipt=" + template, "--template=" + template, "--shim=qemu=amd64"},
		"filling the template":                 {"--receipt=" + of, "--template=" + write(t, dir, "bad", "{{.Nothing}}"), "--shim=qemu=amd64"},
		`required flag(s) "shim" not set`:      {"--receipt=" + of, "--template=" + template},
	} {
		out := filepath.Join(dir, "none")
		code, stderr := run(append(args, "fill", "--out="+out)...)
		require.Equal(t, exitcode.BadInput, code, stderr)
		require.Contains(t, stderr, want)
		require.NoFileExists(t, out)
	}
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	about, out := write(t, dir, "Chart.yaml", "name: fake\nversion: 1.2.3\n"), filepath.Join(dir, "out.tgz")
	code, stderr := run("pack", "--root="+dir, "--out="+out, about)
	require.Equal(t, 0, code, stderr)
	require.FileExists(t, out)
	code, stderr = run("pack", "--root="+filepath.Join(dir, "below"), "--out="+out, about)
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "is not below")
	code, stderr = run("pack", "--root="+dir, "--out="+out, filepath.Join(dir, "absent"))
	require.Equal(t, exitcode.LocalIO, code)
	require.Contains(t, stderr, "absent")
}
