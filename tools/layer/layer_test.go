package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

func write(t *testing.T, dir, name, content string, mode fs.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(content), mode))
	require.NoError(t, os.Chmod(p, mode))
	return p
}

func small(t *testing.T) []layer.Entry {
	dir := t.TempDir()
	return []layer.Entry{
		{Path: "opt/kata/bin/qemu", Mode: 0o755, Source: write(t, dir, "b", "elf", 0o600)},
		{Path: "opt/kata/bin/kvm", Type: layer.Symlink, Target: "qemu"},
		{Path: "opt/kata/share", Type: layer.Dir, Mode: 0o755},
		{Path: "opt/kata-x", Mode: 0o644, Source: write(t, dir, "a", "", 0o600)},
	}
}

// large gives entries of several chunks: text that compresses, and noise
// that does not and so tests that frames never outgrow their place.
func large(t *testing.T) []layer.Entry {
	dir := t.TempDir()
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 17<<20)
	_, _ = r.Read(noise)
	words := strings.Repeat("the quick brown fox jumps over the lazy dog ", 1<<10)
	var text strings.Builder
	for i := 0; text.Len() < 20<<20; i++ {
		text.WriteString(words[:1+int(noise[i])*100])
		text.Write(noise[i*16 : i*16+16])
	}
	return []layer.Entry{
		{Path: "noise", Mode: 0o644, Source: write(t, dir, "noise", string(noise), 0o644)},
		{Path: "text", Mode: 0o644, Source: write(t, dir, "text", text.String(), 0o644)},
	}
}

func pack(t *testing.T, entries []layer.Entry) ([]byte, *layer.Result) {
	t.Helper()
	var buf bytes.Buffer
	res, err := layer.Write(context.Background(), &buf, entries)
	require.NoError(t, err)
	require.EqualValues(t, buf.Len(), res.Size)
	return buf.Bytes(), res
}

func TestGolden(t *testing.T) {
	_, res := pack(t, small(t))
	// The tar's digest never changes. The layer's changes only with the
	// zstd library, and then that of every published layer does: say so
	// where you change it.
	require.Equal(t, "sha256:4d18509bdfd9bf57ca0205f1bc313958bfb7967564e1c191e2d8c0b1a92e5cc6", res.DiffID)
	require.Equal(t, "sha256:665273e13496d60629efa6506c1090d299913a60d5df5d32111fed37c5bffb07", res.Digest)
	require.Equal(t, []layer.File{
		{Path: "opt", Type: layer.Dir, Mode: 0o755},
		{Path: "opt/kata", Type: layer.Dir, Mode: 0o755},
		{Path: "opt/kata-x", Mode: 0o644, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{Path: "opt/kata/bin", Type: layer.Dir, Mode: 0o755},
		{Path: "opt/kata/bin/kvm", Type: layer.Symlink, Mode: 0o777, Target: "qemu"},
		{Path: "opt/kata/bin/qemu", Mode: 0o755, Size: 3, SHA256: "780d84b20d7ae7e6292919399348bdbf96025270136198083fc8a4da398b5ca9"},
		{Path: "opt/kata/share", Type: layer.Dir, Mode: 0o755},
	}, res.Files)
}

func TestHeaders(t *testing.T) {
	entries := small(t)
	entries[0].Xattrs = map[string]string{"user.kiln": "yes"}
	long := strings.Repeat("long/", 60) + "name"
	entries = append(entries, layer.Entry{Path: long, Mode: 0o644, Source: entries[0].Source})
	packed, _ := pack(t, entries)
	headers, err := layer.List(context.Background(), bytes.NewReader(packed))
	require.NoError(t, err)
	names := make(map[string]bool)
	for _, h := range headers {
		require.False(t, names[h.Name], "%s is there twice", h.Name)
		names[h.Name] = true
		require.Zero(t, h.ModTime.Unix(), h.Name)
		require.Zero(t, h.Uid, h.Name)
		require.Zero(t, h.Gid, h.Name)
		require.Empty(t, h.Uname, h.Name)
		require.Empty(t, h.Gname, h.Name)
		if h.Name == "opt/kata/bin/qemu" {
			require.Equal(t, "yes", h.PAXRecords["SCHILY.xattr.user.kiln"])
		} else {
			require.NotContains(t, h.PAXRecords, "SCHILY.xattr.user.kiln")
		}
	}
	require.True(t, names[long])
	require.True(t, names["opt/"])
}

func TestNothingButContentCounts(t *testing.T) {
	entries := small(t)
	first, want := pack(t, entries)

	slices.Reverse(entries)
	for i := range entries {
		if s := entries[i].Source; s != "" {
			require.NoError(t, os.Chtimes(s, time.Unix(1, 2), time.Unix(3, 4)))
			require.NoError(t, os.Chmod(s, 0o444))
		}
	}
	second, got := pack(t, entries)
	require.Equal(t, want, got)
	require.Equal(t, first, second)
}

func TestCPUsDoNotCount(t *testing.T) {
	entries := large(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	first, _ := pack(t, entries)
	for _, cpus := range []int{2, 4, 16} {
		runtime.GOMAXPROCS(cpus)
		next, _ := pack(t, entries)
		require.True(t, bytes.Equal(first, next), "GOMAXPROCS=%d gives other bytes", cpus)
	}
}

func TestOthersCanReadIt(t *testing.T) {
	entries := large(t)
	packed, res := pack(t, entries)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed)), nil
	})
	require.NoError(t, err)
	diffID, err := l.DiffID()
	require.NoError(t, err)
	require.Equal(t, res.DiffID, diffID.String())
	digest, err := l.Digest()
	require.NoError(t, err)
	require.Equal(t, v1.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(res.Digest, "sha256:")}, digest)
}

