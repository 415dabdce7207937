package build_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/component/assemble"
	"github.com/kiln-build/kiln/tools/component/build"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/component/probe"
	"github.com/kiln-build/kiln/tools/component/sandbox"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

func TestMain(m *testing.M) {
	sandbox.IfChild()
	probe.IfShell()
	os.Exit(m.Run())
}

// roots are dear to pack: one serves all jobs of a test.
func packRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	require.NoError(t, probe.Install(tree))
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "etc/passwd"), []byte("of the root"), 0o644))
	entries, err := layer.Walk(tree, "")
	require.NoError(t, err)
	name := filepath.Join(dir, "root.tar.zst")
	_, err = layer.WriteFile(context.Background(), name, entries)
	require.NoError(t, err)
	return name
}

type fixture struct {
	build.Job
	dir string
	log bytes.Buffer
}

func newFixture(t *testing.T, root, script string) *fixture {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"work", "out", "in"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	f := &fixture{dir: dir}
	f.Job = build.Job{
		Component: assemble.Component{
			Name: "thing", Version: "1.2-3", License: "MIT", Arch: "amd64",
			LayerPath:    filepath.Join(dir, "out/thing.tar.zst"),
			MetadataPath: filepath.Join(dir, "out/thing.component.json"),
		},
		Root:    root,
		Script:  f.input(t, "build.sh", script),
		WorkDir: filepath.Join(dir, "work"),
		Log:     &f.log,
	}
	return f
}

