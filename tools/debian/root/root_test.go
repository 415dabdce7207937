package root_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/root"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// file is a file of a package under test.
type file struct {
	name    string
	kind    byte
	mode    int64
	content string // or target
	uid     int
}

func dir(name string) file { return file{name: name, kind: tar.TypeDir, mode: 0o755} }
func reg(name, content string) file {
	return file{name: name, kind: tar.TypeReg, mode: 0o644, content: content}
}
func sym(name, target string) file {
	return file{name: name, kind: tar.TypeSymlink, mode: 0o777, content: target}
}
func hard(name, target string) file {
	return file{name: name, kind: tar.TypeLink, mode: 0o755, content: target}
}
func (f file) with(mode int64) file { f.mode = mode; return f }
func (f file) owned(uid int) file   { f.uid = uid; return f }
func control(name, more string) string {
	return fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\n%sDescription: of %s\n", name, more, name)
}

func tarball(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, f := range files {
		h := &tar.Header{Name: "./" + f.name, Typeflag: f.kind, Mode: f.mode, Uid: f.uid, Uname: "someone", ModTime: time.Unix(int64(1000+i), 0)}
		switch f.kind {
		case tar.TypeReg:
			h.Size = int64(len(f.content))
		case tar.TypeSymlink:
			h.Linkname = f.content
		case tar.TypeLink:
			h.Linkname = "./" + f.content
		}
		require.NoError(t, w.WriteHeader(h))
		if f.kind == tar.TypeReg {
			_, err := w.Write([]byte(f.content))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func compress(t *testing.T, ext string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch ext {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		z, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		w = z
	default:
		return data
	}
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// deb writes a package and gives the name of its file.
func deb(t *testing.T, name, ext string, files ...file) string {
	t.Helper()
	return write(t, name, member("debian-binary", []byte("2.0\n")),
		member("control.tar"+ext, compress(t, ext, tarball(t, []file{reg("control", control(name, ""))}))),
		member("data.tar"+ext, compress(t, ext, tarball(t, files))))
}

func write(t *testing.T, name string, members ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".deb")
	require.NoError(t, os.WriteFile(out, []byte("!<arch>\n"+strings.Join(members, "")), 0o644))
	return out
}

func member(name string, data []byte) string {
	s := fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data)) + string(data)
	if len(data)%2 == 1 {
		s += "\n"
	}
	return s
}

// of makes a package for an architecture.
func of(t *testing.T, name, arch string, files ...file) string {
	t.Helper()
	text := strings.ReplaceAll(control(name, ""), "Architecture: all", "Architecture: "+arch)
	return write(t, name, member("debian-binary", []byte("2.0\n")),
		member("control.tar", tarball(t, []file{reg("control", text)})), member("data.tar", tarball(t, files)))
}

func build(t *testing.T, c root.Config) ([]byte, error) {
	t.Helper()
	out := t.TempDir()
	c.Output, c.Packages = filepath.Join(out, "root.tar.zst"), filepath.Join(out, "packages.json")
	if c.Time.IsZero() {
		c.Time = time.Unix(1735689600, 0)
	}
	err := root.Build(t.Context(), c)
	if err != nil {
		left, readErr := os.ReadDir(out)
		require.NoError(t, readErr)
		for _, f := range left {
			require.Equal(t, "packages.json", f.Name(), "something half-written was left behind")
		}
		return nil, err
	}
	data, err := os.ReadFile(c.Output)
	require.NoError(t, err)
	return data, nil
}

// list describes the entries of an archive, one a line.
func list(t *testing.T, data []byte) []string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data))
	require.NoError(t, err)
	defer z.Close()
	var lines []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		require.NoError(t, err)
		require.Equal(t, int64(1735689600), h.ModTime.Unix(), h.Name)
		require.Empty(t, h.Uname+h.Gname, h.Name)
		line := fmt.Sprintf("%04o %d %s", h.Mode, h.Uid, h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			content, err := io.ReadAll(r)
			require.NoError(t, err)
			line += " = " + string(content)
		case tar.TypeSymlink:
			line += " -> " + h.Linkname
		case tar.TypeLink:
			line += " == " + h.Linkname
		}
		lines = append(lines, line)
	}
}

// withTop adds what every root has.
func withTop(lines ...string) []string {
	return append([]string{"0777 0 bin -> usr/bin", "0777 0 lib -> usr/lib", "0777 0 lib64 -> usr/lib64", "0777 0 sbin -> usr/sbin"}, lines...)
}

