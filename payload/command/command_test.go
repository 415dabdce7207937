package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/command"
	"github.com/kiln-build/kiln/payload/fakepayload"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// payload runs the command in process.
func payload(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = command.Run(context.Background(), append([]string{"payload"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// home gives the command a cache of its own.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	return filepath.Join(dir, "kiln")
}

func TestIndexMakesTheDocuments(t *testing.T) {
	dir := t.TempDir()
	components := fakepayload.Components(t, dir)
	fakepayload.Write(t, dir, fakepayload.Spec(components...))
	out := t.TempDir()
	args := []string{
		"index", "--platform=tdx", "--agent=bringup", "--runtime-class=qemu-tdx",
		"--component=" + filepath.Join(dir, "kernel.component.json"), "--component=" + filepath.Join(dir, "kata-deploy.component.json"),
		"--config=" + filepath.Join(out, "config.json"), "--manifest=" + filepath.Join(out, "manifest.json"),
		"--index=" + filepath.Join(out, "index.json"), "--receipt=" + filepath.Join(out, "receipt.json"),
	}
	code, _, stderr := payload(t, args...)
	require.Equal(t, 0, code, stderr)
	for _, name := range []string{"config.json", "manifest.json", "index.json", "receipt.json"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}

	foreign := filepath.Join(t.TempDir(), "configuration-qemu-tdx.toml")
	require.NoError(t, os.WriteFile(foreign, []byte("[hypervisor.qemu]\nkernel = \"/opt/kata/absent\"\n"), 0o644))
	code, _, stderr = payload(t, append(args, "--configuration="+foreign)...)
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "error: configuration configuration-qemu-tdx.toml is in none of the components")
}

func TestIndexNamesTheConfigurationsLine(t *testing.T) {
	dir := t.TempDir()
	config := "[hypervisor.qemu]\nfirmware = \"/opt/kata/share/ovmf/OVMF.inteltdx.fd\"\n"
	components := append(fakepayload.Components(t, dir), fakepayload.Component(t, dir, "runtimeconfig", "3", map[string]string{
		"opt/kata-artifacts/opt/kata/share/defaults/kata-containers/configuration-qemu-tdx.toml": config,
	}))
	fakepayload.Write(t, dir, fakepayload.Spec(components...))
	file := filepath.Join(dir, "configuration-qemu-tdx.toml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o644))
	out := t.TempDir()
	args := []string{"index", "--platform=tdx", "--agent=bringup", "--configuration=" + file}
	for _, c := range components {
		args = append(args, "--component="+filepath.Join(dir, c.Name+".component.json"))
	}
	for _, doc := range []string{"config", "manifest", "index", "receipt"} {
		args = append(args, "--"+doc+"="+filepath.Join(out, doc+".json"))
	}
	code, _, stderr := payload(t, args...)
	require.Equal(t, exitcode.Unverified, code)
	require.Equal(t, "error: payload tdx: configuration-qemu-tdx.toml:2: hypervisor.qemu.firmware names /opt/kata/share/ovmf/OVMF.inteltdx.fd, which no component installs\n", stderr)
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is half written")
}

func TestPublishToTheEmbeddedRegistry(t *testing.T) {
	cache := home(t)
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))

	code, stdout, stderr := payload(t, "publish", "--bundle="+path)
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, "kiln: publishing payload tdx for amd64 to the embedded registry in "+filepath.Join(cache, "registry"))
	require.Contains(t, stderr, "kiln: uploaded kernel, ")
	require.Regexp(t, `(?m)^COMPONENT +VERSION +SIZE +REGISTRY$`, stdout)
	require.Regexp(t, `(?m)^kernel +6\.12 +[0-9.]+ K?i?B +uploaded$`, stdout)
	require.Regexp(t, `(?m)^payload +embedded/kata-deploy/tdx@sha256:[0-9a-f]{64}$`, stdout)
	require.Regexp(t, `(?m)^receipt +`+filepath.Join(cache, "receipts", "tdx.json")+`$`, stdout)
	require.Regexp(t, `(?m)^inside +2 components, 2 files, 1 symlinks, `, stdout)
	require.Regexp(t, `(?m)^runtime class +qemu-tdx$`, stdout)
	require.Regexp(t, `(?m)^uploaded +3 blobs, .*; 2 manifests$`, stdout)

	// The receipt that is written is the one that was built.
	want, err := os.ReadFile(filepath.Join(dir, "receipt.json"))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(cache, "receipts", "tdx.json"))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))

	code, stdout, stderr = payload(t, "publish", "--bundle="+path, "--output=json")
	require.Equal(t, 0, code, stderr)
	var result struct {
		Receipt    receipt.Receipt
		Components []struct{ Name, Registry string }
		Published  struct{ UploadedBlobs, UploadedManifests int }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Equal(t, "tdx", result.Receipt.Platform)
	require.Zero(t, result.Published.UploadedBlobs+result.Published.UploadedManifests)
	require.Equal(t, "reused", result.Components[0].Registry)

	code, stdout, _ = payload(t, "publish", "--bundle="+path)
	require.Equal(t, 0, code)
	require.Regexp(t, `(?m)^uploaded +nothing: the registry has all of it$`, stdout)
}

