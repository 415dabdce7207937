package command_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/stack/imports/update/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const table = `[
  {"component": "nydus", "arch": "amd64", "repository": "kata/nydus", "tag": "1-x86_64", "path": "libexec/nydusd", "license": "MIT", "source": "https://source.example/kata"},
  {"component": "nydus", "arch": "arm64", "repository": "kata/nydus", "tag": "1-aarch64", "path": "libexec/nydusd", "license": "MIT", "source": "https://source.example/kata"},
  {"component": "guest", "arch": "amd64", "repository": "coco/guest", "tag": "", "path": "bin/cdh", "license": "MIT", "source": "https://source.example/coco"}
]`

func serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// push makes an artefact with one archive, which has one file.
func push(t *testing.T, reference, path, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "./" + path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}))
	_, err := io.WriteString(w, content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(b.Bytes(), "application/vnd.oci.image.layer.v1.tar"))
	require.NoError(t, err)
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	digest, err := img.Digest()
	require.NoError(t, err)
	return digest.String()
}

type workspace struct{ lock, table string }

func newWorkspace(t *testing.T) workspace {
	t.Helper()
	dir := t.TempDir()
	w := workspace{lock: filepath.Join(dir, "imports.lock"), table: filepath.Join(dir, "table.json")}
	require.NoError(t, os.WriteFile(w.lock, []byte(`{"schemaVersion": 2, "imports": []}`), 0o600))
	require.NoError(t, os.WriteFile(w.table, []byte(table), 0o600))
	return w
}

func (w workspace) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command.New(command.Environment{})
	cmd.SetArgs(append([]string{"--lock=" + w.lock, "--table=" + w.table}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func (w workspace) pins(t *testing.T) map[string]string {
	t.Helper()
	lock, err := importlock.Read(w.lock)
	require.NoError(t, err)
	pins := map[string]string{}
	for _, i := range lock.Imports {
		pins[i.Component+" "+i.Arch] = i.Digest
	}
	return pins
}

func TestUpdate(t *testing.T) {
	w, host := newWorkspace(t), serve(t)
	amd64 := push(t, host+"/kata/nydus:1-x86_64", "libexec/nydusd", "amd64")
	arm64 := push(t, host+"/kata/nydus:1-aarch64", "libexec/nydusd", "arm64")
	guest := push(t, host+"/coco/guest:abc", "bin/cdh", "cdh")

	out, err := w.run(t, "--registry="+host, "nydus")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"nydus amd64": amd64, "nydus arm64": arm64}, w.pins(t))
	require.Regexp(t, `(?m)^nydus +amd64 +pinned +none +`+host+`/kata/nydus@`+amd64+`$`, out)

	// Pinned again by the registry and the tag that it was pinned by; what upstream names
	// by commits is given a tag once.
	before, err := os.ReadFile(w.lock)
	require.NoError(t, err)
	out, err = w.run(t, "nydus")
	require.NoError(t, err)
	require.Contains(t, out, "unchanged")
	after, err := os.ReadFile(w.lock)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	_, err = w.run(t, "--registry="+host, "guest=abc")
	require.NoError(t, err)
	require.Equal(t, guest, w.pins(t)["guest amd64"])

	// Upstream moves a tag; only the update takes note.
	moved := push(t, host+"/kata/nydus:1-x86_64", "libexec/nydusd", "amd64, made again")
	out, err = w.run(t, "--arch=amd64", "--output=json")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"nydus amd64": moved, "nydus arm64": arm64, "guest amd64": guest}, w.pins(t))
	var printed struct {
		Imports []struct{ Component, Arch, Result string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &printed))
	require.Equal(t, []struct{ Component, Arch, Result string }{
		{"nydus", "amd64", "pinned"}, {"guest", "amd64", "unchanged"},
	}, printed.Imports)
}

func TestUpdatePinsWhatItCan(t *testing.T) {
	w, host := newWorkspace(t), serve(t)
	amd64 := push(t, host+"/kata/nydus:1-x86_64", "libexec/nydusd", "amd64")
	out, err := w.run(t, "--registry="+host)
	require.ErrorContains(t, err, "2 of 3 imports could not be resolved and stay as they were; the first is nydus for arm64: resolving "+host+"/kata/nydus:1-aarch64")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
	require.Equal(t, map[string]string{"nydus amd64": amd64}, w.pins(t))
	require.Contains(t, out, "upstream names it by commits alone: give guest=TAG")
}

func TestUpdateRefuses(t *testing.T) {
	w := newWorkspace(t)
	for _, test := range []struct {
		args    []string
		wantErr string
	}{
		{[]string{"nidus"}, `unknown import "nidus"; there are: guest, nydus`},
		{[]string{"--arch=x86_64"}, `unknown architecture "x86_64"; there are: amd64, arm64`},
		{[]string{"--arch=arm64", "guest"}, "guest: there is none for arm64"},
		{[]string{"nydus"}, "no registry is known: give --registry=HOST, or set KILN_IMPORTS_REGISTRY"},
		{[]string{"--output=yaml"}, "want text or json"},
		{[]string{"--table=/nowhere/table.json"}, "reading the table of imports"},
		{[]string{"--lock=/nowhere/imports.lock"}, "reading the lock of imports"},
		{[]string{"--nothing"}, "unknown flag"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			_, err := w.run(t, test.args...)
			require.ErrorContains(t, err, test.wantErr)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			require.Empty(t, w.pins(t))
		})
	}
}
