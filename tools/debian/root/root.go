// Package root makes one file system tree out of Debian packages without
// installing them: the union of what the packages hold, as one archive that
// is the same wherever and whenever it is made.
//
// No maintainer script runs. What such scripts would do, and is needed, is
// asked for by name: links that alternatives would set, and files that are
// put together from others.
package root

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Config says what to put into a root.
type Config struct {
	// Debs are the files of the packages.
	Debs []string
	// Exclude are patterns of paths to leave out, see newExcluder.
	Exclude []string
	// Symlinks maps paths to what they link to.
	Symlinks map[string]string
	// Compose maps paths to patterns: the file is all files of the packages
	// that match, one after the other in the order of their paths. They
	// are found even if they are excluded.
	Compose map[string]string
	// Status adds var/lib/dpkg/status, by which scanners know what is in
	// the root.
	Status bool
	// Time is the modification time of everything.
	Time time.Time
	// Output is the archive (.tar.zst) to write, Packages the list of
	// packages (.json).
	Output, Packages string
}

// maker holds the state of one Build.
type maker struct {
	config  Config
	exclude excluder
	compose map[string]*regexp.Regexp
	debs    []*deb
	union   map[string]*entry
}

// Build writes a root.
func Build(ctx context.Context, config Config) error {
	m := &maker{config: config, union: map[string]*entry{}, compose: map[string]*regexp.Regexp{}}
	var err error
	if m.exclude, err = newExcluder(config.Exclude); err != nil {
		return err
	}
	for dest, pattern := range config.Compose {
		if m.compose[dest], err = compile(pattern); err != nil {
			return err
		}
	}
	// Contents wait in a file until their place in the sorted archive comes.
	// One that has no name leaves nothing behind, however this ends. It is
	// beside the output, since /tmp may be held in memory.
	spools := make([]*os.File, readers+1)
	for i := range spools {
		if spools[i], err = unnamedFile(filepath.Dir(config.Output)); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("making a temporary file: %w", err))
		}
		defer spools[i].Close()
	}
	if err := m.readAll(ctx, spools[:readers]); err != nil {
		return err
	}
	if err := m.unite(); err != nil {
		return err
	}
	if err := m.addComposed(spools[readers]); err != nil {
		return err
	}
	if err := m.addSymlinks(); err != nil {
		return err
	}
	if err := m.finish(); err != nil {
		return err
	}
	if err := writeFile(config.Packages, m.writePackages); err != nil {
		return err
	}
	return writeFile(config.Output, m.writeArchive)
}

// readers is how many packages are read at a time. More help little: of one
// root's packages, the largest takes a fifth of the time of all.
const readers = 2

func unnamedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".spool.*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func (m *maker) readAll(ctx context.Context, spools []*os.File) error {
	m.debs = make([]*deb, len(m.config.Debs))
	errs := make([]error, len(m.config.Debs))
	next := make(chan int)
	var group sync.WaitGroup
	for _, spool := range spools {
		group.Go(func() {
			offset := int64(0)
			for i := range next {
				m.debs[i], errs[i] = readDeb(m.config.Debs[i], spool, &offset, m.filter)
			}
		})
	}
	// Largest first, so that both readers end at about the same time.
	order := make([]int, len(m.config.Debs))
	sizes := make([]int64, len(m.config.Debs))
	for i, file := range m.config.Debs {
		order[i] = i
		if info, err := os.Stat(file); err == nil {
			sizes[i] = info.Size()
		}
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(sizes[y], sizes[x]) })
	for _, i := range order {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Libraries of several architectures stand beside each other.
	slices.SortFunc(m.debs, func(x, y *deb) int {
		return cmp.Or(cmp.Compare(x.Package.Package, y.Package.Package), cmp.Compare(x.Arch, y.Arch))
	})
	for i := 1; i < len(m.debs); i++ {
		if p := m.debs[i].Package; p.Package == m.debs[i-1].Package.Package && p.Arch == m.debs[i-1].Arch {
			return badInput("package %s is given twice, as %s and %s", p.Package, m.debs[i-1].Version, p.Version)
		}
	}
	return nil
}

func badInput(format string, args ...any) error {
	return exitcode.With(exitcode.BadInput, fmt.Errorf(format, args...))
}