func TestPublishForSeveralArchitectures(t *testing.T) {
	cache := home(t)
	args := []string{"publish"}
	for _, arch := range []string{"s390x", "amd64"} {
		dir := t.TempDir()
		spec := fakepayload.Spec(fakepayload.Components(t, dir)...)
		spec.Arch = arch
		for _, c := range spec.Components {
			c.Arch = arch
		}
		args = append(args, "--bundle="+fakepayload.Write(t, dir, spec))
	}
	code, stdout, stderr := payload(t, args...)
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `(?m)^platform +tdx, linux/amd64$`, stdout)
	require.Regexp(t, `(?m)^platform +tdx, linux/s390x$`, stdout)
	require.Regexp(t, `(?m)^all +embedded/kata-deploy/tdx@sha256:[0-9a-f]{64}$`, stdout)
	require.Regexp(t, `(?m)^index +uploaded$`, stdout)
	for _, name := range []string{"tdx.json", "tdx-s390x.json"} {
		require.FileExists(t, filepath.Join(cache, "receipts", name))
	}

	code, stdout, stderr = payload(t, append(args, "--output=json")...)
	require.Equal(t, 0, code, stderr)
	var result struct {
		Payload  string
		Uploaded bool
		Payloads []struct{ Receipt receipt.Receipt }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.False(t, result.Uploaded, "it was there")
	require.Len(t, result.Payloads, 2)
	require.Equal(t, "amd64", result.Payloads[0].Receipt.Manifests[0].Arch)
	require.NotContains(t, []string{result.Payloads[0].Receipt.Digest, result.Payloads[1].Receipt.Digest}, result.Payload[strings.Index(result.Payload, "@")+1:])

	// What cannot be joined is found out before anything is sent.
	home(t)
	code, _, stderr = payload(t, "publish", args[1], args[1])
	require.Equal(t, exitcode.BadInput, code)
	require.Equal(t, "error: joining payloads: two are for s390x\n", stderr)
}

func TestPublishGoesThroughAProcessThatServes(t *testing.T) {
	cache := home(t)
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))

	ctx, stop := context.WithCancel(context.Background())
	served := make(chan int, 1)
	var out, errs bytes.Buffer
	go func() {
		served <- command.Run(ctx, []string{"payload", "serve", "--address=127.0.0.1:0"}, &out, &errs)
	}()
	address := filepath.Join(cache, "registry", "address")
	require.Eventually(t, func() bool { _, err := os.Stat(address); return err == nil }, 10*time.Second, 10*time.Millisecond)

	code, _, stderr := payload(t, "publish", "--bundle="+path, "--tag=latest")
	require.Equal(t, 0, code, stderr)
	host, err := os.ReadFile(address)
	require.NoError(t, err)
	resp, err := http.Get("http://" + strings.TrimSpace(string(host)) + "/v2/kata-deploy/tdx/tags/list")
	require.NoError(t, err)
	defer resp.Body.Close()
	var tags struct{ Tags []string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&tags))
	require.Equal(t, []string{"latest"}, tags.Tags)

	// A second one must not take the same directory.
	code, _, stderr = payload(t, "serve", "--address=127.0.0.1:0")
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "is served by another process at 127.0.0.1:")

	stop()
	require.Equal(t, 0, <-served, errs.String())
	require.Contains(t, out.String(), "serving "+filepath.Join(cache, "registry")+" at 127.0.0.1:")
	require.NoFileExists(t, address)
}

