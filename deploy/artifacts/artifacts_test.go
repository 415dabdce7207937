package artifacts_test

import (
	"context"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/artifacts"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// tree makes files with the given contents. "-> x" is a symlink to x, and a
// name that ends in a slash is a directory. Names with bin/ are executable.
func tree(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(p, 0o755))
		} else if target, ok := strings.CutPrefix(content, "-> "); ok {
			require.NoError(t, os.Symlink(target, p))
		} else {
			mode := fs.FileMode(0o644)
			if strings.Contains(name, "bin/") {
				mode = 0o755
			}
			require.NoError(t, os.WriteFile(p, []byte(content), mode))
		}
	}
	return dir
}

// snapshot is tree's inverse, without the installer's record.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil || filepath.Base(name) == ".kata-deploy.json" {
			return err
		}
		switch {
		case d.IsDir():
			out[name+"/"] = ""
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			out[name] = "-> " + target
		default:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out[name] = string(data)
		}
		return nil
	}))
	return out
}

func version1() map[string]string {
	return map[string]string{
		"bin/qemu":                                "qemu 1",
		"share/kata-containers/vmlinuz-1":         "kernel 1",
		"share/kata-containers/vmlinuz.container": "-> vmlinuz-1",
		"share/old/only-in-1":                     "old",
	}
}

func version2() map[string]string {
	return map[string]string{
		"bin/qemu":                                "qemu 2",
		"share/kata-containers/vmlinuz-2":         "kernel 2",
		"share/kata-containers/vmlinuz.container": "-> vmlinuz-2",
	}
}

// withDirs adds the directories that lead to files, as snapshot sees them.
func withDirs(files map[string]string) map[string]string {
	out := map[string]string{}
	for name, content := range files {
		out[name] = content
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			out[d+"/"] = ""
		}
	}
	return out
}

func install(t *testing.T, source, dest string) *artifacts.InstallResult {
	t.Helper()
	res, err := artifacts.Install(context.Background(), source, dest)
	require.NoError(t, err)
	return res
}

func TestInstallUpgradeCleanup(t *testing.T) {
	host := t.TempDir()
	dest := filepath.Join(host, "opt", "kata")
	v1, v2 := tree(t, t.TempDir(), version1()), tree(t, t.TempDir(), version2())

	res := install(t, v1, dest)
	require.Equal(t, &artifacts.InstallResult{Destination: dest, Installed: 4, Bytes: int64(len("qemu 1" + "kernel 1" + "old"))}, res)
	require.Equal(t, withDirs(version1()), snapshot(t, dest))
	info, err := os.Stat(filepath.Join(dest, "bin/qemu"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), info.Mode())

	res = install(t, v1, dest)
	require.Equal(t, &artifacts.InstallResult{Destination: dest, Unchanged: 4}, res, "installing again changes nothing")

	running, err := os.Open(filepath.Join(dest, "bin/qemu"))
	require.NoError(t, err)
	defer running.Close()
	res = install(t, v2, dest)
	require.Equal(t, 2, res.Removed)
	require.Equal(t, withDirs(version2()), snapshot(t, dest), "nothing of version 1 is left")
	data, err := io.ReadAll(running)
	require.NoError(t, err)
	require.Equal(t, "qemu 1", string(data), "who has the old file open keeps it")

	cleaned, err := artifacts.Cleanup(context.Background(), dest)
	require.NoError(t, err)
	require.Equal(t, &artifacts.CleanupResult{Destination: dest, Removed: 3, Kept: []string{}}, cleaned)
	require.Empty(t, snapshot(t, host), "not even the directories that led to it are left")

	cleaned, err = artifacts.Cleanup(context.Background(), dest)
	require.NoError(t, err)
	require.Zero(t, cleaned.Removed, "cleaning up again does nothing")
}

func TestWhatIsNotOursStays(t *testing.T) {
	host := tree(t, t.TempDir(), map[string]string{
		"opt/kata/share/kata-containers/mine.img": "mine",
		"opt/other": "other",
	})
	dest := filepath.Join(host, "opt/kata")
	before := snapshot(t, host)
	install(t, tree(t, t.TempDir(), version1()), dest)
	tree(t, dest, map[string]string{"share/old/notes.txt": "notes"})

	install(t, tree(t, t.TempDir(), version2()), dest)
	require.Equal(t, "notes", snapshot(t, dest)["share/old/notes.txt"])

	res, err := artifacts.Cleanup(context.Background(), dest)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dest, "share/old")}, res.Kept)
	require.NoError(t, os.RemoveAll(filepath.Join(dest, "share/old")))
	require.Equal(t, before, snapshot(t, host))
	require.NoFileExists(t, filepath.Join(dest, ".kata-deploy.json"))
}

