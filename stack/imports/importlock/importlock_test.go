package importlock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

var digest = "sha256:" + strings.Repeat("a", 64)

func pin(component, arch string) importlock.Import {
	return importlock.Import{
		Component:  component,
		Arch:       arch,
		Registry:   "registry.example",
		Repository: "kata/" + component,
		Tag:        "4.1.0",
		Digest:     digest,
		Version:    "4.1.0",
		License:    "Apache-2.0",
		Layer:      importlock.Layer{Digest: digest, Size: 5, Type: "tar.zst"},
		Token:      &importlock.Token{Realm: "https://registry.example/token", Service: "registry.example"},
		Provenance: &importlock.Provenance{Source: "https://source.example/kata", Commit: "abc", Workflow: "https://source.example/kata/release"},
	}
}

func valid() *importlock.Lock {
	l := &importlock.Lock{SchemaVersion: importlock.SchemaVersion}
	l.Set(pin("nydus", "amd64"))
	l.Set(pin("agent", "s390x"))
	l.Set(pin("agent", "amd64"))
	return l
}

func TestWriteThenRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "imports.lock")
	require.NoError(t, importlock.Write(file, valid()))
	got, err := importlock.Read(file)
	require.NoError(t, err)
	require.Equal(t, valid(), got)
}

func TestSetSortsAndReplaces(t *testing.T) {
	l := valid()
	changed := pin("agent", "s390x")
	changed.Version = "4.2.0"
	l.Set(changed)
	var names []string
	for _, i := range l.Imports {
		names = append(names, i.Component+" "+i.Arch+" "+i.Version)
	}
	require.Equal(t, []string{"agent amd64 4.1.0", "agent s390x 4.2.0", "nydus amd64 4.1.0"}, names)
	require.Equal(t, &changed, l.Find("agent", "s390x"))
	require.Nil(t, l.Find("agent", "arm64"))
}

func TestReadEmpty(t *testing.T) {
	file := filepath.Join(t.TempDir(), "imports.lock")
	require.NoError(t, os.WriteFile(file, []byte(`{"schemaVersion": 2, "imports": []}`), 0o600))
	got, err := importlock.Read(file)
	require.NoError(t, err)
	require.Empty(t, got.Imports)
}

func TestReadBadLocks(t *testing.T) {
	for _, test := range []struct {
		name, text, wantErr string
	}{
		{"not JSON", "{", "unexpected EOF"},
		{"unknown field", `{"schemaVersion": 2, "tag": "latest"}`, `unknown field "tag"`},
		{"another schema", `{"schemaVersion": 1}`, "schema version 1, want 2"},
		{"digest is none", `{"schemaVersion": 2, "imports": [{"component": "agent", "arch": "amd64", "digest": "latest"}]}`, `import 0, agent for amd64: `},
		{"fields are missing", `{"schemaVersion": 2, "imports": [{"component": "agent", "digest": "` + digest + `"}]}`, `registry is ""`},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "imports.lock")
			require.NoError(t, os.WriteFile(file, []byte(test.text), 0o600))
			_, err := importlock.Read(file)
			require.ErrorContains(t, err, test.wantErr)
			require.ErrorContains(t, err, file)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestWriteRefusesABadLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "imports.lock")
	l := valid()
	l.Imports[1].Layer.Type = "zip"
	l.Imports = append(l.Imports, pin("nydus", "amd64"))
	err := importlock.Write(file, l)
	require.ErrorContains(t, err, `import 1, agent for s390x: layer.type is "zip"`)
	require.ErrorContains(t, err, "import 3, nydus for amd64, is there twice")
	require.NoFileExists(t, file)
}
