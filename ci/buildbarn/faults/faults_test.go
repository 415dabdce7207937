//go:build bazel

// The tests of this package do to a real engine, while a real Bazel builds with
// it, what happens to engines: it goes away, workers die, what is stored is lost
// or damaged, the disk is full, clocks differ by days. Every build must succeed,
// and make what a build without an engine makes.
//
// Bazel has the flags of --config=remote, as users have. What it builds are
// stand-ins for components, which only cost time and bytes.
package faults_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/enginetest"
	"github.com/kiln-build/kiln/tests/suite/testtools"
	"github.com/kiln-build/kiln/tools/bench/once/relay"
	"github.com/kiln-build/kiln/tools/bench/once/standin"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/nested/nestedtest"
)

// limit is how long a build may take, whatever happens to it: no time-out of
// cache.bazelrc is longer, and the build itself takes seconds.
const limit = 4 * time.Minute

// components are enough to have something in flight, something made before it,
// and something that needs what was made before.
func components() []standin.Component {
	return []standin.Component{
		{Name: "kernel", Time: 6 * time.Second, Bytes: 4 << 20},
		{Name: "rootfs", Time: time.Second, Bytes: 16 << 20},
		{Name: "runtimeconfig", Deps: []string{"rootfs", "kernel"}, Time: time.Second, Bytes: 10 << 10},
		{Name: "kata-deploy", Deps: []string{"rootfs"}, Time: time.Second, Bytes: 1 << 20},
	}
}

// workspace writes the stand-ins, with the flags of the repository.
func workspace(t *testing.T) string {
	t.Helper()
	dir := nestedtest.TempDir(t)
	tool, err := runfiles.Rlocation(os.Getenv("STANDIN"))
	require.NoError(t, err)
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	require.NoError(t, standin.Write(dir, tool, module, components()))
	flags, err := runfiles.Rlocation(os.Getenv("FLAGS"))
	require.NoError(t, err)
	content, err := os.ReadFile(flags)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".bazelrc"), content, 0o600))
	return dir
}

// client is a Bazel with nothing of its own.
type client struct {
	*nested.Bazel
	t *testing.T
}

func newClient(t *testing.T, workspace string) *client {
	t.Helper()
	return &client{nestedtest.Fresh(t, workspace), t}
}

// result is what a build came to.
type result struct {
	// layers are the digests of the layers by name.
	layers map[string]string
	// runners say who made each component, by name.
	runners map[string]string
	// said is what Bazel printed.
	said string
	// started is when the build began by the client's clock.
	started time.Time
}

// start starts to build everything with the engine, or without one if there is no
// frontend. What it gives waits for the end.
func (c *client) start(frontend string, options ...string) (wait func() result) {
	c.t.Helper()
	dir := c.t.TempDir()
	log, events := filepath.Join(dir, "log"), filepath.Join(dir, "events")
	args := []string{"--disk_cache=", "--execution_log_json_file=" + log, "--build_event_json_file=" + events,
		// Where files are here, not where they are in a cache.
		"--nobuild_event_json_file_path_conversion"}
	if frontend != "" {
		args = append(args, with(frontend)...)
	}
	args = append(append(args, options...), standin.Layers)
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, "build", args...) }()
	return func() result {
		c.t.Helper()
		defer cancel()
		require.NoError(c.t, <-done)
		files, err := nested.OutputFiles(events)
		require.NoError(c.t, err)
		r := result{layers: map[string]string{}, runners: map[string]string{}, said: c.said()}
		for _, name := range files {
			content, err := os.ReadFile(name)
			require.NoError(c.t, err)
			r.layers[filepath.Base(name)] = fmt.Sprintf("%x", sha256.Sum256(content))
		}
		require.Len(c.t, r.layers, len(components()))
		r.started, err = nested.Started(events)
		require.NoError(c.t, err)
		parsed, err := execlog.ReadFile(c.t.Context(), log)
		require.NoError(c.t, err)
		for _, s := range parsed.Spawns {
			r.runners[strings.TrimPrefix(s.Target, "//:")] = s.Runner
		}
		return r
	}
}

// with gives the options for a build with an engine.
func with(frontend string) []string {
	return []string{"--config=remote", "--remote_executor=" + frontend, "--remote_cache=" + frontend}
}

func (c *client) said() string {
	name := c.Log.(*os.File).Name()
	content, err := os.ReadFile(name)
	require.NoError(c.t, err)
	return string(content)
}

// build builds and waits.
func (c *client) build(frontend string, options ...string) result {
	c.t.Helper()
	return c.start(frontend, options...)()
}

