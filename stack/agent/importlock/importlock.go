// Package importlock is the file that pins the upstream agent: where its image
// is, which of the image's layers holds the agent, and by which digests both
// are known.
package importlock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// SchemaVersion is the version of the document that this package writes.
const SchemaVersion = 1

// AgentPath is where upstream's artefact carries the agent.
const AgentPath = "usr/bin/kata-agent"

// Lock pins one agent. A lock without a digest is empty: no agent is pinned.
type Lock struct {
	SchemaVersion int    `json:"schemaVersion"`
	Registry      string `json:"registry"`
	Repository    string `json:"repository"`
	// Digest is the image manifest's.
	Digest string `json:"digest"`
	// Version is what the agent is called where it comes from.
	Version string `json:"version"`
	// License is an SPDX expression.
	License string `json:"license"`
	Layer   Layer  `json:"layer"`
	// Token says where an anonymous token is to be had, if the registry asks
	// for one.
	Token *Token `json:"token,omitempty"`
}

// Layer is the layer that holds the agent.
type Layer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Type is how the layer is packed: tar, tar.gz or tar.zst.
	Type string `json:"type"`
	// Path is where the agent is in it.
	Path string `json:"path"`
}

// Token is where a registry hands out anonymous tokens.
type Token struct {
	Realm   string `json:"realm"`
	Service string `json:"service"`
}

var (
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	typeRE   = regexp.MustCompile(`^tar(\.gz|\.zst)?$`)
)

// Empty says whether no agent is pinned.
func (l *Lock) Empty() bool { return l.Digest == "" }

// Validate reports what is wrong with a lock that is not empty.
func (l *Lock) Validate() error {
	var errs []error
	for _, field := range []struct {
		name, value string
		ok          bool
	}{
		{"registry", l.Registry, l.Registry != ""},
		{"repository", l.Repository, l.Repository != ""},
		{"digest", l.Digest, digestRE.MatchString(l.Digest)},
		{"license", l.License, l.License != ""},
		{"layer.digest", l.Layer.Digest, digestRE.MatchString(l.Layer.Digest)},
		{"layer.type", l.Layer.Type, typeRE.MatchString(l.Layer.Type)},
		{"layer.path", l.Layer.Path, l.Layer.Path != ""},
	} {
		if !field.ok {
			errs = append(errs, fmt.Errorf("%s is %q", field.name, field.value))
		}
	}
	return errors.Join(errs...)
}

// Read reads a lock, which may be empty.
func Read(file string) (*Lock, error) {
	fail := func(err error) (*Lock, error) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the agent's lock %s: %w", file, err))
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
	if l.SchemaVersion != SchemaVersion {
		return fail(fmt.Errorf("schema version %d, want %d", l.SchemaVersion, SchemaVersion))
	}
	if !l.Empty() {
		if err := l.Validate(); err != nil {
			return fail(err)
		}
	}
	return l, nil
}

// Write replaces the lock as a whole.
func Write(file string, l *Lock) error {
	if err := l.Validate(); err != nil {
		return fmt.Errorf("writing the agent's lock %s: %w", file, err)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the agent's lock %s: %w", file, err)
	}
	if err := atomicfile.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the agent's lock: %w", err))
	}
	return nil
}
