// Package image makes a payload's config, manifest and index out of what its
// components say about themselves. It never sees a layer: all it needs of
// one is its digest, size and diff ID, so a payload costs kilobytes to build.
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// The labels of a payload's image. The index carries them as annotations.
const (
	LabelPlatform       = "kiln.platform"
	LabelRuntimeClasses = "kiln.runtime-classes"
	LabelAgent          = "kiln.agent"
	LabelInputs         = "kiln.inputs"
	// LabelLacks names the optional components that are not in the payload,
	// since nothing builds or imports them.
	LabelLacks = "kiln.lacks"
	// LabelVersionPrefix is followed by a component's name; the value is
	// the component's version.
	LabelVersionPrefix = "kiln.version."

	labelTitle    = "org.opencontainers.image.title"
	labelVersion  = "org.opencontainers.image.version"
	labelLicenses = "org.opencontainers.image.licenses"
	labelRevision = "org.opencontainers.image.revision"
)

const (
	// Entrypoint is the installer, which the component of the same name
	// brings.
	Entrypoint = "/usr/bin/kata-deploy"
	// ArtifactRoot is where components' files lie in the image. The path
	// below it is the path on the node.
	ArtifactRoot = "opt/kata-artifacts"
	// Repository is the part of the repository's name that all payloads
	// share; the platform follows.
	Repository = "kata-deploy"
)

// Spec is everything that a payload follows from.
type Spec struct {
	Platform       string
	Arch           string
	RuntimeClasses []string
	// Lacks are the optional components that it is made without.
	Lacks []string
	// Registry is the registry's name as the user gave it:
	// receipt.Embedded or host[:port][/path].
	Registry string
	Agent    string
	Inputs   string
	// Revision is the source revision. It is empty unless somebody asks
	// for one, because it would make every commit a new payload.
	Revision string
	// Components in the order of their layers.
	Components []*metadata.Component
	// Configurations of runtime classes, whose paths must exist.
	Configurations []Configuration
}

// Configuration is a runtime class's configuration file.
type Configuration struct {
	// Name is what errors call it.
	Name    string
	Content []byte
}

// Payload is the documents of a payload.
type Payload struct {
	Config   []byte
	Manifest []byte
	Index    []byte
	Receipt  *receipt.Receipt
}

// Build checks that the components fit together and makes the payload.
func Build(s Spec) (*Payload, error) {
	host, prefix, err := receipt.Location(s.Registry)
	if err != nil {
		return nil, err
	}
	files, err := union(s)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("payload %s: %w", s.Platform, err))
	}
	if err := files.complete(s.Configurations); err != nil {
		return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("payload %s: %w", s.Platform, err))
	}

	labels := labelsOf(s)
	epoch := v1.Time{Time: time.Unix(0, 0).UTC()}
	config := v1.ConfigFile{
		Architecture: s.Arch,
		OS:           "linux",
		Created:      epoch,
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{Entrypoint},
			Env:        []string{"PATH=/usr/bin"},
			WorkingDir: "/",
			Labels:     labels,
		},
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	r := &receipt.Receipt{
		SchemaVersion: receipt.SchemaVersion,
		Platform:      s.Platform,
		Registry:      host,
		Repository:    path.Join(prefix, Repository, s.Platform),
		Agent:         s.Agent,
		Inputs:        s.Inputs,
	}
	for _, c := range s.Components {
		diffID, err := v1.NewHash(c.Layer.DiffID)
		if err != nil {
			return nil, fmt.Errorf("component %s: diff ID: %w", c.Name, err)
		}
		digest, err := v1.NewHash(c.Layer.Digest)
		if err != nil {
			return nil, fmt.Errorf("component %s: digest: %w", c.Name, err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, v1.History{
			Created:   epoch,
			CreatedBy: "kiln component " + c.Name,
			Comment:   c.Version,
		})
		manifest.Layers = append(manifest.Layers, v1.Descriptor{
			MediaType:   types.MediaType(c.Layer.MediaType),
			Digest:      digest,
			Size:        c.Layer.Size,
			Annotations: map[string]string{labelTitle: c.Name, labelVersion: c.Version},
		})
		r.Components = append(r.Components, receipt.Component{
			Name:    c.Name,
			Version: c.Version,
			Digest:  c.Layer.Digest,
			Size:    c.Layer.Size,
		})
	}

	p := &Payload{Receipt: r}
	if p.Config, err = canonical(config); err != nil {
		return nil, fmt.Errorf("encoding the config: %w", err)
	}
	manifest.Config = v1.Descriptor{
		MediaType: types.OCIConfigJSON,
		Digest:    hashOf(p.Config),
		Size:      int64(len(p.Config)),
	}
	if p.Manifest, err = canonical(manifest); err != nil {
		return nil, fmt.Errorf("encoding the manifest: %w", err)
	}
	if p.Index, err = canonical(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Annotations:   labels,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1,
			Digest:    hashOf(p.Manifest),
			Size:      int64(len(p.Manifest)),
			Platform:  &v1.Platform{OS: "linux", Architecture: s.Arch},
		}},
	}); err != nil {
		return nil, fmt.Errorf("encoding the index: %w", err)
	}
	r.Digest = hashOf(p.Index).String()
	r.Manifests = []receipt.Manifest{{Arch: s.Arch, Digest: hashOf(p.Manifest).String()}}
	if err := r.Validate(); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("payload %s: %w", s.Platform, err))
	}
	return p, nil
}

