// Package metadata is what a component says about itself: the JSON document
// that stands beside its layer. Payloads and tests read it instead of the
// layer, so that building a payload moves no layer bytes.
package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// MediaType is the media type of every component's layer.
const MediaType = "application/vnd.oci.image.layer.v1.tar+zstd"

// The types of a File.
const (
	TypeFile    = "file"
	TypeSymlink = "symlink"
	TypeDir     = "dir"
)

// Component describes one component: who it is, the layer it became, every
// path in that layer, and what it was made from.
type Component struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	License string   `json:"license"`
	Arch    string   `json:"arch"`
	Layer   Layer    `json:"layer"`
	Files   []File   `json:"files"`
	Sources []Source `json:"sources"`
}

// Layer identifies a component's layer the way an image manifest does.
type Layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	// DiffID is the digest of the uncompressed tar.
	DiffID string `json:"diffID"`
}

// File is one path of the layer, without a leading slash. Size and SHA256
// are of a file's content, Target is a symlink's.
type File struct {
	Path   string `json:"path"`
	Type   string `json:"type"`
	Mode   string `json:"mode"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Target string `json:"target,omitempty"`
}

// Source is one input that an SBOM names.
type Source struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	License string `json:"license,omitempty"`
	PURL    string `json:"purl,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}

var (
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	sha256RE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameRE   = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	modeRE   = regexp.MustCompile(`^0[0-7]{3}$`)
)

// Validate reports every way in which c is not a proper description.
func (c *Component) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !nameRE.MatchString(c.Name) {
		bad("name %q is not a component name (lower case letters, digits, '.', '_', '-')", c.Name)
	}
	if c.Version == "" {
		bad("version is empty")
	}
	if c.License == "" {
		bad("license is empty: give an SPDX expression")
	}
	if c.Arch == "" {
		bad("arch is empty")
	}
	if c.Layer.MediaType != MediaType {
		bad("layer.mediaType is %q, want %q", c.Layer.MediaType, MediaType)
	}
	if !digestRE.MatchString(c.Layer.Digest) {
		bad("layer.digest %q is not a sha256 digest", c.Layer.Digest)
	}
	if !digestRE.MatchString(c.Layer.DiffID) {
		bad("layer.diffID %q is not a sha256 digest", c.Layer.DiffID)
	}
	if c.Layer.Size <= 0 {
		bad("layer.size is %d", c.Layer.Size)
	}
	last := ""
	for _, f := range c.Files {
		if f.Path == "" || f.Path == "." || path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || strings.HasPrefix(f.Path, "../") || f.Path == ".." {
			bad("file path %q is not a clean relative path", f.Path)
		}
		if f.Path <= last {
			bad("file %q is out of order or there twice", f.Path)
		}
		last = f.Path
		if !modeRE.MatchString(f.Mode) {
			bad("file %q: mode %q is not four octal digits without setuid, setgid and sticky", f.Path, f.Mode)
		}
		switch f.Type {
		case TypeFile:
			if !sha256RE.MatchString(f.SHA256) {
				bad("file %q: sha256 %q is not 64 hex digits", f.Path, f.SHA256)
			}
		case TypeSymlink:
			if f.Target == "" {
				bad("symlink %q has no target", f.Path)
			}
		case TypeDir:
		default:
			bad("file %q: unknown type %q", f.Path, f.Type)
		}
	}
	for i, s := range c.Sources {
		if err := s.Validate(); err != nil {
			bad("source %d: %w", i, err)
		}
	}
	return errors.Join(errs...)
}

// Validate reports what an SBOM could not do without.
func (s Source) Validate() error {
	if s.Name == "" {
		return errors.New("name is empty")
	}
	if s.Version == "" {
		return fmt.Errorf("%s: version is empty", s.Name)
	}
	if s.SHA256 != "" && !sha256RE.MatchString(s.SHA256) {
		return fmt.Errorf("%s: sha256 %q is not 64 hex digits", s.Name, s.SHA256)
	}
	return nil
}

// Write writes c as indented JSON with a fixed key order, so that equal
// components have equal bytes.
func Write(w io.Writer, c *Component) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("describing component %s: %w", c.Name, err)
	}
	// A null list and an empty one mean the same: write one of them only.
	out := *c
	if out.Files == nil {
		out.Files = []File{}
	}
	if out.Sources == nil {
		out.Sources = []Source{}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(&out); err != nil {
		return fmt.Errorf("encoding component %s: %w", c.Name, err)
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("writing component %s: %w", c.Name, err)
	}
	return nil
}

// Read reads and validates a component's description. Fields it does not
// know are an error: they would be lost silently.
func Read(r io.Reader) (*Component, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	c := new(Component)
	if err := dec.Decode(c); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("decoding component: %w", err))
	}
	if dec.More() {
		return nil, exitcode.With(exitcode.BadInput, errors.New("decoding component: something follows the JSON document"))
	}
	if err := c.Validate(); err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	return c, nil
}

// ReadFile reads the description at the path name.
func ReadFile(name string) (*Component, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening component description: %w", err))
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}