// Whoever builds payloads with an engine that has everything gets what describes
// them, and no byte of a layer.
func TestLayersStay(t *testing.T) {
	dir := workspace(t)
	e := enginetest.Start(t, enginetest.Options{})
	layers := newClient(t, dir).build(e.Frontend).layers

	counted, err := relay.Start(e.Address())
	require.NoError(t, err)
	defer counted.Close()
	c := newClient(t, dir)
	events := filepath.Join(t.TempDir(), "events")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	require.NoError(t, c.Run(ctx, "build", append(with("grpc://"+counted.Address()), "--build_event_json_file="+events,
		"--nobuild_event_json_file_path_conversion", standin.Payload)...))
	files, err := nested.OutputFiles(events)
	require.NoError(t, err)
	digests, err := standin.ReadDigests(files)
	require.NoError(t, err)
	require.Len(t, digests, len(layers))
	for name, digest := range layers {
		require.Equal(t, "sha256:"+digest, digests[name])
	}
	// The smallest layer has 10 KiB, all of them 21 MiB.
	require.Less(t, counted.Down(), int64(64<<10))
	require.NoError(t, filepath.WalkDir(c.OutputBase, func(path string, _ os.DirEntry, err error) error {
		require.NotEqual(t, ".layer", filepath.Ext(path), "%s was fetched", path)
		return err
	}))
}

// awaitAction waits until a worker of the engine makes a component.
func awaitAction(t *testing.T, e *enginetest.Engine, component string) {
	t.Helper()
	require.Eventually(t, func() bool {
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		require.NoError(t, err)
		for _, name := range processes {
			argv, err := os.ReadFile(name)
			if err != nil || !bytes.Contains(argv, []byte("--name\x00"+component+"\x00")) {
				continue // it has just ended, or is another one
			}
			where, err := os.Readlink(filepath.Join(filepath.Dir(name), "cwd"))
			if err == nil && strings.HasPrefix(where, e.State) {
				return true
			}
		}
		return false
	}, limit, 20*time.Millisecond, "no worker makes %s", component)
}

func TestFaults(t *testing.T) {
	dir := workspace(t)
	// As a build without any engine makes them.
	want := newClient(t, dir).build("").layers
	for name, fault := range map[string]func(t *testing.T, dir string, want map[string]string){
		"the engine vanishes":      engineVanishes,
		"the engine is not there":  engineIsNotThere,
		"a worker dies":            workerDies,
		"storage loses blobs":      storageLosesBlobs,
		"stored blobs are damaged": damagedBlobsAreNotUsed,
		"the storage disk is full": storageDiskIsFull,
		"clocks differ":            clocksDiffer,
	} {
		t.Run(name, func(t *testing.T) { fault(t, dir, want) })
	}
}

func engineVanishes(t *testing.T, dir string, want map[string]string) {
	e := enginetest.Start(t, enginetest.Options{})
	c := newClient(t, dir)
	wait := c.start(e.Frontend)
	awaitAction(t, e, "kernel")
	e.Kill(t)
	got := wait()
	require.Equal(t, want, got.layers)
	require.Contains(t, got.runners["kernel"], "sandbox", "the kernel was in flight, and the rest is made here as well")
	requireSaidOnce(t, got.said)
}

// requireSaidOnce makes sure that Bazel says that the engine is away, and does not
// say it for each action.
func requireSaidOnce(t *testing.T, said string) {
	t.Helper()
	var warnings []string
	for line := range strings.Lines(said) {
		if strings.Contains(line, "UNAVAILABLE") {
			warnings = append(warnings, line)
		}
	}
	require.Len(t, warnings, 1, "%s", said)
}

func engineIsNotThere(t *testing.T, dir string, want map[string]string) {
	e := enginetest.Start(t, enginetest.Options{})
	e.Stop(t)
	got := newClient(t, dir).build(e.Frontend)
	require.Equal(t, want, got.layers)
	requireSaidOnce(t, got.said)
}

func workerDies(t *testing.T, dir string, want map[string]string) {
	for _, name := range []string{"worker-0", "runner-0"} {
		t.Run(name, func(t *testing.T) {
			e := enginetest.Start(t, enginetest.Options{})
			wait := newClient(t, dir).start(e.Frontend)
			awaitAction(t, e, "kernel")
			e.KillProcess(t, name)
			require.Equal(t, want, wait().layers)
		})
	}
}

// A result in the action cache names its outputs. When storage has lost one, the
// result must be a miss: the action runs again.
func storageLosesBlobs(t *testing.T, dir string, want map[string]string) {
	e := enginetest.Start(t, enginetest.Options{})
	require.Equal(t, want, newClient(t, dir).build(e.Frontend).layers)
	e.Stop(t)
	require.NoError(t, os.RemoveAll(filepath.Dir(contents(e))))

	again := enginetest.Start(t, enginetest.Options{State: e.State})
	got := newClient(t, dir).build(again.Frontend)
	require.Equal(t, want, got.layers)
	for _, c := range components() {
		require.Equal(t, "remote", got.runners[c.Name], "%s must be made again, by a worker", c.Name)
	}
}

func contents(e *enginetest.Engine) string {
	blobs, _ := e.Blocks()
	return blobs
}

