package registry

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-build/kiln/tools/atomicfile"
)

// named is a manifest or a tag that the directory holds.
type named struct {
	repo, target string
	path         string
}

// load hands what earlier processes stored to the inner registry: images,
// then indexes, then tags. What is damaged is left out with a message, and
// comes back with the next push.
func (r *Registry) load() error {
	var manifests, tags []named
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if atomicfile.IsPartial(path) {
			return os.Remove(path)
		}
		rel, err := filepath.Rel(r.repositories(), path)
		if err != nil || strings.HasPrefix(rel, "..") {
			return err
		}
		parent := filepath.Dir(rel)
		n := named{repo: filepath.ToSlash(filepath.Dir(parent)), target: filepath.Base(rel), path: path}
		switch filepath.Base(parent) {
		case "_manifests":
			manifests = append(manifests, n)
		case "_tags":
			tags = append(tags, n)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for manifests: %w", err)
	}

	// An index is complete only when the images that it names are loaded.
	loaded := map[named]types.MediaType{}
	mediaTypes := map[named]types.MediaType{}
	for _, m := range manifests {
		content, err := os.ReadFile(m.path)
		if err != nil {
			return fmt.Errorf("reading a manifest's type: %w", err)
		}
		mediaTypes[m] = types.MediaType(strings.TrimSpace(string(content)))
	}
	for _, indexes := range []bool{false, true} {
		for _, m := range manifests {
			mediaType := mediaTypes[m]
			if mediaType.IsIndex() != indexes {
				continue
			}
			h := v1.Hash{Algorithm: "sha256", Hex: m.target}
			if err := r.loadManifest(m.repo, h, h.String(), mediaType); err != nil {
				r.log.Printf("%s: leaving out manifest %s: %v", m.repo, h, err)
				// Complete asks for the link, so a damaged manifest
				// must not have one.
				if err := os.Remove(m.path); err != nil {
					return fmt.Errorf("removing a damaged manifest: %w", err)
				}
				continue
			}
			loaded[named{repo: m.repo, target: h.String()}] = mediaType
		}
	}
	for _, t := range tags {
		content, err := os.ReadFile(t.path)
		if err != nil {
			return fmt.Errorf("reading tag %s: %w", t.target, err)
		}
		digest := strings.TrimSpace(string(content))
		mediaType, ok := loaded[named{repo: t.repo, target: digest}]
		if !ok {
			r.log.Printf("%s: leaving out tag %s: there is no manifest %s", t.repo, t.target, digest)
			if err := os.Remove(t.path); err != nil {
				return fmt.Errorf("removing a dangling tag: %w", err)
			}
			continue
		}
		h, err := v1.NewHash(digest)
		if err != nil {
			return fmt.Errorf("reading tag %s: %w", t.target, err)
		}
		if err := r.loadManifest(t.repo, h, t.target, mediaType); err != nil {
			return fmt.Errorf("loading tag %s: %w", t.target, err)
		}
	}
	return nil
}

func (r *Registry) loadManifest(repo string, h v1.Hash, target string, mediaType types.MediaType) error {
	data, err := r.blobs.read(h)
	if err != nil {
		return err
	}
	// Hashing gigabytes at every start would be slow, and whoever asks for
	// a blob makes it be verified anyway.
	if err := r.complete(repo, mediaType, data, r.blobs.size); err != nil {
		return err
	}
	w := &statusWriter{header: http.Header{}}
	if err := r.hand(context.Background(), w, repo, target, mediaType, data); err != nil {
		return err
	}
	if w.status != http.StatusCreated {
		return fmt.Errorf("status %d", w.status)
	}
	return nil
}

// statusWriter is a response of which only the status matters.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header         { return w.header }
func (w *statusWriter) WriteHeader(status int)      { w.status = status }
func (w *statusWriter) Write(p []byte) (int, error) { return len(p), nil }
