// Package importlock is the file that pins what is imported: where each artefact
// of upstream's is, which of its layers is the archive, and by which digests both
// are known.
package importlock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// SchemaVersion is the version of the document that this package writes.
const SchemaVersion = 2

// Lock pins imports. What it does not have is not pinned.
type Lock struct {
	SchemaVersion int `json:"schemaVersion"`
	// Imports are sorted by component and architecture.
	Imports []Import `json:"imports"`
}

// Import pins one component for one architecture.
type Import struct {
	Component string `json:"component"`
	// Arch is Go's name of the architecture.
	Arch       string `json:"arch"`
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	// Tag is what the digest was resolved from.
	Tag string `json:"tag"`
	// Digest is the image manifest's, of the form sha256:<64 hex digits>.
	Digest string `json:"digest"`
	// Version is what the component is called where it comes from.
	Version string `json:"version"`
	// License is an SPDX expression.
	License string `json:"license"`
	Layer   Layer  `json:"layer"`
	// Token says where an anonymous token is to be had, if the registry asks
	// for one.
	Token *Token `json:"token,omitempty"`
	// Provenance is what was verified when the digest was pinned; nil where the
	// registry has none.
	Provenance *Provenance `json:"provenance,omitempty"`
}

// Layer is the layer that is the archive.
type Layer struct {
	Digest string `json:"digest"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Type is how the archive is packed: tar, tar.gz or tar.zst.
	Type string `json:"type"`
}

// Token is where a registry hands out anonymous tokens.
type Token struct {
	Realm   string `json:"realm"`
	Service string `json:"service"`
}

// Provenance is a verified statement of who built an artefact, from what.
type Provenance struct {
	// Source is the URI of the repository that it was built from.
	Source string `json:"source"`
	// Commit is the revision of the source.
	Commit string `json:"commit"`
	// Workflow is the URI of the workflow that built it.
	Workflow string `json:"workflow"`
}

var (
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	typeRE   = regexp.MustCompile(`^tar(\.gz|\.zst)?$`)
)

// Validate reports what is wrong with a pin.
func (i *Import) Validate() error {
	var errs []error
	for _, field := range []struct {
		name, value string
		ok          bool
	}{
		{"component", i.Component, i.Component != ""},
		{"arch", i.Arch, i.Arch != ""},
		{"registry", i.Registry, i.Registry != ""},
		{"repository", i.Repository, i.Repository != ""},
		{"digest", i.Digest, digestRE.MatchString(i.Digest)},
		{"version", i.Version, i.Version != ""},
		{"license", i.License, i.License != ""},
		{"layer.digest", i.Layer.Digest, digestRE.MatchString(i.Layer.Digest)},
		{"layer.type", i.Layer.Type, typeRE.MatchString(i.Layer.Type)},
	} {
		if !field.ok {
			errs = append(errs, fmt.Errorf("%s is %q", field.name, field.value))
		}
	}
	return errors.Join(errs...)
}

// Find gives the pin of a component for an architecture, nil if there is none.
func (l *Lock) Find(component, arch string) *Import {
	at := slices.IndexFunc(l.Imports, func(i Import) bool { return i.Component == component && i.Arch == arch })
	if at < 0 {
		return nil
	}
	return &l.Imports[at]
}

// Set pins an import, in place of what it was pinned to.
func (l *Lock) Set(i Import) {
	if old := l.Find(i.Component, i.Arch); old != nil {
		*old = i
		return
	}
	l.Imports = append(l.Imports, i)
	slices.SortFunc(l.Imports, func(a, b Import) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Arch, b.Arch))
	})
}

// Validate reports what is wrong with a lock.
func (l *Lock) Validate() error {
	var errs []error
	if l.SchemaVersion != SchemaVersion {
		errs = append(errs, fmt.Errorf("schema version %d, want %d", l.SchemaVersion, SchemaVersion))
	}
	for n, i := range l.Imports {
		if err := i.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("import %d, %s for %s: %w", n, i.Component, i.Arch, err))
		}
		if l.Find(i.Component, i.Arch) != &l.Imports[n] {
			errs = append(errs, fmt.Errorf("import %d, %s for %s, is there twice", n, i.Component, i.Arch))
		}
	}
	return errors.Join(errs...)
}

// Read reads a lock.
func Read(file string) (*Lock, error) {
	fail := func(err error) (*Lock, error) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the lock of imports %s: %w", file, err))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	l := &Lock{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(l); err != nil {
		return fail(err)
	}
	if err := l.Validate(); err != nil {
		return fail(err)
	}
	return l, nil
}

// Write replaces the lock as a whole.
func Write(file string, l *Lock) error {
	if err := l.Validate(); err != nil {
		return fmt.Errorf("writing the lock of imports %s: %w", file, err)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the lock of imports %s: %w", file, err)
	}
	if err := atomicfile.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the lock of imports: %w", err))
	}
	return nil
}