func (f *fixture) input(t *testing.T, name, content string) string {
	t.Helper()
	p := filepath.Join(f.dir, "in", name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

func (f *fixture) requireClean(t *testing.T, sub string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(f.dir, sub))
	require.NoError(t, err)
	require.Empty(t, left)
}

const installs = "write $DESTDIR/opt/kata/bin/thing content\nchmod 755 $DESTDIR/opt/kata/bin/thing\n"

func TestBuild(t *testing.T) {
	root := packRoot(t)
	make := func() *fixture {
		f := newFixture(t, root, installs+`
report $OUT/seen
environment
hostname
directory
read /src/one
read /src/more/deep/two
append /src/one x
append /src/new x
append /src/more/new x
append /build.sh x
write $DESTDIR/opt/kata/locked/inside x
chmod 0 $DESTDIR/opt/kata/locked/inside
chmod 0 $DESTDIR/opt/kata/locked
link $DESTDIR/opt/kata/bin/alias thing
link $DESTDIR/opt/kata/bin/absolute /opt/kata/locked
`)
		tree := filepath.Join(f.dir, "in/tree")
		two := f.input(t, "elsewhere", "second")
		require.NoError(t, os.MkdirAll(filepath.Join(tree, "deep"), 0o755))
		require.NoError(t, os.Symlink(two, filepath.Join(tree, "deep/two")))
		f.Srcs = map[string]string{"one": f.input(t, "one", "first"), "more": tree}
		f.Env = map[string]string{"EXTRA": "yes"}
		f.Outputs = map[string]string{"seen": filepath.Join(f.dir, "out/seen")}
		f.Jobs = 3
		f.Sources = []metadata.Source{{Name: "thing", Version: "1.2"}}
		return f
	}
	f := make()
	require.NoError(t, build.Run(context.Background(), f.Job), f.log.String())
	f.requireClean(t, "work")
	seen, err := os.ReadFile(filepath.Join(f.dir, "out/seen"))
	require.NoError(t, err)
	require.Equal(t, `DESTDIR=/dest
EXTRA=yes
HOME=/build
KILN_JOBS=3
LC_ALL=C
OMP_NUM_THREADS=4
OUT=/out
PATH=/usr/sbin:/usr/bin:/sbin:/bin
SOURCE_DATE_EPOCH=1735689600
TAR_OPTIONS=--no-same-owner
TZ=UTC
VERSION=1.2-3
hostname kiln
directory /build
read /src/one: first
read /src/more/deep/two: second
append /src/one: error: read-only file system
append /src/new: error: read-only file system
append /src/more/new: error: read-only file system
append /build.sh: error: read-only file system
`, string(seen))

	m, err := metadata.ReadFile(f.MetadataPath)
	require.NoError(t, err)
	var paths []string
	for _, file := range m.Files {
		paths = append(paths, file.Type+" "+file.Mode+" "+file.Path)
	}
	require.Equal(t, []string{
		"dir 0755 opt",
		"dir 0755 opt/kata-artifacts",
		"dir 0755 opt/kata-artifacts/opt",
		"dir 0755 opt/kata-artifacts/opt/kata",
		"dir 0755 opt/kata-artifacts/opt/kata/bin",
		"symlink 0777 opt/kata-artifacts/opt/kata/bin/absolute",
		"symlink 0777 opt/kata-artifacts/opt/kata/bin/alias",
		"file 0755 opt/kata-artifacts/opt/kata/bin/thing",
		"dir 0755 opt/kata-artifacts/opt/kata/locked",
		"file 0644 opt/kata-artifacts/opt/kata/locked/inside",
	}, paths)
	require.Equal(t, "thing", m.Name)
	require.Equal(t, f.Sources, m.Sources)

	// Again elsewhere: the same bytes.
	again := make()
	require.NoError(t, build.Run(context.Background(), again.Job), again.log.String())
	for _, name := range []string{"thing.tar.zst", "thing.component.json", "seen"} {
		a, err := os.ReadFile(filepath.Join(f.dir, "out", name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(again.dir, "out", name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(a, b), name)
	}
}

func TestBuildFails(t *testing.T) {
	root := packRoot(t)
	for name, tc := range map[string]struct {
		script string
		change func(t *testing.T, f *fixture)
		want   []string
		code   int
	}{
		"script fails": {
			script: installs + "exit 3\n",
			want:   []string{"building component thing", "build.sh failed: exit status 3"},
			code:   exitcode.Failed,
		},
		"no output": {
			script: installs,
			change: func(_ *testing.T, f *fixture) {
				f.Outputs = map[string]string{"hash": filepath.Join(f.dir, "out/hash")}
			},
			want: []string{"component thing", "did not write its output $OUT/hash"},
			code: exitcode.Failed,
		},
		"output is a way out": {
			script: installs + "link $OUT/hash /etc/passwd\n",
			change: func(_ *testing.T, f *fixture) {
				f.Outputs = map[string]string{"hash": filepath.Join(f.dir, "out/hash")}
			},
			want: []string{"component thing", "output $OUT/hash"},
			code: exitcode.Failed,
		},
		"output is a directory": {
			script: installs + "mkdir $OUT/hash\n",
			change: func(_ *testing.T, f *fixture) {
				f.Outputs = map[string]string{"hash": filepath.Join(f.dir, "out/hash")}
			},
			want: []string{"output $OUT/hash is not a regular file"},
			code: exitcode.Failed,
		},
		"nothing installed": {
			script: "print nothing to do\n",
			want:   []string{"component thing", "$DESTDIR/opt/kata holds no file"},
			code:   exitcode.BadInput,
		},
		"directories only": {
			script: "mkdir $DESTDIR/opt/kata/bin\n",
			want:   []string{"$DESTDIR/opt/kata holds no file"},
			code:   exitcode.BadInput,
		},
		"installed elsewhere": {
			script: installs + "write $DESTDIR/usr/bin/thing x\nwrite $DESTDIR/opt/other x\n",
			want:   []string{"/usr/bin/thing is outside of $DESTDIR/opt/kata", "/opt/other is outside"},
			code:   exitcode.BadInput,
		},
		"setuid": {
			script: installs + "chmod 4755 $DESTDIR/opt/kata/bin/thing\n",
			want:   []string{"opt/kata/bin/thing has mode urwxr-xr-x"},
			code:   exitcode.BadInput,
		},
		"setgid directory": {
			script: installs + "chmod 2755 $DESTDIR/opt/kata/bin\n",
			want:   []string{"opt/kata/bin has mode dgrwxr-xr-x"},
			code:   exitcode.BadInput,
		},
		"fifo": {
			script: installs + "fifo $DESTDIR/opt/kata/pipe\n",
			want:   []string{"opt/kata/pipe is neither"},
			code:   exitcode.BadInput,
		},
		"absolute symlink out": {
			script: installs + "link $DESTDIR/opt/kata/sh /bin/sh\n",
			want:   []string{"symlink /opt/kata/sh leads to /bin/sh, out of /opt/kata"},
			code:   exitcode.BadInput,
		},
		"relative symlink out": {
			script: installs + "link $DESTDIR/opt/kata/sh ../../bin/sh\n",
			want:   []string{"symlink /opt/kata/sh leads to ../../bin/sh"},
			code:   exitcode.BadInput,
		},
		"symlink to a neighbour with a like name": {
			script: installs + "link $DESTDIR/opt/kata/x /opt/kata-other\n",
			want:   []string{"symlink /opt/kata/x leads to /opt/kata-other"},
			code:   exitcode.BadInput,
		},
		"fixed variable": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Env = map[string]string{"PATH": "/x"} },
			want:   []string{"variable PATH is the same for all"},
			code:   exitcode.BadInput,
		},
		"source that climbs": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Srcs = map[string]string{"../x": f.Script} },
			want:   []string{`source name "../x"`},
			code:   exitcode.BadInput,
		},
		"source in a source": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Srcs = map[string]string{"a": f.Script, "a/b": f.Root} },
			want:   []string{`source "a/b"`, `lies below source "a"`},
			code:   exitcode.BadInput,
		},
		"missing source": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Srcs = map[string]string{"a": "/nowhere/a"} },
			want:   []string{"/nowhere/a"},
			code:   exitcode.LocalIO,
		},
		"missing root": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Root = "/nowhere/root.tar.zst" },
			want:   []string{"unpacking the build root /nowhere/root.tar.zst"},
			code:   exitcode.LocalIO,
		},
		"damaged root": {
			script: installs,
			change: func(t *testing.T, f *fixture) {
				data, err := os.ReadFile(f.Root)
				require.NoError(t, err)
				f.Root = f.input(t, "torn.tar.zst", string(data[:len(data)/2]))
			},
			want: []string{"unpacking the build root", "torn.tar.zst"},
			code: exitcode.Unverified,
		},
		"bad version": {
			script: installs,
			change: func(_ *testing.T, f *fixture) { f.Version = "" },
			want:   []string{"version is empty"},
			code:   exitcode.BadInput,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, root, tc.script)
			if tc.change != nil {
				tc.change(t, f)
			}
			err := build.Run(context.Background(), f.Job)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.Equal(t, tc.code, exitcode.Of(err), err)
			f.requireClean(t, "work")
			f.requireClean(t, "out")
		})
	}
}

