// Package agentlayer reads the layers in which upstream publishes its agent:
// tar archives, packed in one of several ways.
package agentlayer

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

// ErrNotFound means that a layer is an archive without the wanted file.
var ErrNotFound = errors.New("not in the layer")

// Find looks for a file in a layer. It gives the file's content, which is to be
// read before the layer is read on, and how the layer is packed. Content that
// is no archive is an error, as is an archive without that file.
func Find(layer io.Reader, name string) (content io.Reader, kind string, err error) {
	buffered := bufio.NewReader(layer)
	kind, archive, err := open(buffered)
	if err != nil {
		return nil, "", err
	}
	for entries := tar.NewReader(archive); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil, kind, fmt.Errorf("%s is %w", name, ErrNotFound)
		}
		if err != nil {
			return nil, kind, fmt.Errorf("reading the layer as %s: %w", kind, err)
		}
		if header.Typeflag == tar.TypeReg && strings.TrimPrefix(path.Clean("/"+header.Name), "/") == name {
			return entries, kind, nil
		}
	}
}

func open(blob *bufio.Reader) (kind string, archive io.Reader, err error) {
	// A blob that is shorter than any magic number is no archive, which the
	// tar reader says.
	magic, _ := blob.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(blob, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return Zstd, nil, fmt.Errorf("reading the layer as %s: %w", Zstd, err)
		}
		return Zstd, z, nil
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(blob)
		if err != nil {
			return Gzip, nil, fmt.Errorf("reading the layer as %s: %w", Gzip, err)
		}
		return Gzip, z, nil
	default:
		return Plain, blob, nil
	}
}