func TestUnion(t *testing.T) {
	data, err := build(t, root.Config{Debs: []string{
		deb(t, "zz", ".gz", dir("usr"), dir("usr/bin"), reg("usr/bin/su", "su").with(0o4755), dir("var"), dir("var/mail").with(0o755)),
		deb(t, "base-files", ".zst", sym("bin", "usr/bin"), dir("usr"), dir("tmp").with(0o1777), dir("var"), dir("var/mail").with(0o2775).owned(8)),
		deb(t, "old", "", dir("bin"), reg("bin/tool", "tool\n").with(0o755), dir("lib"), reg("lib/x", "x")),
	}})
	require.NoError(t, err)
	require.Equal(t, []string{
		"0777 0 bin -> usr/bin", "0777 0 lib -> usr/lib", "0777 0 lib64 -> usr/lib64", "0777 0 sbin -> usr/sbin",
		"1777 0 tmp/",
		"0755 0 usr/",
		"0755 0 usr/bin/",
		"4755 0 usr/bin/su = su",
		"0755 0 usr/bin/tool = tool\n",
		"0755 0 usr/lib/",
		"0644 0 usr/lib/x = x",
		"0755 0 usr/lib64/",
		"0755 0 usr/sbin/",
		"0755 0 var/",
		"2775 8 var/mail/",
	}, list(t, data))
}

func TestSameInputsGiveTheSameBytes(t *testing.T) {
	big := strings.Repeat("0123456789abcdef, not all the same\n", 200_000)
	files := func(n string) []file {
		return []file{dir("usr"), dir("usr/share"), dir("usr/share/" + n), reg("usr/share/"+n+"/data", n+big), reg("usr/share/"+n+"/small", n)}
	}
	a, b, c := deb(t, "a", ".gz", files("a")...), deb(t, "b", ".zst", files("b")...), deb(t, "c", "", files("c")...)
	first, err := build(t, root.Config{Debs: []string{a, b, c}, Status: true})
	require.NoError(t, err)
	for range 3 {
		// Neither the order of the packages nor who reads what matters.
		again, err := build(t, root.Config{Debs: []string{c, a, b}, Status: true})
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(first), sha256.Sum256(again))
	}
}

func TestExcludeComposeAndLinks(t *testing.T) {
	data, err := build(t, root.Config{
		Debs: []string{deb(t, "certs", ".gz",
			reg("usr/share/doc/certs/copyright", "c"), reg("usr/share/doc/certs/changelog.gz", "l"),
			reg("usr/share/ca/b.crt", "B\n"), reg("usr/share/ca/a.crt", "A"), reg("usr/share/ca/sub/c.crt", "C\n"),
			reg("usr/bin/mawk", "m").with(0o755))},
		Exclude:  []string{"usr/share/doc/**", "!usr/share/doc/*/copyright", "usr/share/ca/**"},
		Compose:  map[string]string{"etc/ssl/all.crt": "usr/share/ca/*.crt"},
		Symlinks: map[string]string{"bin/awk": "mawk", "etc/link": "ssl"},
	})
	require.NoError(t, err)
	require.Equal(t, withTop(
		"0755 0 etc/", "0777 0 etc/link -> ssl", "0755 0 etc/ssl/", "0644 0 etc/ssl/all.crt = A\nB\n",
		"0755 0 usr/", "0755 0 usr/bin/", "0777 0 usr/bin/awk -> mawk", "0755 0 usr/bin/mawk = m",
		"0755 0 usr/lib/", "0755 0 usr/lib64/", "0755 0 usr/sbin/",
		"0755 0 usr/share/", "0755 0 usr/share/doc/", "0755 0 usr/share/doc/certs/", "0644 0 usr/share/doc/certs/copyright = c",
	), sortTop(list(t, data)))
}

// sortTop moves the links at the top to the front, where withTop has them.
func sortTop(lines []string) []string {
	var top, rest []string
	for _, l := range lines {
		if strings.Contains(l, " -> usr/") {
			top = append(top, l)
		} else {
			rest = append(rest, l)
		}
	}
	return append(top, rest...)
}

