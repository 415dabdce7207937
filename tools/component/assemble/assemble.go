// Package assemble turns the files of a component into its layer and the
// metadata beside it.
package assemble

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

// Where a component's files live: below InstallDir on a node, and in the layer
// below ArtifactsDir, whose content the installer copies to the node's root.
const (
	InstallDir   = "/opt/kata"
	ArtifactsDir = "opt/kata-artifacts"
)

// Component is what is known of a component before its layer is made, and
// where the results go.
type Component struct {
	Name    string
	Version string
	License string
	Arch    string
	Sources []metadata.Source

	LayerPath    string
	MetadataPath string
}

// Write packs entries into c's layer and describes it. Either both files
// appear or, on an error, neither.
func Write(ctx context.Context, c Component, entries []layer.Entry) error {
	if len(entries) == 0 {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("component %s has no files", c.Name))
	}
	res, err := layer.WriteFile(ctx, c.LayerPath, entries)
	if err != nil {
		return err
	}
	m := &metadata.Component{
		Name:    c.Name,
		Version: c.Version,
		License: c.License,
		Arch:    c.Arch,
		Layer: metadata.Layer{
			MediaType: metadata.MediaType,
			Digest:    res.Digest,
			Size:      res.Size,
			DiffID:    res.DiffID,
		},
		Files:   make([]metadata.File, 0, len(res.Files)),
		Sources: c.Sources,
	}
	for _, f := range res.Files {
		m.Files = append(m.Files, metadata.File{
			Path:   f.Path,
			Type:   f.Type.String(),
			Mode:   fmt.Sprintf("%04o", f.Mode.Perm()),
			Size:   f.Size,
			SHA256: f.SHA256,
			Target: f.Target,
		})
	}
	var buf bytes.Buffer
	if err := metadata.Write(&buf, m); err != nil {
		return errors.Join(exitcode.With(exitcode.BadInput, err), os.Remove(c.LayerPath))
	}
	if err := atomicfile.WriteFile(c.MetadataPath, buf.Bytes(), 0o644); err != nil {
		return errors.Join(exitcode.With(exitcode.LocalIO, err), os.Remove(c.LayerPath))
	}
	return nil
}

// ParseSource reads a source given as JSON.
func ParseSource(s string) (metadata.Source, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	var out metadata.Source
	if err := dec.Decode(&out); err != nil {
		return out, exitcode.With(exitcode.BadInput, fmt.Errorf("reading source %s: %w", s, err))
	}
	if err := out.Validate(); err != nil {
		return out, exitcode.With(exitcode.BadInput, fmt.Errorf("reading source %s: %w", s, err))
	}
	return out, nil
}

// ReadSources reads a list of sources, as rules that know what went into a
// program write it.
func ReadSources(name string) ([]metadata.Source, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading sources: %w", err))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var sources []metadata.Source
	if err := dec.Decode(&sources); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading sources from %s: %w", name, err))
	}
	for i, s := range sources {
		if err := s.Validate(); err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading sources from %s: entry %d: %w", name, i, err))
		}
	}
	return sources, nil
}

// ReadPackages reads a list of Debian packages as sources: what a package set
// or a root made of one says is in it.
func ReadPackages(name string) ([]metadata.Source, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading packages: %w", err))
	}
	var list []struct {
		Package string `json:"package"`
		Version string `json:"version"`
		Arch    string `json:"arch"`
		SHA256  string `json:"sha256"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading packages from %s: %w", name, err))
	}
	sources := make([]metadata.Source, 0, len(list))
	for i, p := range list {
		s := metadata.Source{
			Name:    p.Package,
			Version: p.Version,
			PURL:    "pkg:deb/debian/" + url.PathEscape(p.Package) + "@" + url.PathEscape(p.Version),
			SHA256:  p.SHA256,
		}
		if p.Arch != "" {
			s.PURL += "?arch=" + url.QueryEscape(p.Arch)
		}
		if err := s.Validate(); err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading packages from %s: entry %d: %w", name, i, err))
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// SortSources puts sources in an order that does not depend on who gave them.
func SortSources(s []metadata.Source) {
	slices.SortFunc(s, func(a, b metadata.Source) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Version, b.Version)
	})
}

// Files gives the entries for a file or a directory tree that is installed at
// dest.
func Files(dest, source string, executable bool) ([]layer.Entry, error) {
	// Bazel gives inputs as symlinks.
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading %s for %s: %w", source, dest, err))
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading %s for %s: %w", source, dest, err))
	}
	if info.IsDir() {
		if executable {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is a directory (%s) and cannot be made executable", dest, source))
		}
		return layer.Walk(real, dest)
	}
	mode := layer.ModeFile
	if executable {
		mode = layer.ModeExecutable
	}
	return []layer.Entry{{Path: dest, Mode: mode, Source: source}}, nil
}

// CheckLinks refuses symlinks that, once a layer is installed, lead out of
// InstallDir: to whatever the node happens to have there.
func CheckLinks(entries []layer.Entry) error {
	var errs []error
	for _, e := range entries {
		if e.Type != layer.Symlink {
			continue
		}
		at := strings.TrimPrefix(e.Path, ArtifactsDir)
		to := e.Target
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(at), to)
		}
		if to = path.Clean(to); to != InstallDir && !strings.HasPrefix(to, InstallDir+"/") {
			errs = append(errs, fmt.Errorf("symlink %s leads to %s, out of %s", at, e.Target, InstallDir))
		}
	}
	return exitcode.With(exitcode.BadInput, errors.Join(errs...))
}