func TestWriteFileThenExtract(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "tree/bin/tool", "#!", 0o700)
	write(t, dir, "tree/share/data", "data", 0o640)
	require.NoError(t, os.Symlink("../bin/tool", filepath.Join(dir, "tree/share/tool")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tree/empty"), 0o700))
	entries, err := layer.Walk(filepath.Join(dir, "tree"), "opt/kata")
	require.NoError(t, err)

	name := filepath.Join(dir, "out.tar.zst")
	res, err := layer.WriteFile(context.Background(), name, entries)
	require.NoError(t, err)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, res.Size, info.Size())
	require.Equal(t, fs.FileMode(0o644), info.Mode())

	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	out := t.TempDir()
	require.NoError(t, layer.Extract(context.Background(), f, out))
	again, err := layer.Walk(out, "")
	require.NoError(t, err)
	var paths []string
	for _, e := range again {
		paths = append(paths, e.Type.String()+" "+e.Path+" "+e.Mode.String()+" "+e.Target)
	}
	require.Equal(t, []string{
		"dir opt -rwxr-xr-x ",
		"dir opt/kata -rwxr-xr-x ",
		"dir opt/kata/bin -rwxr-xr-x ",
		"file opt/kata/bin/tool -rwxr-xr-x ",
		"dir opt/kata/empty -rwxr-xr-x ",
		"dir opt/kata/share -rwxr-xr-x ",
		"file opt/kata/share/data -rw-r--r-- ",
		"symlink opt/kata/share/tool ---------- ../bin/tool",
	}, paths)
	stat, err := os.Stat(filepath.Join(out, "opt/kata"))
	require.NoError(t, err)
	require.Zero(t, stat.ModTime().Unix())
}

