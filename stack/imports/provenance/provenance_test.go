package provenance_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/data"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/stack/imports/provenance"
)

// A statement that a workflow of GitHub's really made, in 2023, and the keys of
// Sigstore as they are public: both come with Sigstore's library. What it is about
// is no image, and goes by SHA-512.
const (
	statement = "sigstore.js@2.0.0-provenance.sigstore.json"
	keys      = "public-good.json"
	source    = "https://github.com/sigstore/sigstore-js"
)

var digest = v1.Hash{
	Algorithm: "sha512",
	Hex:       "46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c",
}

func verifier(t *testing.T) *provenance.Verifier {
	return &provenance.Verifier{Root: func() (root.TrustedMaterial, error) { return data.TrustedRoot(t, keys), nil }}
}

func bundle(t *testing.T) []byte {
	t.Helper()
	b, err := data.Bundle(t, statement).MarshalJSON()
	require.NoError(t, err)
	return b
}

func TestVerify(t *testing.T) {
	got, err := verifier(t).Verify(t.Context(), bundle(t), digest, source)
	require.NoError(t, err)
	require.Equal(t, &importlock.Provenance{
		Source:   source,
		Commit:   "f0b49a04e5a62250e0f60fb128004a73110fe311",
		Workflow: "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main",
	}, got)
}

// changedStatement gives the bundle with another statement in it.
func changedStatement(t *testing.T, old, replacement string) string {
	t.Helper()
	var document map[string]any
	require.NoError(t, json.Unmarshal(bundle(t), &document))
	envelope := document["dsseEnvelope"].(map[string]any)
	payload, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
	require.NoError(t, err)
	require.Contains(t, string(payload), old)
	envelope["payload"] = base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(string(payload), old, replacement)))
	changed, err := json.Marshal(document)
	require.NoError(t, err)
	return string(changed)
}

func TestVerifyRefuses(t *testing.T) {
	other := digest
	other.Hex = strings.Replace(other.Hex, "4", "5", 1)
	changed := changedStatement(t, "refs/heads/main", "refs/heads/evil")
	for _, test := range []struct {
		name, bundle, source, wantErr string
		digest                        v1.Hash
	}{
		{"what is about something else", string(bundle(t)), source, "provided artifact digest does not match", other},
		{"another source", string(bundle(t)), "https://github.com/sigstore/sigstore", "no matching CertificateIdentity", digest},
		{"a source that begins alike", string(bundle(t)), source + "-fork", "no matching CertificateIdentity", digest},
		{"a changed statement", changed, source, "verifying the bundle", digest},
		{"no bundle", "{}", source, "reading the bundle", digest},
		{"no JSON", "nonsense", source, "reading the bundle", digest},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := verifier(t).Verify(t.Context(), []byte(test.bundle), test.digest, test.source)
			require.ErrorContains(t, err, test.wantErr)
		})
	}
}

func TestVerifyWithOtherKeys(t *testing.T) {
	v := &provenance.Verifier{Root: func() (root.TrustedMaterial, error) { return data.TrustedRoot(t, "scaffolding.json"), nil }}
	_, err := v.Verify(t.Context(), bundle(t), digest, source)
	require.ErrorContains(t, err, "verifying the bundle")
}

func TestRootIsAskedOnce(t *testing.T) {
	asked := 0
	v := &provenance.Verifier{Root: func() (root.TrustedMaterial, error) {
		asked++
		return nil, errors.New("no way out")
	}}
	for range 2 {
		_, err := v.Verify(t.Context(), bundle(t), digest, source)
		require.ErrorContains(t, err, "--trusted-root gives others): no way out")
	}
	require.Equal(t, 1, asked)
}

func TestFromFile(t *testing.T) {
	document, err := data.TrustedRoot(t, keys).MarshalJSON()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "trusted_root.json")
	require.NoError(t, os.WriteFile(file, document, 0o600))
	_, err = (&provenance.Verifier{Root: provenance.FromFile(file)}).Verify(t.Context(), bundle(t), digest, source)
	require.NoError(t, err)
}