func labelsOf(s Spec) map[string]string {
	labels := map[string]string{
		labelTitle:    Repository + " " + s.Platform,
		LabelPlatform: s.Platform,
		LabelAgent:    s.Agent,
		LabelInputs:   s.Inputs,
	}
	if len(s.RuntimeClasses) > 0 {
		labels[LabelRuntimeClasses] = strings.Join(s.RuntimeClasses, ",")
	}
	if len(s.Lacks) > 0 {
		labels[LabelLacks] = strings.Join(s.Lacks, ",")
	}
	if s.Revision != "" {
		labels[labelRevision] = s.Revision
	}
	var licenses []string
	for _, c := range s.Components {
		labels[LabelVersionPrefix+c.Name] = c.Version
		if strings.Contains(c.License, " OR ") {
			licenses = append(licenses, "("+c.License+")")
		} else {
			licenses = append(licenses, strings.Split(c.License, " AND ")...)
		}
	}
	slices.Sort(licenses)
	labels[labelLicenses] = strings.Join(slices.Compact(licenses), " AND ")
	return labels
}

// union finds what no single component can know: whether they fit together.
func union(s Spec) (tree, error) {
	if len(s.Components) == 0 {
		return nil, errors.New("it has no component")
	}
	seen := map[string]bool{}
	for _, c := range s.Components {
		if seen[c.Name] {
			return nil, fmt.Errorf("component %s is listed twice: remove one", c.Name)
		}
		seen[c.Name] = true
		if c.Arch != s.Arch {
			return nil, fmt.Errorf("component %s is for %s, the payload is for %s", c.Name, c.Arch, s.Arch)
		}
	}
	t, err := newTree(s.Components)
	if err != nil {
		return nil, err
	}
	if f, _ := t.resolve(strings.TrimPrefix(Entrypoint, "/")); f == nil || f.Type != metadata.TypeFile {
		return nil, fmt.Errorf("no component installs the entry point %s", Entrypoint)
	}
	return t, nil
}

// tree is the union of all components' files.
type tree map[string]owned

type owned struct {
	file  metadata.File
	owner string
}

func newTree(components []*metadata.Component) (tree, error) {
	t := tree{}
	for _, c := range components {
		for _, f := range c.Files {
			other, taken := t[f.Path]
			switch {
			case !taken:
				t[f.Path] = owned{file: f, owner: c.Name}
			case f.Type != metadata.TypeDir || other.file.Type != metadata.TypeDir:
				return nil, fmt.Errorf("components %s and %s both install /%s: take it out of one of them", other.owner, c.Name, f.Path)
			case f.Mode != other.file.Mode:
				return nil, fmt.Errorf("components %s and %s disagree about the mode of directory /%s: %s and %s", other.owner, c.Name, f.Path, other.file.Mode, f.Mode)
			}
		}
	}
	// A file where another component has a directory shows only here when
	// that directory is implied and not listed.
	for _, p := range slices.Sorted(maps.Keys(t)) {
		o := t[p]
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if parent, ok := t[dir]; ok && parent.file.Type != metadata.TypeDir {
				return nil, fmt.Errorf("component %s installs /%s, but /%s of component %s is no directory", o.owner, p, dir, parent.owner)
			}
		}
	}
	return t, nil
}

// resolve follows symlinks as the node would, where an absolute target is a
// path on the node and so lies below ArtifactRoot. It gives the file, or nil
// and the path at which the trail ended.
func (t tree) resolve(p string) (*metadata.File, string) {
	// The kernel gives up after 40 symlinks as well.
	for range 40 {
		o, ok := t[p]
		if !ok {
			return nil, p
		}
		if o.file.Type != metadata.TypeSymlink {
			return &o.file, p
		}
		if path.IsAbs(o.file.Target) {
			p = path.Join(ArtifactRoot, o.file.Target)
		} else {
			p = path.Join(path.Dir(p), o.file.Target)
		}
	}
	return nil, p
}

// complete reports every path that a configuration names and no component
// installs, following symlinks as the node would.
func (t tree) complete(configurations []Configuration) error {
	var errs []error
	for _, c := range configurations {
		paths, err := check.Paths(c.Content)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		for _, p := range paths {
			inImage := path.Join(ArtifactRoot, p.Path)
			f, end := t.resolve(inImage)
			if f != nil {
				continue
			}
			reason := "which no component installs"
			if end != inImage {
				reason = fmt.Sprintf("which leads to %s, which no component installs", strings.TrimPrefix(end, ArtifactRoot))
			}
			errs = append(errs, fmt.Errorf("%s:%d: %s names %s, %s", c.Name, p.Line, p.Key, p.Path, reason))
		}
	}
	return errors.Join(errs...)
}

// canonical encodes v without white space and with sorted keys, so that the
// bytes do not depend on the order of a library's struct fields.
func canonical(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var plain any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&plain); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func hashOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
