// Package archive reads the archives in which upstream publishes what it
// builds: tar archives, packed in one of several ways.
package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// The ways in which an archive is packed.
const (
	Plain = "tar"
	Gzip  = "tar.gz"
	Zstd  = "tar.zst"
)

// ErrNotFound means that an archive does not have the wanted file.
var ErrNotFound = errors.New("not in the archive")

// Reader reads the regular files of an archive one after the other.
type Reader struct {
	// Kind is how the archive is packed: Plain, Gzip or Zstd.
	Kind    string
	entries *tar.Reader
	close   func()
}

// NewReader reads an archive. What is none is an error of Next.
func NewReader(blob io.Reader) (*Reader, error) {
	buffered := bufio.NewReader(blob)
	// A blob that is shorter than any magic number is no archive, which the
	// tar reader says.
	magic, _ := buffered.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("reading the archive as %s: %w", Zstd, err)
		}
		return &Reader{Kind: Zstd, entries: tar.NewReader(z), close: z.Close}, nil
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("reading the archive as %s: %w", Gzip, err)
		}
		return &Reader{Kind: Gzip, entries: tar.NewReader(z), close: func() {}}, nil
	default:
		return &Reader{Kind: Plain, entries: tar.NewReader(buffered), close: func() {}}, nil
	}
}

// Next goes to the next regular file and gives its path, without a slash or
// dot before it. After the last one it gives io.EOF.
func (r *Reader) Next() (string, error) {
	for {
		header, err := r.entries.Next()
		if errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		if err != nil {
			return "", fmt.Errorf("reading the archive as %s: %w", r.Kind, err)
		}
		if header.Typeflag == tar.TypeReg {
			return strings.TrimPrefix(path.Clean("/"+header.Name), "/"), nil
		}
	}
}

// Read reads the file that Next went to.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.entries.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("reading the archive as %s: %w", r.Kind, err)
	}
	return n, err
}

// Close gives back what the reader took. It does not close the blob.
func (r *Reader) Close() { r.close() }

// Kind tells how an archive is packed that has the named file. Content that is
// no archive is an error, as is an archive without that file.
func Kind(blob io.Reader, name string) (string, error) {
	r, err := NewReader(blob)
	if err != nil {
		return "", err
	}
	defer r.Close()
	for {
		switch found, err := r.Next(); {
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("%s is %w", name, ErrNotFound)
		case err != nil:
			return "", err
		case found == name:
			return r.Kind, nil
		}
	}
}
