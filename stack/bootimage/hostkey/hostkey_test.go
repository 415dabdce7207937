package hostkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/bootimage/hostkey"
	"github.com/kiln-build/kiln/stack/bootimage/hostkey/hostkeytest"
)

func parse(t *testing.T, data []byte) *hostkey.Document {
	d, err := hostkey.Parse("HKD.crt", data)
	require.NoError(t, err)
	return d
}

func day(from time.Duration) string { return hostkeytest.Now.Add(from).Format(time.DateOnly) }

func verify(t *testing.T, document []byte, files map[string][]byte, now time.Time) error {
	var chain hostkey.Chain
	for _, name := range slices.Sorted(maps.Keys(files)) {
		require.NoError(t, chain.Add(name, files[name]))
	}
	return chain.Verify(parse(t, document), now)
}

func TestParse(t *testing.T) {
	document, key := hostkeytest.New(t).Signing.Document()
	for name, data := range map[string][]byte{"PEM": document.PEM(), "DER": document.Certificate.Raw} {
		require.True(t, parse(t, data).Key.Equal(key.PublicKey()), name)
	}
}

func TestWhatIsNoDocument(t *testing.T) {
	chain := hostkeytest.New(t)
	document, _ := chain.Signing.Document()
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := hostkeytest.Template(pkix.Name{CommonName: "x"}, false)
	template.SerialNumber = big.NewInt(1)
	onP256, err := x509.CreateCertificate(rand.Reader, template, template, small.Public(), small)
	require.NoError(t, err)
	ofRSA, err := x509.CreateCertificate(rand.Reader, template, template, other.Public(), other)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		data []byte
		err  string
	}{
		"empty":            {nil, "HKD.crt is empty: it must be a certificate"},
		"blank":            {[]byte("\n \n"), "HKD.crt is empty"},
		"text":             {[]byte("hello"), "HKD.crt is neither a certificate nor a revocation list"},
		"two certificates": {append(document.PEM(), document.PEM()...), "it has 2 certificates"},
		"a list":           {chain.Signing.Revoke(pkix.Name{}), "it has 0 certificates"},
		"a smaller curve":  {onP256, "its key is on the curve P-256"},
		"another kind":     {ofRSA, "its key is of the kind RSA"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hostkey.Parse("HKD.crt", tt.data)
			require.ErrorContains(t, err, tt.err)
		})
	}
}

func TestVerify(t *testing.T) {
	chain := hostkeytest.New(t)
	document, _ := chain.Signing.Document()
	require.NoError(t, verify(t, document.PEM(), chain.Files(), hostkeytest.Now))

	// IBM's list names the place that IBM moved from.
	files := chain.Files()
	files["signing.crl"] = chain.Signing.Revoke(hostkeytest.SigningName("Armonk"))
	require.NoError(t, verify(t, document.PEM(), files, hostkeytest.Now))
}

func TestVerifyRefuses(t *testing.T) {
	chain, foreign := hostkeytest.New(t), hostkeytest.New(t)
	document, _ := chain.Signing.Document()
	for name, tt := range map[string]struct {
		document []byte
		change   func(map[string][]byte)
		now      time.Time
		err      string
	}{
		"without IBM's key": {
			change: func(f map[string][]byte) { delete(f, "signing.crt") },
			err:    "no certificate is that of the key which IBM signs documents with",
		},
		"without a root": {
			change: func(f map[string][]byte) { delete(f, "root.crt") },
			err:    "no certificate is that of a root authority",
		},
		"another root": {
			change: func(f map[string][]byte) { f["root.crt"] = foreign.Root.PEM() },
			err:    "the certificate of IBM's key",
		},
		"another key of IBM's": {
			change: func(f map[string][]byte) {
				f["signing.crt"], f["signing.crl"] = foreign.Signing.PEM(), foreign.Signing.Revoke(pkix.Name{})
				f["authority.crt"], f["authority.crl"] = foreign.Authority.PEM(), foreign.Authority.Revoke(pkix.Name{})
				f["root.crt"], f["root.crl"] = foreign.Root.PEM(), foreign.Root.Revoke(pkix.Name{})
			},
			err: "its signature is not that of IBM's key",
		},
		"a document of somebody else": {
			document: chain.Authority.Issue(hostkeytest.Template(pkix.Name{CommonName: "x"}, false)).PEM(),
			err:      "it is issued by",
		},
		"an old document": {
			now: hostkeytest.Now.AddDate(1, 0, 0),
			err: "expired",
		},
		"no list of documents": {
			change: func(f map[string][]byte) { delete(f, "signing.crl") },
			err:    "tells whether the document is revoked",
		},
		"no list of the authority": {
			change: func(f map[string][]byte) { delete(f, "authority.crl") },
			err:    "no revocation list",
		},
		"a list that another key signed": {
			change: func(f map[string][]byte) { f["signing.crl"] = foreign.Signing.Revoke(pkix.Name{}) },
			err:    "tells whether the document is revoked",
		},
		"a revoked document": {
			change: func(f map[string][]byte) {
				f["signing.crl"] = chain.Signing.Revoke(pkix.Name{}, document.Certificate)
			},
			err: "the document was revoked on " + day(-time.Hour),
		},
		"a revoked key of IBM's": {
			change: func(f map[string][]byte) {
				f["authority.crl"] = chain.Authority.Revoke(pkix.Name{}, chain.Signing.Certificate)
			},
			err: "was revoked on " + day(-time.Hour),
		},
		"a revoked authority": {
			change: func(f map[string][]byte) {
				f["root.crl"] = chain.Root.Revoke(pkix.Name{}, chain.Authority.Certificate)
			},
			err: "was revoked on " + day(-time.Hour),
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, data, now := chain.Files(), tt.document, tt.now
			if tt.change != nil {
				tt.change(files)
			}
			if data == nil {
				data = document.PEM()
			}
			if now.IsZero() {
				now = hostkeytest.Now
			}
			err := verify(t, data, files, now)
			require.ErrorContains(t, err, tt.err)
			require.ErrorContains(t, err, "host key document HKD.crt")
		})
	}
}

// A document may run out before the certificate that vouches for it does.
func TestVerifyRefusesADocumentThatRanOut(t *testing.T) {
	chain := hostkeytest.New(t)
	template := hostkeytest.Template(pkix.Name{CommonName: "x"}, false)
	template.NotAfter = hostkeytest.Now.Add(-time.Hour)
	err := verify(t, chain.Signing.Issue(template).PEM(), chain.Files(), hostkeytest.Now)
	require.ErrorContains(t, err, "it is valid from "+day(-30*24*time.Hour)+" to "+day(-time.Hour)+" only")
}

func TestOneKeyOfIBMs(t *testing.T) {
	var chain hostkey.Chain
	require.NoError(t, chain.Add("a.crt", hostkeytest.New(t).Signing.PEM()))
	require.ErrorContains(t, chain.Add("b.crt", hostkeytest.New(t).Signing.PEM()), "b.crt: there is a key already")
	require.ErrorContains(t, chain.Add("c.crt", nil), "c.crt is empty")
}
