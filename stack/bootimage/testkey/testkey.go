// Package testkey has a host key that everybody has: no machine's, but that of
// images which are only made to see that they can be made.
//
// It is derived from a text, so that it is no secret that lies about, and so that
// its document is the same on every machine. What is made for it is not
// confidential: tests open it.
package testkey

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"time"

	"github.com/kiln-build/kiln/stack/bootimage/seimage"
)

const seed = "Kiln's host key for tests, which is no secret"

// Key gives the private key.
func Key() (*ecdh.PrivateKey, error) {
	random := make([]byte, seimage.KeySeed)
	if _, err := io.ReadFull(Random([]byte(seed)), random); err != nil {
		return nil, err
	}
	return seimage.KeyFrom(random)
}

// Document gives the host key document: a certificate that the key signs itself,
// in PEM.
func Document() ([]byte, error) {
	key, err := Key()
	if err != nil {
		return nil, err
	}
	signer, err := ecdsa.ParseRawPrivateKey(elliptic.P521(), key.Bytes())
	if err != nil {
		return nil, err
	}
	name := pkix.Name{
		Organization: []string{"Kiln"},
		CommonName:   "Host key for tests: everybody has its private key",
	}
	certificate := &x509.Certificate{
		SerialNumber:       big.NewInt(1),
		Subject:            name,
		Issuer:             name,
		NotBefore:          time.Unix(0, 0).UTC(),
		NotAfter:           time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		SignatureAlgorithm: x509.ECDSAWithSHA512,
	}
	// Without randomness the signature is that of RFC 6979.
	der, err := x509.CreateCertificate(nil, certificate, certificate, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("making the document: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Is tells whether a public key is that of the test key.
func Is(key *ecdh.PublicKey) bool {
	mine, err := Key()
	return err == nil && mine.PublicKey().Equal(key)
}

// Random gives bytes that follow from what an image is made of. They take the
// place of random ones in an image for the test key, which is no secret anyway:
// the same inputs then make the same image, as with all other components.
func Random(inputs ...[]byte) io.Reader {
	sum := sha512.New512_256()
	for _, input := range inputs {
		fmt.Fprintf(sum, "%d\n", len(input))
		sum.Write(input)
	}
	return rand.NewChaCha8([32]byte(sum.Sum(nil)))
}