func TestHardLinks(t *testing.T) {
	data, err := build(t, root.Config{Debs: []string{deb(t, "perl", ".gz",
		reg("usr/bin/perl5", "perl").with(0o755), hard("usr/bin/perl", "usr/bin/perl5"), hard("usr/bin/zperl", "usr/bin/perl5"))}})
	require.NoError(t, err)
	require.Equal(t, []string{
		"0755 0 usr/bin/perl = perl", "0755 0 usr/bin/perl5 == usr/bin/perl", "0755 0 usr/bin/zperl == usr/bin/perl",
	}, grep(list(t, data), "perl"))

	_, err = build(t, root.Config{Exclude: []string{"usr/bin/perl5"}, Debs: []string{deb(t, "perl", ".gz",
		reg("usr/bin/perl5", "perl").with(0o755), hard("usr/bin/perl", "usr/bin/perl5"))}})
	require.EqualError(t, err, "/usr/bin/perl of perl is a hard link to /usr/bin/perl5, which is not a file in the root")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func grep(lines []string, what string) []string {
	var found []string
	for _, l := range lines {
		if strings.Contains(l, what) {
			found = append(found, l)
		}
	}
	return found
}

func TestStatusAndPackages(t *testing.T) {
	out := t.TempDir()
	c := root.Config{Debs: []string{"testdata/tiny-xz.deb", deb(t, "aa", ".gz", reg("etc/aa", "a"))}, Status: true,
		Output: filepath.Join(out, "root.tar.zst"), Packages: filepath.Join(out, "packages.json"), Time: time.Unix(1735689600, 0)}
	require.NoError(t, root.Build(t.Context(), c))
	data, err := os.ReadFile(c.Output)
	require.NoError(t, err)
	lines := list(t, data)
	require.Contains(t, lines, "0755 0 usr/bin/tiny = #!/bin/sh\necho tiny\n")
	status := grep(lines, "var/lib/dpkg/status")
	require.Len(t, status, 1)
	require.True(t, strings.HasPrefix(status[0],
		"0644 0 var/lib/dpkg/status = Package: aa\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nDescription: of aa\n\n"+
			"Package: tiny\nStatus: install ok installed\nVersion: 1-2\n"), status[0])

	var packages []root.Package
	text, err := os.ReadFile(c.Packages)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &packages))
	tiny, err := os.ReadFile("testdata/tiny-xz.deb")
	require.NoError(t, err)
	sum := sha256.Sum256(tiny)
	require.Equal(t, root.Package{Package: "tiny", Version: "1-2", Arch: "amd64", Source: "small", SourceVersion: "1-1",
		SHA256: hex.EncodeToString(sum[:])}, packages[1])
	require.Equal(t, "aa", packages[0].Source)
}

