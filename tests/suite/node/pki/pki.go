// Package pki makes the keys and certificates of a throw-away cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// validity is longer than anybody keeps a node.
const validity = 365 * 24 * time.Hour

// Pair is a certificate and its key, both in PEM.
type Pair struct{ Certificate, Key []byte }

// Subject says whom a certificate is for.
type Subject struct {
	// Name and Groups are a user's, as Kubernetes reads them.
	Name   string
	Groups []string
	// Hosts and Addresses are a server's.
	Hosts     []string
	Addresses []net.IP
}

// Authority signs certificates.
type Authority struct {
	// Certificate is the authority's own, in PEM.
	Certificate []byte

	certificate *x509.Certificate
	key         crypto.Signer
	now         time.Time
}

// NewAuthority makes an authority, whose certificates count from a little before now.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a certificate authority: %w", err)
	}
	a := &Authority{key: key, now: now}
	template, err := a.template(Subject{Name: "kiln"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate authority: %w", err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.Certificate = encode("CERTIFICATE", der)
	return a, nil
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(s Subject) (Pair, error) {
	fail := func(err error) (Pair, error) {
		return Pair{}, fmt.Errorf("making a certificate for %s: %w", s.Name, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	template, err := a.template(s)
	if err != nil {
		return fail(err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames, template.IPAddresses = s.Hosts, s.Addresses
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fail(err)
	}
	text, err := encodeKey(key)
	if err != nil {
		return fail(err)
	}
	return Pair{Certificate: encode("CERTIFICATE", der), Key: text}, nil
}

func (a *Authority) template(s Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore:    a.now.Add(-time.Hour),
		NotAfter:     a.now.Add(validity),
	}, nil
}

// SigningKey makes a key pair that is in no certificate, in PEM.
func SigningKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	private, err = encodeKey(key)
	return private, encode("PUBLIC KEY", der), err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
