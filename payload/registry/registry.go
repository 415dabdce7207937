// Package registry is the registry that Kiln starts itself: on loopback,
// backed by a directory, without a daemon.
//
// It is go-containerregistry's registry for everything that reads, wrapped
// in what a registry must do to be trusted with a payload: uploads stream to
// disk and appear only when their digest is right, a manifest is refused
// while anything that it names is missing, a tag moves last, and all of it
// survives the process. One process at a time owns a directory.
package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// maxManifest is the size that the distribution specification asks a
// registry to accept at least.
const maxManifest = 4 << 20

var (
	nameRE      = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE       = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	manifestsRE = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	uploadsRE   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`)
)

// File is a file that is being written; see atomicfile.File.
type File interface {
	io.Writer
	CommitAs(path string) error
	Abort()
}

// CreateFunc starts to write the file at path.
type CreateFunc func(path string, mode os.FileMode) (File, error)

// Option changes how a registry is opened.
type Option func(*Registry)

// WithCreate replaces how files are made, so that a test can fill the disk.
func WithCreate(create CreateFunc) Option {
	return func(r *Registry) { r.blobs.create = create }
}

// WithLog gives requests and what was found damaged at start to a logger.
// Without it nothing is logged.
func WithLog(l *log.Logger) Option {
	return func(r *Registry) { r.log = l }
}

// LockedError says that another process owns the directory.
type LockedError struct {
	Dir string
	// Address is where that process serves, if it serves for others.
	Address string
}

func (e *LockedError) Error() string {
	if e.Address != "" {
		return fmt.Sprintf("the registry in %s is served by another process at %s", e.Dir, e.Address)
	}
	return fmt.Sprintf("the registry in %s is in use by another process", e.Dir)
}

// Registry is an http.Handler that serves one directory.
type Registry struct {
	dir   string
	lock  *os.File
	log   *log.Logger
	blobs *blobStore
	inner http.Handler

	// mu orders changes of manifests and tags, so that what is on disk and
	// what the inner registry holds change together.
	mu sync.Mutex

	uploadsMu sync.Mutex
	uploads   map[string]*blobUpload
}

// Open takes a directory, making it if need be, and loads what it holds. It
// gives a *LockedError when another process has it. Close ends it.
func Open(dir string, opts ...Option) (_ *Registry, err error) {
	r := &Registry{
		dir: dir,
		log: log.New(io.Discard, "", 0),
		blobs: &blobStore{
			dir: filepath.Join(dir, "blobs"),
			create: func(path string, mode os.FileMode) (File, error) {
				return atomicfile.Create(path, mode)
			},
			verified: map[string]fileState{},
		},
		uploads: map[string]*blobUpload{},
	}
	for _, o := range opts {
		o(r)
	}
	for _, d := range []string{filepath.Join(r.blobs.dir, "sha256"), r.repositories()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("making the registry's directory: %w", err))
		}
	}
	r.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening the registry's lock: %w", err))
	}
	defer func() {
		if err != nil {
			_ = r.lock.Close()
		}
	}()
	if err := syscall.Flock(int(r.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		address, err := os.ReadFile(r.addressFile())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the registry's address: %w", err))
		}
		return nil, &LockedError{Dir: dir, Address: strings.TrimSpace(string(address))}
	} else if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("locking the registry in %s: %w", dir, err))
	}
	// Whoever wrote an address or a partial file is gone: we have the lock.
	if err := os.Remove(r.addressFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("removing a stale address: %w", err))
	}
	r.inner = ggcr.New(ggcr.Logger(r.log), ggcr.WithBlobHandler(r.blobs))
	if err := r.load(); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("loading the registry in %s: %w", dir, err))
	}
	return r, nil
}

// Announce lets other processes of this machine find the one that serves.
func (r *Registry) Announce(address string) error {
	return atomicfile.WriteFile(r.addressFile(), []byte(address+"\n"), 0o644)
}

// Close throws away uploads that did not finish and gives the directory
// back. Nothing may use the registry any more.
func (r *Registry) Close() error {
	r.uploadsMu.Lock()
	defer r.uploadsMu.Unlock()
	for id, u := range r.uploads {
		u.abort()
		delete(r.uploads, id)
	}
	err := os.Remove(r.addressFile())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.lock.Close())
}

func (r *Registry) addressFile() string  { return filepath.Join(r.dir, "address") }
func (r *Registry) repositories() string { return filepath.Join(r.dir, "repositories") }

// A repository's directory holds _manifests/<hex>, whose content is the
// manifest's media type, and _tags/<tag>, whose content is a digest. The
// manifest itself is a blob. No repository's name has a part that starts
// with an underscore.
func (r *Registry) manifestLink(repo string, h v1.Hash) string {
	return filepath.Join(r.repositories(), repo, "_manifests", h.Hex)
}

func (r *Registry) tagLink(repo, tag string) string {
	return filepath.Join(r.repositories(), repo, "_tags", tag)
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if m := manifestsRE.FindStringSubmatch(req.URL.Path); m != nil && req.Method == http.MethodPut {
		r.reply(w, req, r.putManifest(w, req, m[1], m[2]))
		return
	}
	if m := uploadsRE.FindStringSubmatch(req.URL.Path); m != nil {
		r.reply(w, req, r.upload(w, req, m[1], m[2]))
		return
	}
	if req.Method == http.MethodDelete {
		// Deleting one thing would break what names it.
		r.reply(w, req, &failure{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry does not delete"})
		return
	}
	r.inner.ServeHTTP(w, req)
}

// failure is an error as the distribution specification words it.
type failure struct {
	status        int
	code, message string
}

func (f *failure) Error() string { return f.message }

func failed(status int, code, format string, args ...any) error {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

func (r *Registry) reply(w http.ResponseWriter, req *http.Request, err error) {
	if err == nil {
		r.log.Printf("%s %s", req.Method, req.URL)
		return
	}
	r.log.Printf("%s %s: %v", req.Method, req.URL, err)
	f := &failure{}
	switch {
	case errors.As(err, &f):
	case errors.Is(err, errDigest):
		f = &failure{http.StatusBadRequest, "DIGEST_INVALID", err.Error()}
	case exitcode.Of(err) == exitcode.LocalIO:
		f = &failure{http.StatusInsufficientStorage, "INSUFFICIENT_STORAGE", err.Error()}
	default:
		f = &failure{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	}
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": f.code, "message": f.message}}})
	if err != nil {
		body = []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}

// putManifest stores a manifest, and moves a tag if it was put under one.
func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, repo, target string) error {
	if !nameRE.MatchString(repo) {
		return failed(http.StatusBadRequest, "NAME_INVALID", "%q is not a repository's name", repo)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		return failed(http.StatusBadRequest, "MANIFEST_INVALID", "reading the manifest: %v", err)
	}
	mediaType := types.MediaType(req.Header.Get("Content-Type"))
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.complete(repo, mediaType, data, func(h v1.Hash) (int64, error) {
		return r.blobs.Stat(req.Context(), repo, h)
	}); err != nil {
		return err
	}
	h, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("hashing the manifest: %w", err)
	}
	isDigest := strings.Contains(target, ":")
	if isDigest && target != h.String() {
		return failed(http.StatusBadRequest, "DIGEST_INVALID", "the manifest has %s, not %s", h, target)
	}
	if !isDigest && !tagRE.MatchString(target) {
		return failed(http.StatusBadRequest, "TAG_INVALID", "%q is not a tag", target)
	}

	// Content first, then the name by digest, then the tag: whatever is
	// interrupted, a name never means something that is not there.
	if _, err := r.blobs.put(data); err != nil {
		return fmt.Errorf("storing manifest %s: %w", h, err)
	}
	if err := r.write(r.manifestLink(repo, h), string(mediaType)); err != nil {
		return fmt.Errorf("storing manifest %s: %w", h, err)
	}
	if !isDigest {
		if err := r.write(r.tagLink(repo, target), h.String()); err != nil {
			return fmt.Errorf("moving tag %s: %w", target, err)
		}
	}
	return r.hand(req.Context(), w, repo, target, mediaType, data)
}

// complete refuses a manifest that names something that is not here. The
// size of a blob comes from stat, which fails for an absent one.
func (r *Registry) complete(repo string, mediaType types.MediaType, data []byte, stat func(v1.Hash) (int64, error)) error {
	var blobs, manifests []v1.Descriptor
	switch {
	case mediaType.IsImage():
		m, err := v1.ParseManifest(bytes.NewReader(data))
		if err != nil {
			return failed(http.StatusBadRequest, "MANIFEST_INVALID", "reading the manifest: %v", err)
		}
		blobs = append([]v1.Descriptor{m.Config}, m.Layers...)
	case mediaType.IsIndex():
		m, err := v1.ParseIndexManifest(bytes.NewReader(data))
		if err != nil {
			return failed(http.StatusBadRequest, "MANIFEST_INVALID", "reading the index: %v", err)
		}
		manifests = m.Manifests
	default:
		return failed(http.StatusBadRequest, "MANIFEST_INVALID", "media type %q is neither an image nor an index", mediaType)
	}
	for _, d := range blobs {
		size, err := stat(d.Digest)
		if errors.Is(err, ggcr.ErrNotFound) {
			return failed(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "the manifest names blob %s, which is not here", d.Digest)
		} else if err != nil {
			return err
		}
		if size != d.Size {
			return failed(http.StatusBadRequest, "SIZE_INVALID", "the manifest says that blob %s has %d bytes, it has %d", d.Digest, d.Size, size)
		}
	}
	for _, d := range manifests {
		if _, err := os.Stat(r.manifestLink(repo, d.Digest)); errors.Is(err, os.ErrNotExist) {
			return failed(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "the index names manifest %s, which is not here", d.Digest)
		} else if err != nil {
			return fmt.Errorf("looking for manifest %s: %w", d.Digest, err)
		}
	}
	return nil
}

func (r *Registry) write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	f, err := r.blobs.create(path, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.WriteString(f, content+"\n"); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return f.CommitAs(path)
}

// hand gives a manifest to the inner registry, which serves it from then on.
func (r *Registry) hand(ctx context.Context, w http.ResponseWriter, repo, target string, mediaType types.MediaType, data []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "/v2/"+repo+"/manifests/"+target, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("handing over manifest %s: %w", target, err)
	}
	req.Header.Set("Content-Type", string(mediaType))
	r.inner.ServeHTTP(w, req)
	return nil
}

// upload implements the ways in which a blob may arrive: in one POST, or as
// POST, PATCHes and a PUT.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, repo, id string) error {
	if !nameRE.MatchString(repo) {
		return failed(http.StatusBadRequest, "NAME_INVALID", "%q is not a repository's name", repo)
	}
	query := req.URL.Query()
	if req.Method == http.MethodPost {
		if id != "" {
			return failed(http.StatusMethodNotAllowed, "UNSUPPORTED", "POST starts an upload, it does not continue one")
		}
		if mount := query.Get("mount"); mount != "" {
			// All repositories share their blobs.
			if h, err := v1.NewHash(mount); err == nil {
				if _, err := r.blobs.Stat(req.Context(), repo, h); err == nil {
					return r.created(w, repo, h)
				}
			}
		}
		u, err := r.blobs.begin()
		if err != nil {
			return err
		}
		if digest := query.Get("digest"); digest != "" {
			defer u.abort()
			return r.finish(w, req, repo, u, digest)
		}
		id, err := newID()
		if err != nil {
			u.abort()
			return err
		}
		r.uploadsMu.Lock()
		r.uploads[id] = u
		r.uploadsMu.Unlock()
		return accepted(w, repo, id, 0)
	}

	r.uploadsMu.Lock()
	u, ok := r.uploads[id]
	r.uploadsMu.Unlock()
	if !ok {
		return failed(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no upload %q", id)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch req.Method {
	case http.MethodGet:
		w.Header().Set("Location", uploadURL(repo, id))
		w.Header().Set("Range", rangeOf(u.size))
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if cr := req.Header.Get("Content-Range"); cr != "" {
			var start, end int64
			if _, err := fmt.Sscanf(cr, "%d-%d", &start, &end); err != nil || start != u.size {
				return failed(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "the upload has %d bytes, the range %q does not follow", u.size, cr)
			}
		}
		if _, err := io.Copy(u, req.Body); err != nil {
			r.drop(id)
			return fmt.Errorf("receiving a blob: %w", err)
		}
		return accepted(w, repo, id, u.size)
	case http.MethodPut:
		defer r.drop(id)
		return r.finish(w, req, repo, u, query.Get("digest"))
	default:
		return failed(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not for uploads", req.Method)
	}
}

// drop forgets an upload, and what arrived of it unless it was committed.
func (r *Registry) drop(id string) {
	r.uploadsMu.Lock()
	defer r.uploadsMu.Unlock()
	if u, ok := r.uploads[id]; ok {
		u.abort()
		delete(r.uploads, id)
	}
}

func (r *Registry) finish(w http.ResponseWriter, req *http.Request, repo string, u *blobUpload, digest string) error {
	h, err := v1.NewHash(digest)
	if err != nil || h.Algorithm != "sha256" {
		return failed(http.StatusBadRequest, "DIGEST_INVALID", "%q is not a sha256 digest", digest)
	}
	if _, err := io.Copy(u, req.Body); err != nil {
		return fmt.Errorf("receiving blob %s: %w", h, err)
	}
	if err := u.commit(h); err != nil {
		return err
	}
	return r.created(w, repo, h)
}

func (r *Registry) created(w http.ResponseWriter, repo string, h v1.Hash) error {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+h.String())
	w.Header().Set("Docker-Content-Digest", h.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

func accepted(w http.ResponseWriter, repo, id string, size int64) error {
	w.Header().Set("Location", uploadURL(repo, id))
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", rangeOf(size))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func uploadURL(repo, id string) string { return "/v2/" + repo + "/blobs/uploads/" + id }

func rangeOf(size int64) string { return fmt.Sprintf("0-%d", max(size-1, 0)) }

func newID() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("naming an upload: %w", err)
	}
	return hex.EncodeToString(b), nil
}
