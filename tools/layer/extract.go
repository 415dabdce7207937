package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// open gives the tar inside a layer, compressed with zstd or not at all.
func open(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading layer: %w", err))
	}
	if !bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return io.NopCloser(br), nil
	}
	dec, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return nil, fmt.Errorf("setting up zstd: %w", err)
	}
	return dec.IOReadCloser(), nil
}

// List gives the headers of a layer's tar in order. It reads all of the
// layer, so a damaged one is an error.
func List(ctx context.Context, r io.Reader) ([]*tar.Header, error) {
	in, err := open(r)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var headers []*tar.Header
	for tr := tar.NewReader(in); ; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("reading layer: %w", err))
		}
		headers = append(headers, h)
	}
	// The tar may end before the stream does: a torn frame shows only there.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("reading layer: %w", err))
	}
	return headers, nil
}

// smallFile is up to which size a file is kept in memory and written by
// another goroutine, so that creating files overlaps with decompression.
const smallFile = 1 << 20

// Extract unpacks a layer, or any tar with or without zstd, into a directory
// that exists. Nothing is created outside of it, whatever the paths and
// symlinks in the tar. Owners are ignored and devices are skipped: neither
// is for an ordinary user to make. Two files for one path are an error.
func Extract(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("opening %s: %w", dir, err))
	}
	defer root.Close()
	in, err := open(r)
	if err != nil {
		return err
	}
	defer in.Close()

	x := &extractor{root: root}
	defer x.closeParent()
	writers := newPool(runtime.GOMAXPROCS(0))
	err = x.run(ctx, tar.NewReader(in), writers)
	if werr := writers.wait(); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	return x.finish()
}

type extractor struct {
	root *os.Root
	// parent is the open directory of the last path: neighbours in a tar
	// share it, and opening it anew for each is most of the cost.
	parent     *sharedRoot
	parentPath string
	links      []*tar.Header
	dirs       []*tar.Header
}

func (x *extractor) run(ctx context.Context, tr *tar.Reader, writers *pool) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("reading the tar: %w", err))
		}
		if err := x.entry(h, tr, writers); err != nil {
			return extractError(fmt.Errorf("unpacking %s: %w", h.Name, err))
		}
	}
}

// extractError tells what the machine could not do from what the tar should
// not have asked for.
func extractError(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) && no != syscall.EEXIST && no != syscall.ENOENT && no != syscall.ENOTDIR {
		return exitcode.With(exitcode.LocalIO, err)
	}
	return exitcode.With(exitcode.Unverified, err)
}

func (x *extractor) entry(h *tar.Header, content io.Reader, writers *pool) error {
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if name == "" || name == "." {
		return nil
	}
	if err := checkPath(name); err != nil {
		return exitcode.With(exitcode.Unverified, err)
	}
	h.Name = name
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, h)
		return x.mkdir(name)
	case tar.TypeLink:
		// The file that it links to may still be on its way to the disk.
		x.links = append(x.links, h)
		return nil
	case tar.TypeReg, tar.TypeSymlink:
	default:
		return nil
	}

	parent, err := x.openParent(path.Dir(name))
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return parent.Symlink(h.Linkname, path.Base(name))
	}
	if h.Size > smallFile {
		return writeContent(parent.Root, h, content)
	}
	buf := make([]byte, h.Size)
	if _, err := io.ReadFull(content, buf); err != nil {
		return exitcode.With(exitcode.Unverified, err)
	}
	parent.hold()
	return writers.run(func() error {
		defer parent.release()
		if err := writeContent(parent.Root, h, bytes.NewReader(buf)); err != nil {
			return extractError(fmt.Errorf("unpacking %s: %w", h.Name, err))
		}
		return nil
	})
}

func writeContent(parent *os.Root, h *tar.Header, content io.Reader) error {
	base := path.Base(h.Name)
	f, err := parent.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(h.Mode).Perm()); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return parent.Chtimes(base, h.ModTime, h.ModTime)
}

func (x *extractor) mkdir(name string) error {
	parent, err := x.openParent(path.Dir(name))
	if err != nil {
		return err
	}
	err = parent.Mkdir(path.Base(name), 0o700)
	if errors.Is(err, fs.ErrExist) {
		// Made for a child that came first, or a symlink to a directory,
		// as /bin is on a merged /usr.
		info, serr := parent.Stat(path.Base(name))
		if serr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (x *extractor) openParent(name string) (*sharedRoot, error) {
	if x.parent != nil && x.parentPath == name {
		return x.parent, nil
	}
	dir, err := x.root.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := x.root.MkdirAll(name, 0o755); err != nil {
			return nil, err
		}
		dir, err = x.root.OpenRoot(name)
	}
	if err != nil {
		return nil, err
	}
	x.closeParent()
	x.parent, x.parentPath = newSharedRoot(dir), name
	return x.parent, nil
}

func (x *extractor) closeParent() {
	if x.parent != nil {
		x.parent.release()
		x.parent = nil
	}
}

// finish makes hard links, and gives directories the modes and times that
// would have been in the way, or overwritten, before.
func (x *extractor) finish() error {
	for _, h := range x.links {
		target := strings.TrimPrefix(h.Linkname, "./")
		if err := x.root.Link(target, h.Name); err != nil {
			return extractError(fmt.Errorf("unpacking %s, a hard link to %s: %w", h.Name, h.Linkname, err))
		}
	}
	seen := make(map[string]bool, len(x.dirs))
	for i := len(x.dirs) - 1; i >= 0; i-- {
		h := x.dirs[i]
		if seen[h.Name] {
			continue
		}
		seen[h.Name] = true
		if info, err := x.root.Lstat(h.Name); err != nil || !info.IsDir() {
			continue // a symlink in the place of a directory: not its own
		}
		if err := x.root.Chtimes(h.Name, time.Time{}, h.ModTime); err != nil {
			return extractError(fmt.Errorf("unpacking %s: %w", h.Name, err))
		}
		if err := x.root.Chmod(h.Name, fs.FileMode(h.Mode).Perm()); err != nil {
			return extractError(fmt.Errorf("unpacking %s: %w", h.Name, err))
		}
	}
	return nil
}
