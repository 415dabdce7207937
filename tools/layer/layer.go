// Package layer writes one image layer: a deterministic tar, compressed with
// zstd, whose bytes depend on nothing but the paths, modes and contents that
// go in. Time, owner, host, directory order and the number of CPUs leave no
// trace, so a layer's digest is a name for its contents.
//
// The tar stream is cut into chunks of a fixed size and each chunk becomes a
// zstd frame of its own. Frames are compressed in parallel and written in
// order; since a frame knows nothing of its neighbours, any number of CPUs
// gives the same bytes. Any zstd reader accepts frames one after another.
package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// File is one path of a written layer.
type File struct {
	Path   string
	Type   Type
	Mode   fs.FileMode
	Size   int64
	SHA256 string
	Target string
}

// Result identifies a written layer.
type Result struct {
	// Digest and Size are of the compressed bytes.
	Digest string
	Size   int64
	// DiffID and TarSize are of the tar inside.
	DiffID  string
	TarSize int64
	// Files lists every path, directories included, in the order of the
	// tar, which is sorted.
	Files []File
}

// Write writes a layer of the given entries to w.
func Write(ctx context.Context, w io.Writer, entries []Entry) (*Result, error) {
	planned, err := plan(entries)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	out := &hashedWriter{w: w, hash: sha256.New()}
	c := newCompressor(ctx, cancel, out)
	uncompressed := &hashedWriter{w: c, hash: sha256.New()}
	files, err := writeTar(ctx, uncompressed, planned)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // why the tar could not be written to its end
	}
	// The compressor's goroutines are always waited for, whatever became
	// of the tar: they write to w.
	if cerr := c.close(err != nil); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return &Result{
		Digest:  out.digest(),
		Size:    out.n,
		DiffID:  uncompressed.digest(),
		TarSize: uncompressed.n,
		Files:   files,
	}, nil
}

// copySize is how much of a file is read at once: enough to make a system
// call cheap, little enough to stay in the CPU's cache for both hashes.
const copySize = 256 << 10

func writeTar(ctx context.Context, w io.Writer, entries []Entry) ([]File, error) {
	tw := tar.NewWriter(w)
	buf := make([]byte, copySize)
	files := make([]File, 0, len(entries))
	for i := range entries {
		f, err := writeEntry(ctx, tw, &entries[i], buf)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if err := tw.Close(); err != nil {
		return nil, fmt.Errorf("ending the tar: %w", err)
	}
	return files, nil
}

func writeEntry(ctx context.Context, tw *tar.Writer, e *Entry, buf []byte) (File, error) {
	out := File{Path: e.Path, Type: e.Type, Mode: e.Mode}
	h := &tar.Header{
		Name:    e.Path,
		Mode:    int64(e.Mode.Perm()),
		ModTime: time.Unix(0, 0),
	}
	for k, v := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string, len(e.Xattrs))
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}

	switch e.Type {
	case Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case Symlink:
		h.Typeflag = tar.TypeSymlink
		h.Linkname = e.Target
		out.Target = e.Target
	case Regular:
		return writeRegular(ctx, tw, h, e, out, buf)
	}
	if err := tw.WriteHeader(h); err != nil {
		return File{}, fmt.Errorf("writing %s: %w", e.Path, err)
	}
	return out, nil
}

func writeRegular(ctx context.Context, tw *tar.Writer, h *tar.Header, e *Entry, out File, buf []byte) (File, error) {
	src, err := os.Open(e.Source)
	if err != nil {
		return File{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the content of %s: %w", e.Path, err))
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return File{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the content of %s: %w", e.Path, err))
	}
	if !info.Mode().IsRegular() {
		return File{}, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is to be a file, but its source %s is not a regular file (%s)", e.Path, e.Source, info.Mode().Type()))
	}

	h.Typeflag = tar.TypeReg
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return File{}, fmt.Errorf("writing %s: %w", e.Path, err)
	}
	content := sha256.New()
	for left := h.Size; left > 0; {
		if err := context.Cause(ctx); err != nil {
			return File{}, err
		}
		n, err := io.ReadFull(src, buf[:min(left, int64(len(buf)))])
		if err != nil {
			return File{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading %s for %s: %w (it had %d bytes when it was opened)", e.Source, e.Path, err, h.Size))
		}
		content.Write(buf[:n])
		if _, err := tw.Write(buf[:n]); err != nil {
			return File{}, fmt.Errorf("writing %s: %w", e.Path, err)
		}
		left -= int64(n)
	}
	out.Size = h.Size
	out.SHA256 = hex.EncodeToString(content.Sum(nil))
	return out, nil
}

// hashedWriter counts and hashes what passes through it.
type hashedWriter struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (h *hashedWriter) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.hash.Write(p[:n])
	h.n += int64(n)
	return n, err
}

func (h *hashedWriter) digest() string {
	return "sha256:" + hex.EncodeToString(h.hash.Sum(nil))
}
