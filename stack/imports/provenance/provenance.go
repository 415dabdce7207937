// Package provenance verifies statements of how an artefact was built: SLSA
// provenance (https://slsa.dev/spec/v1.0/provenance) in Sigstore bundles, as
// workflows of GitHub's attach them to images.
package provenance

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/kiln-build/kiln/stack/imports/importlock"
)

const (
	// issuer is who says that a workflow is the one that it says it is.
	issuer = "https://token.actions.githubusercontent.com"
	// predicateType is that of SLSA provenance, version 1.
	predicateType = "https://slsa.dev/provenance/v1"
)

// Verifier verifies statements with the keys of a trusted root.
type Verifier struct {
	// Root gives the keys. It is asked when there is a statement to verify, once:
	// to get Sigstore's own takes its servers.
	Root func() (root.TrustedMaterial, error)

	once     sync.Once
	material root.TrustedMaterial
	err      error
}

// FromFile gives the trusted root that is in a file, as Sigstore's
// trusted_root.json; Sigstore's own, by way of its TUF repository, if file is empty.
func FromFile(file string) func() (root.TrustedMaterial, error) {
	return func() (root.TrustedMaterial, error) {
		if file != "" {
			return root.NewTrustedRootFromPath(file)
		}
		return root.FetchTrustedRoot()
	}
}

// Verify checks that a bundle is a statement about what has the digest, that a
// workflow of the source's own made it, and that it was logged when it was made.
// See resolve.Verifier.
func (v *Verifier) Verify(_ context.Context, statement []byte, digest v1.Hash, source string) (*importlock.Provenance, error) {
	v.once.Do(func() { v.material, v.err = v.Root() })
	if v.err != nil {
		return nil, fmt.Errorf("getting the keys that statements are verified with (--trusted-root gives others): %w", v.err)
	}
	signed := &bundle.Bundle{}
	if err := signed.UnmarshalJSON(statement); err != nil {
		return nil, fmt.Errorf("reading the bundle: %w", err)
	}
	sum, err := hex.DecodeString(digest.Hex)
	if err != nil {
		return nil, fmt.Errorf("reading the digest %s: %w", digest, err)
	}
	verifier, err := verify.NewVerifier(v.material,
		verify.WithSignedCertificateTimestamps(1),
		verify.WithTransparencyLog(1),
		verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("preparing to verify: %w", err)
	}
	workflow, err := verify.NewSANMatcher("", "^"+regexp.QuoteMeta(source)+"/")
	if err != nil {
		return nil, fmt.Errorf("preparing to verify: %w", err)
	}
	by, err := verify.NewIssuerMatcher(issuer, "")
	if err != nil {
		return nil, fmt.Errorf("preparing to verify: %w", err)
	}
	identity, err := verify.NewCertificateIdentity(workflow, by, certificate.Extensions{SourceRepositoryURI: source})
	if err != nil {
		return nil, fmt.Errorf("preparing to verify: %w", err)
	}
	result, err := verifier.Verify(signed, verify.NewPolicy(
		verify.WithArtifactDigest(digest.Algorithm, sum),
		verify.WithCertificateIdentity(identity)))
	if err != nil {
		return nil, fmt.Errorf("verifying the bundle: %w", err)
	}
	if result.Statement == nil || result.Signature == nil || result.Signature.Certificate == nil {
		return nil, errors.New("the bundle is signed, but makes no statement")
	}
	if got := result.Statement.GetPredicateType(); got != predicateType {
		return nil, fmt.Errorf("the statement is of type %s, not %s", got, predicateType)
	}
	signer := result.Signature.Certificate
	return &importlock.Provenance{
		Source:   signer.SourceRepositoryURI,
		Commit:   signer.SourceRepositoryDigest,
		Workflow: signer.BuildSignerURI,
	}, nil
}
