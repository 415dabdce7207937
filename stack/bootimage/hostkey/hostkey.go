// Package hostkey reads and verifies host key documents: certificates of IBM for
// the public keys of machines.
package hostkey

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Document is a host key document.
type Document struct {
	// Name is the file's, for errors.
	Name        string
	Certificate *x509.Certificate
	Key         *ecdh.PublicKey
}

// Parse reads a document, in PEM or DER.
func Parse(name string, data []byte) (*Document, error) {
	certificates, _, err := decode(name, data)
	if err != nil {
		return nil, err
	}
	if len(certificates) != 1 {
		return nil, fmt.Errorf("host key document %s: it has %d certificates, where one is expected", name, len(certificates))
	}
	certificate := certificates[0]
	key, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("host key document %s: its key is of the kind %s, where those of machines are on the curve P-521", name, certificate.PublicKeyAlgorithm)
	}
	public, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("host key document %s: %w", name, err)
	}
	if public.Curve() != ecdh.P521() {
		return nil, fmt.Errorf("host key document %s: its key is on the curve %s, where those of machines are on P-521", name, key.Curve.Params().Name)
	}
	return &Document{Name: name, Certificate: certificate, Key: public}, nil
}

// decode reads certificates and revocation lists, in PEM or DER.
func decode(name string, data []byte) (certificates []*x509.Certificate, lists []*x509.RevocationList, err error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil, fmt.Errorf("%s is empty: it must be a certificate or a revocation list, in PEM or DER", name)
	}
	var blocks [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" || block.Type == "X509 CRL" {
			blocks = append(blocks, block.Bytes)
		}
	}
	if blocks == nil {
		blocks = [][]byte{data}
	}
	for _, der := range blocks {
		certificate, cerr := x509.ParseCertificate(der)
		if cerr == nil {
			certificates = append(certificates, certificate)
			continue
		}
		list, lerr := x509.ParseRevocationList(der)
		if lerr != nil {
			return nil, nil, fmt.Errorf("%s is neither a certificate nor a revocation list, in PEM or DER: %w", name, cerr)
		}
		lists = append(lists, list)
	}
	return certificates, lists, nil
}

// Chain is what documents are verified with: the certificate of the key that IBM
// signs documents with, those of the authorities above it, the root among them,
// and what each has revoked.
//
// IBM's key is not an authority by its certificate, so that a document is not the
// end of a chain that crypto/x509 would accept. The last step is made here, with
// what IBM says of it: the names, the signature, the time, and the list of
// revoked documents.
type Chain struct {
	roots, authorities []*x509.Certificate
	signing            *x509.Certificate
	lists              []*x509.RevocationList
}

// Add takes a file into the chain: certificates, revocation lists or both. One
// that is signed by itself is a root: whoever names the file trusts it.
func (c *Chain) Add(name string, data []byte) error {
	certificates, lists, err := decode(name, data)
	if err != nil {
		return err
	}
	c.lists = append(c.lists, lists...)
	for _, certificate := range certificates {
		switch {
		case isSigning(certificate.Subject):
			if c.signing != nil {
				return fmt.Errorf("%s: there is a key already that IBM signs documents with, and only one can be verified with", name)
			}
			c.signing = certificate
		case bytes.Equal(certificate.RawSubject, certificate.RawIssuer):
			c.roots = append(c.roots, certificate)
		default:
			c.authorities = append(c.authorities, certificate)
		}
	}
	return nil
}

const (
	ibm     = "International Business Machines Corporation"
	service = "Key Signing Service"
	// IBM moved, and the certificates of one key name both places.
	locality, former = "Poughkeepsie", "Armonk"
)

// isSigning tells whether a name is that of the key that IBM signs documents with.
func isSigning(name pkix.Name) bool {
	one := func(values []string, want ...string) bool {
		return len(values) == 1 && slices.Contains(want, values[0])
	}
	return name.CommonName == ibm && one(name.Organization, ibm) && one(name.Country, "US") &&
		one(name.Province, "New York") && one(name.Locality, locality, former) &&
		len(name.OrganizationalUnit) == 1 && strings.HasSuffix(name.OrganizationalUnit[0], service)
}

