// Package lock reads and writes debian.lock, the list of every file that
// Kiln takes from the Debian archive, and sets.json, the list that a human
// writes and from which the lock is made.
//
// The lock is one line a file, so that a diff of it reads as a list of
// changed packages, and so that Starlark can read it by splitting at spaces.
package lock

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// ArchSource is the architecture column of a file of a source package.
const ArchSource = "source"

// fieldNames are the columns of an entry, in their order in the file.
var fieldNames = []string{
	"sets", "suite", "package", "version", "architecture", "source", "source-version", "size", "sha256", "path",
}

// Header is the comment at the top of the lock that is committed.
const Header = `The Debian packages that Kiln builds from, one line a file. Made from sets.json; do not edit.
Renew: bazel run //tools/debian:update
snapshot <suite> <time>: when snapshot.debian.org has all files of that suite that stand below`

// Entry is one file of the archive.
type Entry struct {
	// Sets are the names of the package sets that hold the file, sorted.
	Sets []string
	// Suite is the release that the package was taken from. Updates of a
	// release are listed under the release itself.
	Suite         string
	Package       string
	Version       string
	Arch          string
	Source        string
	SourceVersion string
	Size          int64
	SHA256        string
	// Path is relative to the root of the archive (pool/main/...).
	Path string
	// Line is where the entry stands in the file it was read from.
	Line int
}

// Key names what an entry is, without its version.
func (e Entry) Key() string {
	key := e.Suite + " " + e.Package + " " + e.Arch
	if e.Arch == ArchSource {
		// A source package is several files, told apart by what
		// follows the version in their name.
		key += " " + Role(e.Path)
	}
	return key
}

// Role is the part that a file plays in a source package: "dsc", "orig",
// "orig-<component>", "debian", or "diff" for the old format. Detached
// signatures have the role of what they sign with ".asc" after it.
func Role(file string) string {
	base := path.Base(file)
	suffix := ""
	if s, ok := strings.CutSuffix(base, ".asc"); ok {
		base, suffix = s, ".asc"
	}
	switch {
	case strings.HasSuffix(base, ".dsc"):
		return "dsc" + suffix
	case strings.HasSuffix(base, ".diff.gz"):
		return "diff" + suffix
	}
	stem, _, ok := cutLast(base, ".tar.")
	if !ok {
		return base + suffix
	}
	if _, last, ok := cutLast(stem, "."); ok {
		if last == "debian" || last == "orig" || strings.HasPrefix(last, "orig-") {
			return last + suffix
		}
	}
	// A native source package has one tarball and no Debian part.
	return "orig" + suffix
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Lock is the content of a lock file.
type Lock struct {
	// Header is the comment at its top, without comment signs.
	Header string
	// Snapshots maps a suite to the timestamp (20060102T150405Z) under
	// which snapshot.debian.org has its files.
	Snapshots map[string]string
	Entries   []Entry
}

// InSet gives the entries of one set.
func (l *Lock) InSet(set string) []Entry {
	var entries []Entry
	for _, e := range l.Entries {
		if slices.Contains(e.Sets, set) {
			entries = append(entries, e)
		}
	}
	return entries
}

// Suites gives the names of all suites that the lock takes files from.
func (l *Lock) Suites() []string {
	var suites []string
	for _, e := range l.Entries {
		if !slices.Contains(suites, e.Suite) {
			suites = append(suites, e.Suite)
		}
	}
	slices.Sort(suites)
	return suites
}

func badInput(format string, args ...any) error {
	return exitcode.With(exitcode.BadInput, fmt.Errorf(format, args...))
}

// Read reads a lock file.
func Read(file string) (*Lock, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, badInput("reading the lock: %w; write it with `bazel run //tools/debian:update`", err)
	}
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the lock: %w", err))
	}
	return Parse(file, bytes.NewReader(data))
}

