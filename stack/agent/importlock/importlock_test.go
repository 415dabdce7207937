package importlock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/importlock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func valid() *importlock.Lock {
	digest := "sha256:" + strings.Repeat("a", 64)
	return &importlock.Lock{
		SchemaVersion: importlock.SchemaVersion,
		Registry:      "registry.example",
		Repository:    "kata/agent",
		Digest:        digest,
		Version:       "4.1.0",
		License:       "Apache-2.0",
		Layer:         importlock.Layer{Digest: digest, Size: 5, Type: "tar.zst", Path: importlock.AgentPath},
		Token:         &importlock.Token{Realm: "https://registry.example/token", Service: "registry.example"},
	}
}

func TestWriteThenRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "import.lock")
	require.NoError(t, importlock.Write(file, valid()))
	got, err := importlock.Read(file)
	require.NoError(t, err)
	require.Equal(t, valid(), got)
	require.False(t, got.Empty())
}

func TestReadEmpty(t *testing.T) {
	file := filepath.Join(t.TempDir(), "import.lock")
	require.NoError(t, os.WriteFile(file, []byte(`{"schemaVersion": 1}`), 0o600))
	got, err := importlock.Read(file)
	require.NoError(t, err)
	require.True(t, got.Empty())
}

func TestReadBadLocks(t *testing.T) {
	for _, test := range []struct {
		name, text, wantErr string
	}{
		{"not JSON", "{", "unexpected EOF"},
		{"unknown field", `{"schemaVersion": 1, "tag": "latest"}`, `unknown field "tag"`},
		{"another schema", `{"schemaVersion": 2}`, "schema version 2, want 1"},
		{"digest is none", `{"schemaVersion": 1, "digest": "latest"}`, `digest is "latest"`},
		{"fields are missing", `{"schemaVersion": 1, "digest": "sha256:` + strings.Repeat("a", 64) + `"}`, `registry is ""`},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "import.lock")
			require.NoError(t, os.WriteFile(file, []byte(test.text), 0o600))
			_, err := importlock.Read(file)
			require.ErrorContains(t, err, test.wantErr)
			require.ErrorContains(t, err, file)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestWriteRefusesABadLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "import.lock")
	l := valid()
	l.Layer.Type = "zip"
	require.ErrorContains(t, importlock.Write(file, l), `layer.type is "zip"`)
	require.NoFileExists(t, file)
}
