package testkey_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/bootimage/hostkey"
	"github.com/kiln-build/kiln/stack/bootimage/testkey"
)

// The document is an input of an action: it must be the same on every machine.
func TestDocumentIsAlwaysTheSame(t *testing.T) {
	document, err := testkey.Document()
	require.NoError(t, err)
	sum := sha256.Sum256(document)
	require.Equal(t, "ee37cee5f30668171175e58de19c18e7639fc98f265aed0f91a8dc2dc7b13cb5", hex.EncodeToString(sum[:]))

	parsed, err := hostkey.Parse("test.crt", document)
	require.NoError(t, err)
	require.True(t, testkey.Is(parsed.Key))
	require.NoError(t, parsed.Certificate.CheckSignature(parsed.Certificate.SignatureAlgorithm, parsed.Certificate.RawTBSCertificate, parsed.Certificate.Signature))
}

func TestOtherKeysAreNotIt(t *testing.T) {
	other, err := ecdh.P521().GenerateKey(rand.Reader)
	require.NoError(t, err)
	require.False(t, testkey.Is(other.PublicKey()))
}

func TestRandomFollowsFromAllInputs(t *testing.T) {
	read := func(inputs ...[]byte) string {
		b, err := io.ReadAll(io.LimitReader(testkey.Random(inputs...), 32))
		require.NoError(t, err)
		return string(b)
	}
	require.Equal(t, read([]byte("ab"), []byte("c")), read([]byte("ab"), []byte("c")))
	require.NotEqual(t, read([]byte("ab"), []byte("c")), read([]byte("a"), []byte("bc")))
	require.NotEqual(t, read([]byte("ab")), read([]byte("ab"), nil))
}
