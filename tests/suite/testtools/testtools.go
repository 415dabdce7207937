// Package testtools gives tests the Debian packages that they need beside a payload:
// the set "testtools" of tools/debian/sets.json, as //tests/suite/testtools:root.
package testtools

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Tools are programs of another Debian release, unpacked beside this test. They
// are run by their own dynamic linker, since the host's C library may be older.
type Tools struct {
	root string
}

// Unpack unpacks a root (.tar.zst) into a directory.
func Unpack(archive, dir string) (*Tools, error) {
	fail := func(err error) (*Tools, error) { return nil, fmt.Errorf("unpacking the test tools: %w", err) }
	f, err := os.Open(archive)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = f.Close() }()
	z, err := zstd.NewReader(f)
	if err != nil {
		return fail(err)
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = root.Close() }()
	for entries := tar.NewReader(z); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return &Tools{root: dir}, nil
		}
		if err != nil {
			return fail(err)
		}
		if err := unpack(root, header, entries); err != nil {
			return fail(fmt.Errorf("%s: %w", header.Name, err))
		}
	}
}

func unpack(root *os.Root, header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(header.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, header.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, content); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	default:
		return fmt.Errorf("unexpected type %q", header.Typeflag)
	}
}

// Command gives the command that runs a program of the root.
func (t *Tools) Command(program string) ([]string, error) {
	file, err := t.File(program)
	if err != nil {
		return nil, err
	}
	linker, err := t.File("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
	if err != nil {
		return nil, err
	}
	return []string{linker, "--library-path", filepath.Dir(linker), file}, nil
}

// File gives where a file of the root is, such as a library.
func (t *Tools) File(name string) (string, error) {
	file := filepath.Join(t.root, name)
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("the test tools lack %s: %w", name, err)
	}
	return file, nil
}