// sameName compares two names without regard to the order of their parts, which
// differs between IBM's certificates and its lists.
func sameName(a, b pkix.Name) bool {
	parts := func(name pkix.Name) []string {
		var out []string
		for _, part := range name.Names {
			value := fmt.Sprint(part.Value)
			if value == former {
				value = locality
			}
			out = append(out, part.Type.String()+"="+value)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(parts(a), parts(b))
}

// Verify tells whether a document is IBM's at a time.
func (c *Chain) Verify(d *Document, now time.Time) error {
	if err := c.verify(d.Certificate, now); err != nil {
		return fmt.Errorf("host key document %s: %w", d.Name, err)
	}
	return nil
}

func (c *Chain) verify(document *x509.Certificate, now time.Time) error {
	if err := c.verifySigning(now); err != nil {
		return err
	}
	switch {
	case !sameName(document.Issuer, c.signing.Subject):
		return fmt.Errorf("it is issued by %q, not by %q", document.Issuer, c.signing.Subject)
	case !sameKey(document.AuthorityKeyId, c.signing.SubjectKeyId):
		return errors.New("it is issued with another key than that of the certificate of IBM's")
	case now.Before(document.NotBefore) || now.After(document.NotAfter):
		return fmt.Errorf("it is valid from %s to %s only", day(document.NotBefore), day(document.NotAfter))
	}
	if err := c.signing.CheckSignature(document.SignatureAlgorithm, document.RawTBSCertificate, document.Signature); err != nil {
		return fmt.Errorf("its signature is not that of IBM's key: %w", err)
	}
	return c.notRevoked("the document", document, c.signing, now)
}

// verifySigning verifies IBM's key.
func (c *Chain) verifySigning(now time.Time) error {
	switch {
	case c.signing == nil:
		return fmt.Errorf("no certificate is that of the key which IBM signs documents with (%s, ... %s)", ibm, service)
	case len(c.roots) == 0:
		return errors.New("no certificate is that of a root authority, which is signed by itself")
	}
	options := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, root := range c.roots {
		options.Roots.AddCert(root)
	}
	for _, authority := range c.authorities {
		options.Intermediates.AddCert(authority)
	}
	chains, err := c.signing.Verify(options)
	if err != nil {
		return fmt.Errorf("the certificate of IBM's key: %w", err)
	}
	// Of several ways to a root, one without what is revoked is enough.
	var errs []error
	for _, chain := range chains {
		err := error(nil)
		for i := range chain[:len(chain)-1] {
			err = errors.Join(err, c.notRevoked(fmt.Sprintf("the certificate of %q", chain[i].Subject), chain[i], chain[i+1], now))
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// notRevoked wants a list of the issuer that is in force and does not name the
// certificate. Without one nothing is known, and an action cannot ask for it.
func (c *Chain) notRevoked(what string, certificate, issuer *x509.Certificate, now time.Time) error {
	found := false
	for _, list := range c.lists {
		if !sameName(list.Issuer, issuer.Subject) || !sameKey(list.AuthorityKeyId, issuer.SubjectKeyId) ||
			now.Before(list.ThisUpdate) || now.After(list.NextUpdate) ||
			issuer.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature) != nil {
			continue
		}
		found = true
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return fmt.Errorf("%s was revoked on %s", what, day(entry.RevocationTime))
			}
		}
	}
	if !found {
		return fmt.Errorf("no revocation list of %q that is in force on %s tells whether %s is revoked", issuer.Subject, day(now), what)
	}
	return nil
}

// sameKey compares identifiers of keys, where both are known.
func sameKey(a, b []byte) bool { return len(a) == 0 || len(b) == 0 || bytes.Equal(a, b) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
