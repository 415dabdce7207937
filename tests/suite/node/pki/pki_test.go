package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/node/pki"
)

func TestIssue(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	authority, err := pki.NewAuthority(now)
	require.NoError(t, err)
	pair, err := authority.Issue(pki.Subject{
		Name:      "system:node:node1",
		Groups:    []string{"system:nodes"},
		Hosts:     []string{"node1"},
		Addresses: []net.IP{net.IPv4(192, 0, 2, 1)},
	})
	require.NoError(t, err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	require.NoError(t, err, "key and certificate must belong together")
	require.Equal(t, []string{"system:nodes"}, certificate.Leaf.Subject.Organization)
	require.Equal(t, "system:node:node1", certificate.Leaf.Subject.CommonName)

	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(authority.Certificate))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, host := range []string{"node1", "192.0.2.1"} {
			_, err = certificate.Leaf.Verify(x509.VerifyOptions{
				DNSName: host, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now,
			})
			require.NoError(t, err)
		}
	}
	_, err = certificate.Leaf.Verify(x509.VerifyOptions{DNSName: "node2", Roots: roots, CurrentTime: now})
	require.Error(t, err)

	other, err := pki.NewAuthority(now)
	require.NoError(t, err)
	roots = x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(other.Certificate))
	_, err = certificate.Leaf.Verify(x509.VerifyOptions{DNSName: "node1", Roots: roots, CurrentTime: now})
	require.Error(t, err, "another cluster must not take it")
}