// filter says whether to read a path, and whether to leave it out later.
func (m *maker) filter(name string) (keep, drop bool) {
	drop = m.exclude.excluded(name)
	if !drop {
		return true, false
	}
	for _, pattern := range m.compose {
		if pattern.MatchString(name) {
			return true, true
		}
	}
	return false, true
}

// unite merges the packages; what two of them ship must be the same.
func (m *maker) unite() error {
	debs := slices.Clone(m.debs)
	// base-files is authoritative for the modes of the directories that
	// every package lists.
	slices.SortStableFunc(debs, func(x, y *deb) int { return cmp.Compare(rank(x), rank(y)) })
	var conflicts []error
	for _, d := range debs {
		for _, e := range d.entries {
			if err := m.add(e); err != nil {
				conflicts = append(conflicts, err)
			}
		}
	}
	if len(conflicts) > 0 {
		return badInput("packages contradict each other:\n%w", errors.Join(conflicts...))
	}
	return nil
}

func rank(d *deb) int {
	if d.Package.Package == "base-files" {
		return 0
	}
	return 1
}

func (m *maker) add(e *entry) error {
	have := m.union[e.path]
	if have == nil {
		m.union[e.path] = e
		return nil
	}
	if have.header.Typeflag == tar.TypeDir && e.header.Typeflag == tar.TypeDir {
		return nil
	}
	if have.same(e) {
		have.dropped = have.dropped && e.dropped
		return nil
	}
	return fmt.Errorf("/%s is %s in %s, and %s in %s", e.path, have.describe(), have.owner, e.describe(), e.owner)
}

func (e *entry) same(o *entry) bool {
	h, g := &e.header, &o.header
	return h.Typeflag == g.Typeflag && h.Mode == g.Mode && h.Uid == g.Uid && h.Gid == g.Gid &&
		h.Linkname == g.Linkname && e.sum == o.sum && e.link == o.link
}

func (e *entry) describe() string {
	switch e.header.Typeflag {
	case tar.TypeDir:
		return "a directory"
	case tar.TypeSymlink:
		return "a link to " + e.header.Linkname
	case tar.TypeLink:
		return "a hard link to /" + e.link
	}
	return fmt.Sprintf("a file (mode %04o, owner %d:%d, sha256 %x…)", e.header.Mode, e.header.Uid, e.header.Gid, e.sum[:6])
}

func checkDest(what, dest string) error {
	if dest == "" || path.Clean("/"+dest) != "/"+dest {
		return badInput("%s %q: want a clean path relative to the root", what, dest)
	}
	return nil
}

// addComposed makes the files that are put together from others.
func (m *maker) addComposed(spool *os.File) error {
	offset := int64(0)
	for _, dest := range slices.Sorted(maps.Keys(m.compose)) {
		if err := checkDest("file to compose", dest); err != nil {
			return err
		}
		e := &entry{path: dest, owner: "the request to compose it", spool: spool, offset: offset}
		e.header = tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}
		sum := sha256.New()
		out := io.MultiWriter(spool, sum)
		for _, name := range slices.Sorted(maps.Keys(m.union)) {
			part := m.union[name]
			if part.header.Typeflag != tar.TypeReg || !m.compose[dest].MatchString(name) {
				continue
			}
			data, err := io.ReadAll(part.content())
			if err == nil {
				if !bytes.HasSuffix(data, []byte("\n")) {
					data = append(data, '\n')
				}
				_, err = out.Write(data)
			}
			if err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("composing /%s: %w", dest, err))
			}
			e.header.Size += int64(len(data))
		}
		if e.header.Size == 0 {
			return badInput("composing /%s: no file of the packages matches %q", dest, m.config.Compose[dest])
		}
		sum.Sum(e.sum[:0])
		offset += e.header.Size
		if err := m.add(e); err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
	}
	return nil
}

func (e *entry) content() io.Reader {
	return io.NewSectionReader(e.spool, e.offset, e.header.Size)
}