// The engine runs on, so that it still has all results: only what they name is
// damaged.
func damagedBlobsAreNotUsed(t *testing.T, dir string, want map[string]string) {
	e := enginetest.Start(t, enginetest.Options{})
	require.Equal(t, want, newClient(t, dir).build(e.Frontend).layers)
	whole := newClient(t, dir).build(e.Frontend)
	for name, runner := range whole.runners {
		require.Equal(t, "remote cache hit", runner, name)
	}
	damage(t, contents(e))
	got := newClient(t, dir).build(e.Frontend)
	require.Equal(t, want, got.layers)
	for name, runner := range got.runners {
		require.NotEqual(t, "remote cache hit", runner, "%s is damaged, and cannot have come from the cache", name)
	}
}

// damage flips one bit in every page of a file that is not empty.
func damage(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	page, empty, damaged := make([]byte, 4096), make([]byte, 4096), 0
	for at := int64(0); at < info.Size(); at += int64(len(page)) {
		n, err := f.ReadAt(page, at)
		if n == 0 {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		if bytes.Equal(page[:n], empty[:n]) {
			continue
		}
		page[n/2] ^= 1
		_, err = f.WriteAt(page[:n], at)
		require.NoError(t, err)
		damaged++
	}
	require.NotZero(t, damaged)
}

func storageDiskIsFull(t *testing.T, dir string, want map[string]string) {
	// Layers alone are 21 MiB.
	e := enginetest.Start(t, onSmallDisk(t, 16<<20))
	got := newClient(t, dir).build(e.Frontend)
	require.Equal(t, want, got.layers)

	// What did fit is whole, and what did not is no result.
	require.Equal(t, want, newClient(t, dir).build(e.Frontend).layers)
}

// What a client stores days ahead of the engine is a hit for one that is days behind.
func clocksDiffer(t *testing.T, dir string, want map[string]string) {
	e := enginetest.Start(t, enginetest.Options{})
	java := realJava(t, dir)
	for _, client := range []struct {
		days   int
		runner string
	}{{3, "remote"}, {-3, "remote cache hit"}} {
		c := newClient(t, dir)
		c.Startup = []string{"--server_javabase=" + javaAt(t, java, client.days)}
		got := c.build(e.Frontend)
		require.WithinDuration(t, time.Now().AddDate(0, 0, client.days), got.started, time.Hour, "the client's clock is right: nothing was tested")
		require.Equal(t, want, got.layers)
		for name, runner := range got.runners {
			require.Equal(t, client.runner, runner, name)
		}
		require.NoError(t, c.Shutdown(t.Context()))
	}
}

// realJava is the runtime that Bazel's server has by default.
func realJava(t *testing.T, dir string) string {
	t.Helper()
	c := newClient(t, dir)
	var out bytes.Buffer
	c.Output = &out
	require.NoError(t, c.Run(t.Context(), "info", "java-home"))
	c.Output = nil
	require.NoError(t, c.Shutdown(t.Context()))
	return strings.TrimSpace(out.String())
}

// javaAt gives a runtime whose clock is some days ahead. What waits does so for as
// long as ever: the clock that only counts is as far ahead.
func javaAt(t *testing.T, java string, days int) string {
	t.Helper()
	archive, err := runfiles.Rlocation(os.Getenv("KILN_TEST_TOOLS"))
	require.NoError(t, err)
	tools, err := testtools.Unpack(archive, t.TempDir())
	require.NoError(t, err)
	library, err := tools.File("usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
	require.NoError(t, err)
	home := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(home, "bin"), 0o755))
	script := fmt.Sprintf("#!/bin/sh\nLD_PRELOAD='%s' FAKETIME=%+dd exec '%s/bin/java' \"$@\"\n", library, days, java)
	require.NoError(t, os.WriteFile(filepath.Join(home, "bin/java"), []byte(script), 0o755))
	return home
}

// smallDiskName is the program name by which this test knows that it is to mount a
// small disk and become the launcher.
const smallDiskName = "kiln-small-disk"

// onSmallDisk puts what an engine stores, which may be more, on a disk of a size,
// which only the engine's processes see, and which is gone with them.
func onSmallDisk(t *testing.T, size int64) enginetest.Options {
	t.Helper()
	state := t.TempDir()
	storage := filepath.Join(state, config.StorageDirectory)
	require.NoError(t, os.Mkdir(storage, 0o755))
	return enginetest.Options{State: state, Prepare: func(cmd *exec.Cmd) {
		cmd.Args = append([]string{smallDiskName, storage, strconv.FormatInt(size, 10), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/proc/self/exe"
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}}
}

// becomeLauncher mounts the disk and runs the launcher in its place.
func becomeLauncher(dir, size string, argv []string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	if err := syscall.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		return fmt.Errorf("mounting a small disk: %w", err)
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

func TestMain(m *testing.M) {
	if os.Args[0] == smallDiskName {
		fmt.Fprintln(os.Stderr, becomeLauncher(os.Args[1], os.Args[2], os.Args[3:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}
