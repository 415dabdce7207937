// Package remotecache connects to a remote cache as Bazel does.
package remotecache

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Options say how to connect. Their names are those of Bazel's options.
type Options struct {
	// Endpoint is grpc://HOST:PORT, or grpcs://HOST:PORT for TLS.
	Endpoint string
	// Instance is the name of the instance, often empty.
	Instance string
	// Headers are sent with each call, NAME=VALUE each.
	Headers []string
	// CertificateAuthority is a PEM file to trust instead of the machine's.
	CertificateAuthority string
	// Certificate and Key are PEM files for mutual TLS.
	Certificate, Key string
}

// Dial connects, and makes sure that a cache answers.
func Dial(ctx context.Context, o Options) (*client.Client, error) {
	params, err := o.params()
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	// No retries: whoever asks wants to know that the cache is away.
	c, err := client.NewClient(ctx, o.Instance, params, client.StartupCapabilities(true))
	if err != nil {
		return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("connecting to the cache %s: %w", o.Endpoint, err))
	}
	return c, nil
}

func (o Options) params() (client.DialParams, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Path != "" {
		return client.DialParams{}, fmt.Errorf("%q is not where a cache is: give grpc://HOST:PORT or grpcs://HOST:PORT", o.Endpoint)
	}
	params := client.DialParams{
		Service:           u.Host,
		TLSCACertFile:     o.CertificateAuthority,
		TLSClientAuthCert: o.Certificate,
		TLSClientAuthKey:  o.Key,
		RemoteHeaders:     map[string][]string{},
	}
	switch u.Scheme {
	case "grpc":
		params.NoSecurity = true
		if o.CertificateAuthority != "" || o.Certificate != "" {
			return params, fmt.Errorf("%s is without TLS, so it takes no certificate: give grpcs://", o.Endpoint)
		}
	case "grpcs":
		params.NoAuth = true
		if u.Port() == "" {
			params.Service += ":443"
		}
	default:
		return params, fmt.Errorf("%s: %s is not supported: give grpc:// or grpcs://", o.Endpoint, u.Scheme)
	}
	for _, header := range o.Headers {
		// A job without a secret passes an empty one.
		if header == "" {
			continue
		}
		name, value, ok := strings.Cut(header, "=")
		if !ok || name == "" {
			// The value may be a secret.
			return params, fmt.Errorf("a header is not of the form NAME=VALUE")
		}
		params.RemoteHeaders[name] = append(params.RemoteHeaders[name], value)
	}
	return params, nil
}