func (m *maker) addSymlinks() error {
	links := maps.Clone(m.config.Symlinks)
	if links == nil {
		links = map[string]string{}
	}
	for _, top := range topLinks {
		links[top] = "usr/" + top
	}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if err := checkDest("link", name); err != nil {
			return err
		}
		e := &entry{path: merged(name, tar.TypeSymlink), owner: "the request for this link"}
		e.header = tar.Header{Typeflag: tar.TypeSymlink, Linkname: links[name], Mode: 0o777}
		if err := m.add(e); err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
	}
	for _, top := range topLinks {
		m.directory("usr/" + top)
	}
	return nil
}

// directory makes sure that a directory is there.
func (m *maker) directory(name string) {
	if m.union[name] == nil || m.union[name].dropped {
		m.union[name] = &entry{path: name, header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
	}
}

// finish drops what is left out, adds missing parents, and settles links.
func (m *maker) finish() error {
	if m.config.Status {
		m.directory("var/lib/dpkg")
	}
	for name, e := range m.union {
		if e.dropped {
			delete(m.union, name)
		}
	}
	groups := map[string][]*entry{}
	for _, name := range slices.Sorted(maps.Keys(m.union)) {
		e := m.union[name]
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			m.directory(dir)
			if parent := m.union[dir]; parent.header.Typeflag != tar.TypeDir {
				return badInput("/%s of %s lies below /%s, which is %s in %s", name, e.owner, dir, parent.describe(), parent.owner)
			}
		}
		if e.link != "" {
			groups[e.link] = append(groups[e.link], e)
		}
	}
	// Of the names of one file, the first in the archive must carry its
	// content.
	for _, target := range slices.Sorted(maps.Keys(groups)) {
		names := groups[target]
		file := m.union[target]
		if file == nil || file.header.Typeflag != tar.TypeReg {
			return badInput("/%s of %s is a hard link to /%s, which is not a file in the root", names[0].path, names[0].owner, target)
		}
		names = append(names, file)
		slices.SortFunc(names, func(x, y *entry) int { return cmp.Compare(x.path, y.path) })
		content := *file
		first := names[0]
		content.path, content.owner = first.path, first.owner
		for _, e := range names[1:] {
			*e = entry{path: e.path, owner: e.owner, header: tar.Header{
				Typeflag: tar.TypeLink, Linkname: first.path,
				Mode: content.header.Mode, Uid: content.header.Uid, Gid: content.header.Gid,
			}}
		}
		*first = content
	}
	return nil
}

func (m *maker) writePackages(w io.Writer) error {
	packages := make([]Package, 0, len(m.debs))
	for _, d := range m.debs {
		packages = append(packages, d.Package)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(packages)
}

// status gives the text by which dpkg knows what is installed.
func (m *maker) status() []byte {
	var b bytes.Buffer
	for _, d := range m.debs {
		for line := range strings.Lines(d.control) {
			b.WriteString(line)
			if strings.HasPrefix(line, "Package:") {
				b.WriteString("Status: install ok installed\n")
			}
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}

func (m *maker) writeArchive(w io.Writer) error {
	// The output does not depend on the number of threads, but two are
	// all that an action of one core or more can use.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if m.config.Status {
		const name = "var/lib/dpkg/status"
		if have := m.union[name]; have != nil {
			return badInput("/%s is in %s, and was asked for as well", name, have.owner)
		}
		m.union[name] = &entry{path: name, header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}}
	}
	buffer := make([]byte, 256<<10)
	for _, name := range slices.Sorted(maps.Keys(m.union)) {
		e := m.union[name]
		h := e.header
		h.Name = name
		h.ModTime = m.config.Time
		var content io.Reader
		switch {
		case h.Typeflag == tar.TypeDir:
			h.Name += "/"
		case h.Typeflag == tar.TypeReg && e.spool == nil:
			status := m.status()
			h.Size = int64(len(status))
			content = bytes.NewReader(status)
		case h.Typeflag == tar.TypeReg:
			content = e.content()
		}
		if err := t.WriteHeader(&h); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		if content != nil {
			if _, err := io.CopyBuffer(struct{ io.Writer }{t}, content, buffer); err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

// writeFile writes a file beside its place, and moves it there when all of
// it is on disk.
func writeFile(file string, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing %s: %w", file, err))
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
			err = exitcode.With(exitcode.LocalIO, fmt.Errorf("writing %s: %w", file, err))
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