func TestLogOfAFailure(t *testing.T) {
	var script strings.Builder
	for range 100 {
		script.WriteString("print early\n")
	}
	for range 59 {
		script.WriteString("print late\n")
	}
	script.WriteString("print last words\nexit 1\n")
	f := newFixture(t, packRoot(t), script.String())
	require.Error(t, build.Run(context.Background(), f.Job))
	log := f.log.String()
	require.NotContains(t, log, "early")
	require.Equal(t, 59, strings.Count(log, "late\n"))
	require.Contains(t, log, "last words\n")
	require.Contains(t, log, f.Script)
	require.Contains(t, log, "exit status 1")
}

func TestSuccessIsQuiet(t *testing.T) {
	f := newFixture(t, packRoot(t), "print kiln: step: one\n"+installs)
	require.NoError(t, build.Run(context.Background(), f.Job))
	require.Empty(t, f.log.String())
}

func TestCancelLeavesNothing(t *testing.T) {
	f := newFixture(t, packRoot(t), installs+"write /dest/ready yes\nbackground sleep\nsleep\n")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	cause := errors.New("enough")
	go func() {
		for ctx.Err() == nil {
			if ready, err := filepath.Glob(filepath.Join(f.WorkDir, "*/root/dest/ready")); err == nil && len(ready) > 0 {
				cancel(cause)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	require.ErrorIs(t, build.Run(ctx, f.Job), cause)
	f.requireClean(t, "work")
	f.requireClean(t, "out")
}

func TestNoWorkDirectory(t *testing.T) {
	f := newFixture(t, "unused", installs)
	f.WorkDir = filepath.Join(f.dir, "nowhere")
	err := build.Run(context.Background(), f.Job)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}