func TestConflicts(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b file
		want string // "" if both may be there
	}{
		"same file":          {reg("etc/x", "1"), reg("etc/x", "1"), ""},
		"same directory":     {dir("etc/x"), dir("etc/x").with(0o700), ""},
		"same link":          {sym("etc/x", "y"), sym("etc/x", "y"), ""},
		"other content":      {reg("etc/x", "1"), reg("etc/x", "2"), "/etc/x is a file (mode 0644, owner 0:0, sha256 6b86b273ff34…) in a, and a file (mode 0644, owner 0:0, sha256 d4735e3a265e…) in b"},
		"other mode":         {reg("etc/x", "1"), reg("etc/x", "1").with(0o755), "/etc/x is a file (mode 0644, owner 0:0, sha256 6b86b273ff34…) in a, and a file (mode 0755, owner 0:0, sha256 6b86b273ff34…) in b"},
		"other owner":        {reg("etc/x", "1"), reg("etc/x", "1").owned(7), "/etc/x is a file (mode 0644, owner 0:0, sha256 6b86b273ff34…) in a, and a file (mode 0644, owner 7:0, sha256 6b86b273ff34…) in b"},
		"other target":       {sym("etc/x", "y"), sym("etc/x", "z"), "/etc/x is a link to y in a, and a link to z in b"},
		"file and directory": {reg("etc/x", "1"), dir("etc/x"), "/etc/x is a file (mode 0644, owner 0:0, sha256 6b86b273ff34…) in a, and a directory in b"},
		"merged directories": {reg("bin/x", "1"), reg("usr/bin/x", "2"), "/usr/bin/x is a file (mode 0644, owner 0:0, sha256 6b86b273ff34…) in a, and a file (mode 0644, owner 0:0, sha256 d4735e3a265e…) in b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build(t, root.Config{Debs: []string{deb(t, "b", ".gz", tc.b), deb(t, "a", ".gz", tc.a)}})
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, "packages contradict each other:\n"+tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestBadInput(t *testing.T) {
	good := deb(t, "good", ".gz", reg("etc/x", "x"))
	truncated, err := os.ReadFile("testdata/tiny-xz.deb")
	require.NoError(t, err)
	short := write(t, "short")
	require.NoError(t, os.WriteFile(short, truncated[:len(truncated)-40], 0o644))
	text := write(t, "text")
	require.NoError(t, os.WriteFile(text, []byte("<html>log in</html>"), 0o644))
	data := member("data.tar", tarball(t, nil))
	for name, tc := range map[string]struct {
		config root.Config
		want   string
		code   int
	}{
		"no such file":        {root.Config{Debs: []string{"/nonexistent/x.deb"}}, "opening a package: open /nonexistent/x.deb", exitcode.LocalIO},
		"not a package":       {root.Config{Debs: []string{text}}, "text.deb: not a Debian package: no ar archive", exitcode.BadInput},
		"cut short":           {root.Config{Debs: []string{short}}, "short.deb: data.tar.xz: unexpected EOF", exitcode.BadInput},
		"without control":     {root.Config{Debs: []string{write(t, "x", data)}}, "control or data is missing", exitcode.BadInput},
		"unknown compression": {root.Config{Debs: []string{write(t, "x", member("data.tar.br", nil))}}, `data.tar.br: unknown compression ".br"`, exitcode.BadInput},
		"a device":            {root.Config{Debs: []string{deb(t, "dev", ".gz", file{name: "dev/null", kind: tar.TypeChar, mode: 0o666})}}, `dev/null: files of type '3' are not supported`, exitcode.BadInput},
		"given twice":         {root.Config{Debs: []string{good, good}}, "package good is given twice, as 1 and 1", exitcode.BadInput},
		"below a link":        {root.Config{Debs: []string{deb(t, "l", ".gz", sym("etc/a", "b"), reg("etc/a/c", "c"))}}, "/etc/a/c of l lies below /etc/a, which is a link to b in l", exitcode.BadInput},
		"link over a file":    {root.Config{Debs: []string{good}, Symlinks: map[string]string{"etc/x": "y"}}, "in good, and a link to y in the request for this link", exitcode.BadInput},
		"link outside":        {root.Config{Debs: []string{good}, Symlinks: map[string]string{"../x": "y"}}, `link "../x": want a clean path relative to the root`, exitcode.BadInput},
		"nothing to compose":  {root.Config{Debs: []string{good}, Compose: map[string]string{"etc/y": "etc/*.crt"}}, `composing /etc/y: no file of the packages matches "etc/*.crt"`, exitcode.BadInput},
		"absolute pattern":    {root.Config{Debs: []string{good}, Exclude: []string{"/etc/**"}}, `pattern "/etc/**": want a path relative to the root`, exitcode.BadInput},
		"status is there":     {root.Config{Debs: []string{deb(t, "s", ".gz", reg("var/lib/dpkg/status", ""))}, Status: true}, "/var/lib/dpkg/status is in s, and was asked for as well", exitcode.BadInput},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build(t, tc.config)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err), "%v", err)
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := t.TempDir()
	err := root.Build(ctx, root.Config{Debs: []string{"testdata/tiny-xz.deb"}, Output: filepath.Join(out, "r"), Packages: filepath.Join(out, "p")})
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Debian marks libraries "Multi-Arch: same" when they can be installed for several
// architectures at a time: what they share is the same in all of them.
func TestPackagesOfSeveralArchitectures(t *testing.T) {
	header := reg("usr/include/z.h", "the same")
	data, err := build(t, root.Config{Debs: []string{
		of(t, "zlib1g-dev", "s390x", header, reg("usr/lib/s390x-linux-gnu/libz.a", "big")),
		of(t, "zlib1g-dev", "amd64", header, reg("usr/lib/x86_64-linux-gnu/libz.a", "little")),
	}})
	require.NoError(t, err)
	listed := strings.Join(list(t, data), "\n")
	require.Contains(t, listed, "usr/lib/s390x-linux-gnu/libz.a")
	require.Contains(t, listed, "usr/lib/x86_64-linux-gnu/libz.a")

	_, err = build(t, root.Config{Debs: []string{
		of(t, "zlib1g-dev", "s390x", header), of(t, "zlib1g-dev", "amd64", reg("usr/include/z.h", "another")),
	}})
	require.ErrorContains(t, err, "packages contradict each other")
}