func TestAForeignFileIsNotTakenOver(t *testing.T) {
	for name, foreign := range map[string]map[string]string{
		"a file":                 {"bin/qemu": "the distribution's"},
		"a symlink":              {"bin/qemu": "-> /usr/bin/qemu"},
		"a directory":            {"bin/qemu/x": "x"},
		"a symlinked directory":  {"bin": "-> /usr/bin"},
		"a file for a directory": {"bin": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			dest := tree(t, t.TempDir(), foreign)
			before := snapshot(t, dest)
			_, err := artifacts.Install(context.Background(), tree(t, t.TempDir(), version1()), dest)
			require.ErrorContains(t, err, "is there already and was not installed by kata-deploy")
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			require.Equal(t, before, snapshot(t, dest))
		})
	}
}

func TestArtefactsThatMustNotReachANode(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		spoil func(t *testing.T, dir string)
		want  string
		code  int
	}{
		"an absolute symlink that leads out": {files: map[string]string{"bin/sh": "-> /bin/sh"}, want: "symlink to /bin/sh leads out of /opt/kata", code: exitcode.Unverified},
		"a symlink that climbs out":          {files: map[string]string{"bin/sh": "-> ../../bin/sh"}, want: "symlink to ../../bin/sh leads out of /opt/kata", code: exitcode.Unverified},
		"one that goes in and out again":     {files: map[string]string{"bin/sh": "-> /opt/kata/../../bin/sh"}, want: "leads out of /opt/kata", code: exitcode.Unverified},
		"a name that the installer needs":    {files: map[string]string{"bin/.kata-deploy-partial-x": "x"}, want: "a name that the installer needs", code: exitcode.Unverified},
		"nothing at all":                     {files: map[string]string{}, want: "there are no artefacts in", code: exitcode.BadInput},
		"setuid": {
			files: map[string]string{"bin/su": "x"},
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Chmod(filepath.Join(dir, "bin/su"), 0o755|fs.ModeSetuid))
			},
			want: "setuid", code: exitcode.Unverified,
		},
		"a pipe": {
			files: map[string]string{"bin/x": "x"},
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "bin/pipe"), 0o644))
			},
			want: "neither a file, a directory nor a symlink", code: exitcode.Unverified,
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := tree(t, t.TempDir(), tc.files)
			if tc.spoil != nil {
				tc.spoil(t, source)
			}
			host := t.TempDir()
			_, err := artifacts.Install(context.Background(), source, filepath.Join(host, "opt/kata"))
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err))
			require.Empty(t, snapshot(t, host))
		})
	}
	_, err := artifacts.Install(context.Background(), "/absent", filepath.Join(t.TempDir(), "kata"))
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}

func TestSymlinksMoveWithThePrefix(t *testing.T) {
	dest, err := artifacts.Destination(t.TempDir(), "")
	require.NoError(t, err)
	source := tree(t, t.TempDir(), map[string]string{
		"bin/qemu":    "qemu",
		"bin/default": "-> /opt/kata/bin/qemu",
		"bin/near":    "-> qemu",
	})
	install(t, source, dest)
	got := snapshot(t, dest)
	require.Equal(t, "-> "+dest+"/bin/qemu", got["bin/default"])
	require.Equal(t, "-> qemu", got["bin/near"])
	data, err := os.ReadFile(filepath.Join(dest, "bin/default"))
	require.NoError(t, err)
	require.Equal(t, "qemu", string(data))
}

func TestDestination(t *testing.T) {
	for prefix, want := range map[string]string{"": "/opt/kata", "/": "/opt/kata", "/srv/x/": "/srv/x/opt/kata"} {
		got, err := artifacts.Destination(prefix, "")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := artifacts.Destination("srv", "")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

// after ends a context when it was asked n times, so that an installation is
// interrupted between any two of its steps.
type after struct {
	context.Context
	n *int
}

func (a after) Err() error {
	if *a.n--; *a.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestInterruptedAtAnyStep(t *testing.T) {
	v1, v2 := tree(t, t.TempDir(), version1()), tree(t, t.TempDir(), version2())
	for steps := range 12 {
		for name, finish := range map[string]func(t *testing.T, dest string){
			"then installed": func(t *testing.T, dest string) {
				install(t, v2, dest)
				require.Equal(t, withDirs(version2()), snapshot(t, dest))
			},
			"then the old one again": func(t *testing.T, dest string) {
				install(t, v1, dest)
				require.Equal(t, withDirs(version1()), snapshot(t, dest))
			},
			"then cleaned up": func(t *testing.T, dest string) {
				_, err := artifacts.Cleanup(context.Background(), dest)
				require.NoError(t, err)
				require.NoDirExists(t, dest)
			},
		} {
			t.Run(name, func(t *testing.T) {
				dest := filepath.Join(t.TempDir(), "opt/kata")
				install(t, v1, dest)
				n := steps
				_, err := artifacts.Install(after{Context: context.Background(), n: &n}, v2, dest)
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					require.ErrorContains(t, err, "run it again")
				}
				finish(t, dest)
			})
		}
	}
}

func TestWhatACrashLeftHalfWrittenGoes(t *testing.T) {
	v1 := tree(t, t.TempDir(), version1())
	for name, after := range map[string]func(t *testing.T, dest string){
		"installing": func(t *testing.T, dest string) {
			// Another content, so that the file is written again.
			require.NoError(t, os.WriteFile(filepath.Join(dest, "bin/qemu"), []byte("torn"), 0o755))
			install(t, v1, dest)
			require.Equal(t, withDirs(version1()), snapshot(t, dest))
		},
		"cleaning up": func(t *testing.T, dest string) {
			_, err := artifacts.Cleanup(context.Background(), dest)
			require.NoError(t, err)
			require.NoDirExists(t, dest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "kata")
			install(t, v1, dest)
			tree(t, dest, map[string]string{"bin/.kata-deploy-partial-qemu": "half"})
			after(t, dest)
		})
	}
}

func TestAPathThatChangesItsType(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "kata")
	file := map[string]string{"share/x": "a file", "bin/qemu": "q"}
	dir := map[string]string{"share/x/y/z": "in a directory", "share/x/l": "-> y", "bin/qemu": "q"}
	for range 2 {
		install(t, tree(t, t.TempDir(), file), dest)
		require.Equal(t, withDirs(file), snapshot(t, dest))
		install(t, tree(t, t.TempDir(), dir), dest)
		require.Equal(t, withDirs(dir), snapshot(t, dest))
	}
}