func TestBadEntries(t *testing.T) {
	src := write(t, t.TempDir(), "src", "x", 0o644)
	file := func(p string) layer.Entry { return layer.Entry{Path: p, Mode: 0o644, Source: src} }
	other := file("a/b")
	other.Source = "/elsewhere"
	for name, tc := range map[string]struct {
		entries []layer.Entry
		want    []string
	}{
		"absolute":                {[]layer.Entry{file("/a")}, []string{`"/a" is absolute`, src}},
		"leaves":                  {[]layer.Entry{file("../a")}, []string{`"../a" leaves the layer`}},
		"leaves later":            {[]layer.Entry{file("a/../../b")}, []string{`"a/../../b" leaves the layer`}},
		"not clean":               {[]layer.Entry{file("a//b")}, []string{`"a//b" is not clean: write "a/b"`}},
		"empty":                   {[]layer.Entry{file("")}, []string{"empty"}},
		"newline":                 {[]layer.Entry{file("a\nb")}, []string{"newline"}},
		"two sources":             {[]layer.Entry{file("a/b"), other}, []string{"a/b comes from two sources", src, "/elsewhere"}},
		"below a file":            {[]layer.Entry{file("a"), file("a/b/c")}, []string{"a/b/c", "lies below a"}},
		"below a symlink":         {[]layer.Entry{{Path: "a", Type: layer.Symlink, Target: "b"}, file("a/c")}, []string{"a/c", "lies below a, which is a symlink to b"}},
		"symlink to nothing":      {[]layer.Entry{{Path: "a", Type: layer.Symlink}}, []string{"symlink a has no target"}},
		"setuid":                  {[]layer.Entry{{Path: "a", Mode: 0o755 | fs.ModeSetuid, Source: src}}, []string{"a has mode urwxr-xr-x"}},
		"all faults are reported": {[]layer.Entry{file("/a"), file("../b")}, []string{`"/a"`, `"../b"`}},
		"source is a directory":   {[]layer.Entry{{Path: "a", Source: filepath.Dir(src)}}, []string{"a is to be a file", "not a regular file"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.tar.zst")
			_, err := layer.WriteFile(context.Background(), out, tc.entries)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			requireEmpty(t, filepath.Dir(out))
		})
	}
}

func TestWalkRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(t *testing.T, dir string)
		want string
	}{
		"setuid": {func(t *testing.T, dir string) {
			p := write(t, dir, "bin/su", "x", 0o755)
			require.NoError(t, os.Chmod(p, 0o755|fs.ModeSetuid))
		}, "opt/bin/su has mode urwxr-xr-x"},
		"fifo": {func(t *testing.T, dir string) {
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
		}, "opt/pipe is neither a file, a directory nor a symlink"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tc.make(t, dir)
			_, err := layer.Walk(dir, "opt")
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCancelLeavesNothing(t *testing.T) {
	entries := large(t)
	cause := errors.New("the user changed their mind")

	for name, after := range map[string]time.Duration{"at once": 0, "under way": 30 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			if after == 0 {
				cancel(cause)
			} else {
				time.AfterFunc(after, func() { cancel(cause) })
			}
			dir := t.TempDir()
			var err error
			// Packing is fast: repeat it until the cancellation hits.
			for err == nil {
				_, err = layer.WriteFile(ctx, filepath.Join(dir, "out.tar.zst"), entries)
				os.Remove(filepath.Join(dir, "out.tar.zst"))
			}
			require.ErrorIs(t, err, cause)
			requireEmpty(t, dir)
		})
	}
}

// fullAfter is a disk that fills up.
type fullAfter struct{ left int }

func (f *fullAfter) Write(p []byte) (int, error) {
	if f.left < len(p) {
		return f.left, &fs.PathError{Op: "write", Path: "layer", Err: syscall.ENOSPC}
	}
	f.left -= len(p)
	return len(p), nil
}

func TestNoSpace(t *testing.T) {
	entries := large(t)
	for _, room := range []int{0, 1 << 20, 15 << 20} {
		_, err := layer.Write(context.Background(), &fullAfter{left: room}, entries)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "no space left on device")
		require.Equal(t, 1, strings.Count(err.Error(), "no space left"))
		require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	}
}

func TestMissingSource(t *testing.T) {
	dir := t.TempDir()
	_, err := layer.WriteFile(context.Background(), filepath.Join(dir, "out"), []layer.Entry{{Path: "a", Source: "/nowhere/at/all"}})
	require.ErrorContains(t, err, "/nowhere/at/all")
	require.ErrorContains(t, err, "content of a")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	requireEmpty(t, dir)
}

func TestFailureKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	name := write(t, dir, "out", "old", 0o644)
	_, err := layer.WriteFile(context.Background(), name, []layer.Entry{{Path: "a", Source: "/nowhere/at/all"}})
	require.Error(t, err)
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			content = []byte("content of " + h.Name)
			h.Size = int64(len(content))
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func TestExtractStaysInside(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"parent path":       {{Name: "../evil", Typeflag: tar.TypeReg}},
		"absolute path":     {{Name: "/evil", Typeflag: tar.TypeReg}},
		"absolute symlink":  {{Name: "a", Linkname: "/OUTSIDE", Typeflag: tar.TypeSymlink}, {Name: "a/evil", Typeflag: tar.TypeReg}},
		"relative symlink":  {{Name: "a", Linkname: "../outside", Typeflag: tar.TypeSymlink}, {Name: "a/evil", Typeflag: tar.TypeReg}},
		"file over symlink": {{Name: "a", Linkname: "../outside/evil", Typeflag: tar.TypeSymlink}, {Name: "a", Typeflag: tar.TypeReg}},
		"hard link":         {{Name: "a", Linkname: "../outside/there", Typeflag: tar.TypeLink}},
		"dir below symlink": {{Name: "a", Linkname: "../outside", Typeflag: tar.TypeSymlink}, {Name: "a/evil", Typeflag: tar.TypeDir}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			outside := filepath.Join(dir, "outside")
			write(t, dir, "outside/there", "there", 0o644)
			inside := filepath.Join(dir, "inside")
			require.NoError(t, os.Mkdir(inside, 0o755))
			for i := range headers {
				headers[i].Linkname = strings.Replace(headers[i].Linkname, "/OUTSIDE", outside, 1)
			}
			err := layer.Extract(context.Background(), bytes.NewReader(tarOf(t, headers...)), inside)
			require.ErrorContains(t, err, headers[len(headers)-1].Name)
			require.Equal(t, exitcode.Unverified, exitcode.Of(err))
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Len(t, left, 1, "something was written outside")
			_, err = os.Lstat(filepath.Join(dir, "evil"))
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestExtractOrdinaryRoot(t *testing.T) {
	stamp := time.Unix(1700000000, 0)
	dir := t.TempDir()
	require.NoError(t, layer.Extract(context.Background(), bytes.NewReader(tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir},
		tar.Header{Name: "./bin", Linkname: "usr/bin", Typeflag: tar.TypeSymlink},
		tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar},
		tar.Header{Name: "./usr/lib/late", Typeflag: tar.TypeReg, Mode: 0o444},
		tar.Header{Name: "./usr/", Typeflag: tar.TypeDir, ModTime: stamp, Mode: 0o555},
		tar.Header{Name: "./usr/bin/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./bin/hard", Linkname: "./usr/bin/sh", Typeflag: tar.TypeLink},
		tar.Header{Name: "./usr/bin/sh", Typeflag: tar.TypeReg, ModTime: stamp, Uid: 7, Gid: 8},
	)), dir))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "usr"), 0o755) })
	got, err := os.ReadFile(filepath.Join(dir, "bin/hard"))
	require.NoError(t, err)
	require.Equal(t, "content of ./usr/bin/sh", string(got))
	for _, p := range []string{"usr", "usr/bin/sh"} {
		info, err := os.Stat(filepath.Join(dir, p))
		require.NoError(t, err)
		require.True(t, stamp.Equal(info.ModTime()), p)
	}
	info, err := os.Stat(filepath.Join(dir, "usr"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o555), info.Mode().Perm())
	_, err = os.Lstat(filepath.Join(dir, "dev/null"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestExtractRefuses(t *testing.T) {
	packed, _ := pack(t, small(t))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	flipped := slices.Clone(packed)
	flipped[len(flipped)-3] ^= 1
	for name, tc := range map[string]struct {
		ctx  context.Context
		in   []byte
		want int
	}{
		"torn off":  {context.Background(), packed[:len(packed)/2], exitcode.Unverified},
		"no tar":    {context.Background(), []byte(strings.Repeat("no tar", 500)), exitcode.Unverified},
		"twice":     {context.Background(), tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "a", Typeflag: tar.TypeReg}), exitcode.Unverified},
		"cancelled": {cancelled, packed, exitcode.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			err := layer.Extract(tc.ctx, bytes.NewReader(tc.in), t.TempDir())
			require.Error(t, err)
			require.Equal(t, tc.want, exitcode.Of(err), err)
		})
	}
	_, err := layer.List(context.Background(), bytes.NewReader(flipped))
	require.Equal(t, exitcode.Unverified, exitcode.Of(err), err)
}