func TestFailures(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := closed.Addr().String()
	require.NoError(t, closed.Close())

	dir := t.TempDir()
	embedded := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	away := t.TempDir()
	spec := fakepayload.Spec(fakepayload.Components(t, away)...)
	spec.Registry = address
	unreachable := fakepayload.Write(t, away, spec)
	stale := t.TempDir()
	staleBundle := fakepayload.Write(t, stale, fakepayload.Spec(fakepayload.Components(t, stale)...))
	require.NoError(t, os.WriteFile(filepath.Join(stale, "index.json"), []byte("{}"), 0o644))
	notADir := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(notADir, nil, 0o644))

	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no such command":       {[]string{"push"}, exitcode.BadInput, `unknown command "push"`},
		"no bundle":             {[]string{"publish"}, exitcode.BadInput, `required flag(s) "bundle" not set`},
		"unknown flag":          {[]string{"publish", "--force"}, exitcode.BadInput, "unknown flag: --force"},
		"an argument":           {[]string{"publish", "tdx"}, exitcode.BadInput, `unknown command "tdx"`},
		"odd output":            {[]string{"inspect", "--bundle=x", "--output=yaml"}, exitcode.BadInput, `give "text" or "json"`},
		"odd jobs":              {[]string{"publish", "--bundle=" + embedded, "--jobs=0"}, exitcode.BadInput, "must be greater than zero"},
		"release of a bringup":  {[]string{"publish", "--bundle=" + embedded, "--channel=release"}, exitcode.BadInput, "may not be published to channel release"},
		"unknown channel":       {[]string{"publish", "--bundle=" + embedded, "--channel=x"}, exitcode.BadInput, `channel "x" is unknown`},
		"registry out of reach": {[]string{"publish", "--bundle=" + unreachable}, exitcode.Unreachable, "is the registry up, and is its name right?"},
		"stale bundle":          {[]string{"publish", "--bundle=" + staleBundle}, exitcode.Unverified, "the receipt is for sha256:"},
		"absent bundle":         {[]string{"inspect", "--bundle=/absent/bundle.json"}, exitcode.LocalIO, "/absent/bundle.json"},
		"registry is a file":    {[]string{"publish", "--bundle=" + embedded, "--registry-dir=" + notADir}, exitcode.LocalIO, "not a directory"},
		"receipts is a file":    {[]string{"publish", "--bundle=" + embedded, "--receipts-dir=" + notADir}, exitcode.LocalIO, "the directory for the receipt"},
		"serving for others":    {[]string{"serve", "--address=0.0.0.0:5000"}, exitcode.BadInput, "loopback address only"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := home(t)
			code, stdout, stderr := payload(t, tc.args...)
			require.Equal(t, tc.code, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tc.want)
			require.Equal(t, 1, strings.Count(stderr, "error: "), "one clear error")
			require.NoFileExists(t, filepath.Join(cache, "receipts", "tdx.json"))
		})
	}
}

func TestTwoPublishersWaitForEachOther(t *testing.T) {
	cache := home(t)
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	r, err := registry.Open(filepath.Join(cache, "registry"))
	require.NoError(t, err)
	waiting := &waiter{seen: make(chan struct{}), on: "waiting for another process"}
	done := make(chan int, 1)
	go func() {
		done <- command.Run(context.Background(), []string{"payload", "publish", "--bundle=" + path}, &bytes.Buffer{}, waiting)
	}()
	<-waiting.seen
	require.NoError(t, r.Close())
	require.Equal(t, 0, <-done)
}

// waiter tells when a text was written.
type waiter struct {
	seen chan struct{}
	on   string
}

func (w *waiter) Write(p []byte) (int, error) {
	if w.on != "" && strings.Contains(string(p), w.on) {
		w.on = ""
		close(w.seen)
	}
	return len(p), nil
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	// It shows what is in a payload whose layers are somewhere else.
	require.NoError(t, os.Remove(fakepayload.LayerPath(dir, "kernel")))
	code, stdout, stderr := payload(t, "inspect", "--bundle="+path, "--files")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `(?m)^COMPONENT +VERSION +SIZE +DIGEST +LICENSE$`, stdout)
	require.Regexp(t, `(?m)^kernel +6\.12 +.* +sha256:[0-9a-f]{64} +Apache-2\.0$`, stdout)
	require.Contains(t, stdout, "/opt/kata-artifacts/opt/kata/share/kata-containers/vmlinuz.container -> vmlinuz-6.12")
	require.NotContains(t, stdout, "uploaded")
}

func TestARulesArguments(t *testing.T) {
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	program := filepath.Join(t.TempDir(), "tdx.inspect")
	args, err := json.Marshal([]string{"inspect", "--bundle=" + path})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program+".args", args, 0o644))
	var out, errs bytes.Buffer
	require.Equal(t, 0, command.Run(context.Background(), []string{program, "--output=json"}, &out, &errs), errs.String())
	require.True(t, json.Valid(out.Bytes()))

	require.NoError(t, os.WriteFile(program+".args", []byte("inspect"), 0o644))
	require.Equal(t, exitcode.BadInput, command.Run(context.Background(), []string{program}, &out, &errs))
	require.Contains(t, errs.String(), program+".args: ")
}

func TestWhatTheBuildMade(t *testing.T) {
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	bin := filepath.Join(t.TempDir(), "execroot", "_main", "bazel-out", "k8-fastbuild", "bin")
	require.NoError(t, os.MkdirAll(bin, 0o755))
	status := filepath.Join(bin, "..", "..", "volatile-status.txt")
	require.NoError(t, os.WriteFile(status, []byte("BUILD_HOST x\nBUILD_TIMESTAMP 1735689600\n"), 0o644))
	before := time.Unix(1735689500, 0)
	require.NoError(t, os.Chtimes(fakepayload.LayerPath(dir, "kernel"), before, before))

	var out, errs bytes.Buffer
	code := command.Run(context.Background(), []string{filepath.Join(bin, "tdx.inspect"), "inspect", "--bundle=" + path}, &out, &errs)
	require.Equal(t, 0, code, errs.String())
	require.Regexp(t, `(?m)^COMPONENT +VERSION +SIZE +BUILD +DIGEST +LICENSE$`, out.String())
	require.Regexp(t, `(?m)^kernel +.* reused `, out.String())
	require.Regexp(t, `(?m)^kata-deploy +.* built `, out.String())
}
