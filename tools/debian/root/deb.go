package root

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Package says which package is in a root.
type Package struct {
	Package       string `json:"package"`
	Version       string `json:"version"`
	Arch          string `json:"arch"`
	Source        string `json:"source"`
	SourceVersion string `json:"sourceVersion"`
	// SHA256 is that of the .deb file.
	SHA256 string `json:"sha256"`
}

// deb is what was read of one package.
type deb struct {
	Package
	// control is the control file as it stands in the package.
	control string
	entries []*entry
}

// entry is one path of the root.
type entry struct {
	path   string
	header tar.Header
	// owner is the package, or what else asked for the path.
	owner string
	// Of a regular file: where its content is, and its sum.
	spool  *os.File
	offset int64
	sum    [sha256.Size]byte
	// link is the path that a hard link shares its content with.
	link string
	// dropped entries are read only since something is composed of them.
	dropped bool
}

// open reads a .deb. Content goes to the end of the spool.
func readDeb(file string, spool *os.File, offset *int64, filter func(string) (keep, drop bool)) (*deb, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening a package: %w", err))
	}
	defer in.Close()
	sum := sha256.New()
	d := &deb{}
	if err := d.read(io.TeeReader(in, sum), spool, offset, filter); err != nil {
		return nil, fmt.Errorf("reading the package %s: %w", file, err)
	}
	d.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return d, nil
}

func (d *deb) read(in io.Reader, spool *os.File, offset *int64, filter func(string) (keep, drop bool)) error {
	ar, err := newArReader(in)
	if err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	hasData := false
	for {
		member, err := ar.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
		name, ext, _ := strings.Cut(member, ".tar")
		if name != "control" && name != "data" {
			continue
		}
		contents, done, err := decompress(ar, ext)
		if err != nil {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", member, err))
		}
		if name == "control" {
			err = d.readControl(contents)
		} else {
			hasData = true
			err = d.readData(contents, spool, offset, filter)
		}
		done()
		if err != nil {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", member, err))
		}
	}
	if d.Package.Package == "" || !hasData {
		return exitcode.With(exitcode.BadInput, errors.New("not a Debian package: control or data is missing"))
	}
	return nil
}

func decompress(r io.Reader, ext string) (io.Reader, func(), error) {
	switch ext {
	case ".xz":
		x, err := xz.NewReader(r, xz.DefaultDictMax)
		return x, func() {}, err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case ".gz":
		g, err := gzip.NewReader(r)
		return g, func() {}, err
	case "":
		return r, func() {}, nil
	}
	return nil, nil, fmt.Errorf("unknown compression %q", ext)
}

func (d *deb) readControl(r io.Reader) error {
	archived := tar.NewReader(r)
	for {
		h, err := archived.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("no control file")
		}
		if err != nil {
			return err
		}
		if path.Clean(h.Name) != "control" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(archived, 1<<20))
		if err != nil {
			return err
		}
		d.control = strings.TrimRight(string(text), "\n") + "\n"
		fields := archive.NewScanner(bytes.NewReader(text), "Package", "Version", "Architecture", "Source")
		fields.Scan()
		p := fields.Stanza()
		d.Package = Package{
			Package:       p.Get("Package"),
			Version:       p.Get("Version"),
			Arch:          p.Get("Architecture"),
			Source:        p.Get("Package"),
			SourceVersion: p.Get("Version"),
		}
		if source := p.Get("Source"); source != "" {
			name, v, ok := strings.Cut(source, " (")
			d.Source = name
			if ok {
				d.SourceVersion = strings.TrimSuffix(v, ")")
			}
		}
		return nil
	}
}

func (d *deb) readData(r io.Reader, spool *os.File, offset *int64, filter func(string) (keep, drop bool)) error {
	archived := tar.NewReader(r)
	buffer := make([]byte, 256<<10)
	for {
		h, err := archived.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)[1:]
		if name == "" {
			continue
		}
		name = merged(name, h.Typeflag)
		keep, drop := filter(name)
		if !keep {
			continue
		}
		e := &entry{path: name, owner: d.Package.Package, dropped: drop}
		e.header = tar.Header{Typeflag: h.Typeflag, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid}
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeSymlink:
			e.header.Linkname = h.Linkname
			e.header.Mode = 0o777
		case tar.TypeLink:
			e.link = merged(path.Clean("/" + h.Linkname)[1:], tar.TypeReg)
		case tar.TypeReg:
			e.spool, e.offset = spool, *offset
			sum := sha256.New()
			n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(spool, sum)}, archived, buffer)
			if err != nil {
				return err
			}
			e.header.Size = n
			sum.Sum(e.sum[:0])
			*offset += n
		default:
			return fmt.Errorf("%s: files of type %q are not supported", name, h.Typeflag)
		}
		d.entries = append(d.entries, e)
	}
}

// topLinks are the links that Debian has in place of the directories which
// moved below usr.
var topLinks = []string{"bin", "lib", "lib64", "sbin"}

// merged gives the path below usr for one that a package ships beside it.
func merged(name string, kind byte) string {
	for _, l := range topLinks {
		if strings.HasPrefix(name, l+"/") || (name == l && kind == tar.TypeDir) {
			return "usr/" + name
		}
	}
	return name
}