func TestARecordThatLeadsOut(t *testing.T) {
	for name, doc := range map[string]string{
		"a file that climbs":  `{"schemaVersion":1,"files":["../../etc/passwd"]}`,
		"an absolute symlink": `{"schemaVersion":1,"symlinks":["/etc/passwd"]}`,
		"a foreign directory": `{"schemaVersion":1,"above":["/etc"]}`,
		"another schema":      `{"schemaVersion":2}`,
		"no JSON":             `{`,
	} {
		t.Run(name, func(t *testing.T) {
			dest := tree(t, t.TempDir(), map[string]string{".kata-deploy.json": doc})
			_, err := artifacts.Cleanup(context.Background(), dest)
			require.ErrorContains(t, err, filepath.Join(dest, ".kata-deploy.json"))
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			_, err = artifacts.Install(context.Background(), tree(t, t.TempDir(), version1()), dest)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

// limitFiles makes the kernel refuse files beyond a size, as a full disk
// would, until the test ends or restore is called.
func limitFiles(t *testing.T, size uint64) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	// The kernel sends a signal as well, which would end the process.
	signal.Ignore(syscall.SIGXFSZ)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}))
	restored := false
	restore = func() {
		if !restored {
			restored = true
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
		}
	}
	t.Cleanup(restore)
	return restore
}

func TestNoRoom(t *testing.T) {
	big := version2()
	big["share/kata-containers/image"] = strings.Repeat("x", 4<<20)
	source := tree(t, t.TempDir(), big)
	dest := filepath.Join(t.TempDir(), "opt/kata")
	install(t, tree(t, t.TempDir(), version1()), dest)

	restore := limitFiles(t, 2<<20)
	_, err := artifacts.Install(context.Background(), source, dest)
	require.ErrorIs(t, err, syscall.EFBIG)
	require.ErrorContains(t, err, "share/kata-containers/image")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	for name := range snapshot(t, dest) {
		require.NotContains(t, name, "partial", "something half written is left")
	}
	require.NoFileExists(t, filepath.Join(dest, "share/kata-containers/image"))

	restore()
	install(t, source, dest)
	require.Equal(t, withDirs(big), snapshot(t, dest))
}

func TestOneAtATime(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "kata")
	v1 := tree(t, t.TempDir(), version1())
	install(t, v1, dest)
	lock, err := os.Open(dest)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))

	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = artifacts.Install(ctx, v1, dest)
	require.ErrorContains(t, err, "waiting for another kata-deploy")

	// A waiter goes on when the directory was cleaned up under it.
	done := make(chan error, 1)
	go func() {
		_, err := artifacts.Install(context.Background(), v1, dest)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, os.Rename(dest, dest+".gone"))
	require.NoError(t, lock.Close())
	require.NoError(t, <-done)
	require.Equal(t, withDirs(version1()), snapshot(t, dest))
}

// An installer that was killed as it made the directory: that appears together with
// the record by which it is removed.
func TestADirectoryThatCameHalfway(t *testing.T) {
	host := t.TempDir()
	dest := filepath.Join(host, "srv/opt/kata")
	halfway := filepath.Join(host, "srv/opt/.kata-deploy-partial-kata")
	require.NoError(t, os.MkdirAll(halfway, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(halfway, "half"), nil, 0o600))
	_, err := artifacts.Cleanup(t.Context(), dest)
	require.NoError(t, err)
	require.NoDirExists(t, halfway)

	require.NoError(t, os.Mkdir(halfway, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(halfway, "half"), nil, 0o600))
	source := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(source, "file"), nil, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = artifacts.Install(ctx, source, dest)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, halfway)
	_, err = artifacts.Cleanup(t.Context(), dest)
	require.NoError(t, err)
	require.NoDirExists(t, dest)
	require.DirExists(t, filepath.Dir(dest), "that was there before")
}
