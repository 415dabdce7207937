package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// blobStore keeps blobs in files named by their digest. A file is there only
// when its content was verified, and it is verified again the first time
// that a process meets it: a blob that rotted counts as absent, so that the
// next push brings it back.
type blobStore struct {
	dir    string
	create CreateFunc

	mu       sync.Mutex
	verified map[string]fileState
}

// fileState tells whether a file is still the one that was verified.
type fileState struct {
	size  int64
	mtime time.Time
}

func (s *blobStore) path(h v1.Hash) string { return filepath.Join(s.dir, h.Algorithm, h.Hex) }

// Stat implements ggcr.BlobStatHandler.
func (s *blobStore) Stat(ctx context.Context, _ string, h v1.Hash) (int64, error) {
	if h.Algorithm != "sha256" || !hexRE.MatchString(h.Hex) {
		return 0, ggcr.ErrNotFound
	}
	f, err := os.Open(s.path(h))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ggcr.ErrNotFound
	} else if err != nil {
		return 0, fmt.Errorf("opening blob %s: %w", h, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("reading about blob %s: %w", h, err)
	}
	state := fileState{size: info.Size(), mtime: info.ModTime()}
	s.mu.Lock()
	known := s.verified[h.Hex] == state
	s.mu.Unlock()
	if known {
		return state.size, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, contextReader{ctx, f}); err != nil {
		return 0, fmt.Errorf("verifying blob %s: %w", h, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != h.Hex {
		return 0, ggcr.ErrNotFound
	}
	s.remember(h.Hex, state)
	return state.size, nil
}

// size is Stat without looking at the content.
func (s *blobStore) size(h v1.Hash) (int64, error) {
	info, err := os.Stat(s.path(h))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ggcr.ErrNotFound
	} else if err != nil {
		return 0, fmt.Errorf("looking for blob %s: %w", h, err)
	}
	return info.Size(), nil
}

func (s *blobStore) remember(hex string, state fileState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[hex] = state
}

// Get implements ggcr.BlobHandler.
func (s *blobStore) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	f, err := os.Open(s.path(h))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ggcr.ErrNotFound
	} else if err != nil {
		return nil, fmt.Errorf("opening blob %s: %w", h, err)
	}
	return f, nil
}

// begin starts an upload whose digest is told at its end.
func (s *blobStore) begin() (*blobUpload, error) {
	// The name only says in which directory the file is made.
	f, err := s.create(filepath.Join(s.dir, "sha256", "upload"), 0o644)
	if err != nil {
		return nil, err
	}
	return &blobUpload{store: s, file: f, sum: sha256.New()}, nil
}

// put stores content that is in memory.
func (s *blobStore) put(data []byte) (v1.Hash, error) {
	u, err := s.begin()
	if err != nil {
		return v1.Hash{}, err
	}
	defer u.abort()
	if _, err := u.Write(data); err != nil {
		return v1.Hash{}, err
	}
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(u.sum.Sum(nil))}
	return h, u.commit(h)
}

// read gives a whole blob, verified.
func (s *blobStore) read(h v1.Hash) ([]byte, error) {
	data, err := os.ReadFile(s.path(h))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("blob %s is corrupt", h)
	}
	return data, nil
}

// blobUpload is a blob that is arriving. It streams to disk, so a layer of
// any size costs no memory.
type blobUpload struct {
	store *blobStore

	mu   sync.Mutex
	file File
	sum  hash.Hash
	size int64
}

var errDigest = errors.New("digest mismatch")

// Write appends to the blob.
func (u *blobUpload) Write(p []byte) (int, error) {
	n, err := u.file.Write(p)
	u.sum.Write(p[:n])
	u.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("storing a blob: %w", err)
	}
	return n, nil
}

func (u *blobUpload) commit(h v1.Hash) error {
	if got := hex.EncodeToString(u.sum.Sum(nil)); h.Algorithm != "sha256" || got != h.Hex {
		u.file.Abort()
		return fmt.Errorf("%w: the content has sha256:%s, not %s", errDigest, got, h)
	}
	final := u.store.path(h)
	if err := u.file.CommitAs(final); err != nil {
		return err
	}
	info, err := os.Stat(final)
	if err != nil {
		return fmt.Errorf("reading about blob %s: %w", h, err)
	}
	u.store.remember(h.Hex, fileState{size: info.Size(), mtime: info.ModTime()})
	return nil
}

func (u *blobUpload) abort() { u.file.Abort() }

// contextReader stops reading when nobody waits for the result any more.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
