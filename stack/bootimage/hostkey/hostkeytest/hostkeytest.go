// Package hostkeytest makes what IBM and its authorities issue: host key
// documents, the certificates above them, and lists of what was revoked.
package hostkeytest

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Now is when all that is issued is in force, for a month before and after.
var Now = time.Now().UTC().Truncate(time.Second)

const month = 30 * 24 * time.Hour

// Issuer has a key and a certificate for it.
type Issuer struct {
	t           testing.TB
	key         crypto.Signer
	Certificate *x509.Certificate
	serial      int64
}

// Chain is a root, an authority, and the key that IBM signs documents with.
type Chain struct {
	Root, Authority, Signing *Issuer
}

// New makes a chain.
func New(t testing.TB) *Chain {
	root := issue(t, nil, Template(pkix.Name{CommonName: "Root"}, true))
	authority := root.Issue(Template(pkix.Name{CommonName: "Authority"}, true))
	return &Chain{Root: root, Authority: authority, Signing: authority.Issue(Template(SigningName("Poughkeepsie"), false))}
}

// SigningName is the name of the key that IBM signs documents with.
func SigningName(locality string) pkix.Name {
	const ibm = "International Business Machines Corporation"
	return pkix.Name{
		Country:            []string{"US"},
		Province:           []string{"New York"},
		Locality:           []string{locality},
		Organization:       []string{ibm},
		OrganizationalUnit: []string{"IBM Z Host Key Signing Service"},
		CommonName:         ibm,
	}
}

// Template is that of a certificate, to be changed before it is issued.
func Template(name pkix.Name, authority bool) *x509.Certificate {
	return &x509.Certificate{
		Subject:               name,
		NotBefore:             Now.Add(-month),
		NotAfter:              Now.Add(month),
		BasicConstraintsValid: authority,
		IsCA:                  authority,
	}
}

func issue(t testing.TB, by *Issuer, template *x509.Certificate) *Issuer {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	out := &Issuer{t: t, key: key}
	if by == nil {
		by = out
	}
	by.serial++
	template.SerialNumber = big.NewInt(by.serial)
	parent := by.Certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by.key)
	require.NoError(t, err)
	out.Certificate, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return out
}

// Issue issues a certificate for a new key.
func (i *Issuer) Issue(template *x509.Certificate) *Issuer { return issue(i.t, i, template) }

// Document issues a host key document, and gives the machine's private key.
func (i *Issuer) Document() (*Issuer, *ecdh.PrivateKey) {
	document := i.Issue(Template(pkix.Name{CommonName: "8561-02-0001234"}, false))
	private, err := document.key.(*ecdsa.PrivateKey).ECDH()
	require.NoError(i.t, err)
	return document, private
}

// PEM gives the certificate as a file.
func (i *Issuer) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate.Raw})
}

// Revoke gives a list as a file that has revoked the certificates, under
// another name than its own, if one is given.
func (i *Issuer) Revoke(name pkix.Name, certificates ...*x509.Certificate) []byte {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: Now.Add(-month), NextUpdate: Now.Add(month)}
	for _, c := range certificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: Now.Add(-time.Hour)})
	}
	// IBM's key is none that may sign lists by its certificate, but does.
	signer := *i.Certificate
	signer.KeyUsage |= x509.KeyUsageCRLSign
	if len(signer.SubjectKeyId) == 0 {
		signer.SubjectKeyId = []byte("a key")
	}
	if name.CommonName != "" {
		signer.RawSubject, signer.Subject = nil, name
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, &signer, i.key)
	require.NoError(i.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Files gives all certificates of the chain, and lists in which nothing is revoked.
func (c *Chain) Files() map[string][]byte {
	return map[string][]byte{
		"root.crt":      c.Root.PEM(),
		"authority.crt": c.Authority.PEM(),
		"signing.crt":   c.Signing.PEM(),
		"root.crl":      c.Root.Revoke(pkix.Name{}),
		"authority.crl": c.Authority.Revoke(pkix.Name{}),
		"signing.crl":   c.Signing.Revoke(pkix.Name{}),
	}
}