// Parse reads a lock. Errors name the file and the line.
func Parse(name string, r io.Reader) (*Lock, error) {
	l := &Lock{Snapshots: map[string]string{}}
	var header []string
	seen := map[string]int{}
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Text()
		switch {
		case strings.TrimSpace(line) == "":
			continue
		case strings.HasPrefix(line, "#"):
			header = append(header, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
			continue
		case strings.HasPrefix(line, "snapshot "):
			fields := strings.Fields(line)
			if len(fields) != 3 {
				return nil, badInput("%s:%d: want `snapshot <suite> <time>`, got %q", name, n, line)
			}
			l.Snapshots[fields[1]] = fields[2]
			continue
		}
		e, err := parseEntry(line)
		if err != nil {
			return nil, badInput("%s:%d: %w", name, n, err)
		}
		e.Line = n
		id := e.Suite + " " + e.Path
		if before, ok := seen[id]; ok {
			return nil, badInput("%s:%d: %s is listed already in line %d", name, n, e.Path, before)
		}
		seen[id] = n
		l.Entries = append(l.Entries, e)
	}
	if err := scanner.Err(); err != nil {
		return nil, badInput("%s: %w", name, err)
	}
	l.Header = strings.Join(header, "\n")
	return l, nil
}

func parseEntry(line string) (Entry, error) {
	fields := strings.Split(line, " ")
	if len(fields) != len(fieldNames) {
		return Entry{}, fmt.Errorf("want %d fields (%s) separated by single spaces, got %d",
			len(fieldNames), strings.Join(fieldNames, " "), len(fields))
	}
	for i, f := range fields {
		if f == "" {
			return Entry{}, fmt.Errorf("field %d (%s) is empty", i+1, fieldNames[i])
		}
	}
	size, err := strconv.ParseInt(fields[7], 10, 64)
	if err != nil || size <= 0 {
		return Entry{}, fmt.Errorf("size %q is not a positive number of bytes", fields[7])
	}
	if sum, err := hex.DecodeString(fields[8]); err != nil || len(sum) != 32 || strings.ToLower(fields[8]) != fields[8] {
		return Entry{}, fmt.Errorf("sha256 %q is not 64 lower-case hexadecimal digits", fields[8])
	}
	if p := fields[9]; path.Clean(p) != p || !strings.HasPrefix(p, "pool/") {
		return Entry{}, fmt.Errorf("path %q is not a clean path below pool/", p)
	}
	return Entry{
		Sets:          strings.Split(fields[0], ","),
		Suite:         fields[1],
		Package:       fields[2],
		Version:       fields[3],
		Arch:          fields[4],
		Source:        fields[5],
		SourceVersion: fields[6],
		Size:          size,
		SHA256:        fields[8],
		Path:          fields[9],
	}, nil
}

// Format gives the bytes of a lock file: the same for the same entries,
// whatever their order.
func (l *Lock) Format() []byte {
	var b bytes.Buffer
	for line := range strings.SplitSeq(l.Header, "\n") {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	suites := make([]string, 0, len(l.Snapshots))
	for suite := range l.Snapshots {
		suites = append(suites, suite)
	}
	slices.Sort(suites)
	for _, suite := range suites {
		fmt.Fprintf(&b, "snapshot %s %s\n", suite, l.Snapshots[suite])
	}
	entries := slices.Clone(l.Entries)
	slices.SortFunc(entries, func(x, y Entry) int {
		return cmp.Or(cmp.Compare(x.Suite, y.Suite), cmp.Compare(x.Package, y.Package),
			cmp.Compare(x.Arch, y.Arch), cmp.Compare(x.Path, y.Path))
	})
	for _, e := range entries {
		sets := slices.Clone(e.Sets)
		slices.Sort(sets)
		fmt.Fprintf(&b, "%s %s %s %s %s %s %s %d %s %s\n", strings.Join(sets, ","), e.Suite, e.Package, e.Version,
			e.Arch, e.Source, e.SourceVersion, e.Size, e.SHA256, e.Path)
	}
	return b.Bytes()
}

// Write replaces a lock file in one step: whoever reads it sees the old
// content or the new, and never a part.
func (l *Lock) Write(file string) (err error) {
	defer func() {
		if err != nil {
			err = exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the lock %s: %w", file, err))
		}
	}()
	tmp, err := os.CreateTemp(path.Dir(file), "."+path.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(l.Format()); err != nil {
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
