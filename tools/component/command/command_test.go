package command_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/component/command"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/component/probe"
	"github.com/kiln-build/kiln/tools/component/sandbox"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestMain(m *testing.M) {
	sandbox.IfChild()
	probe.IfShell()
	os.Exit(m.Run())
}

func file(t *testing.T, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

// arguments gives those that every call needs, for a component in dir.
func arguments(sub, dir, name string) []string {
	return []string{
		sub, "--name", name, "--component-version", "1", "--license", "MIT", "--arch", "amd64",
		"--layer", filepath.Join(dir, name+".tar.zst"), "--metadata", filepath.Join(dir, name+".component.json"),
	}
}

func TestPackFromAParamsFile(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	file(t, tree, "a/b", "b")
	require.NoError(t, os.Symlink(file(t, dir, "real", "tool"), filepath.Join(dir, "link")))
	params := file(t, dir, "params", strings.Join(append(arguments("pack", dir, "thing"),
		"--prefix", "opt/kata-artifacts/opt/kata",
		"--file", "bin/tool="+filepath.Join(dir, "link"),
		"--file", "share/tree="+tree,
		"--executable", "bin/tool",
		"--symlink", "bin/alias=tool",
		"--source", `{"name":"zlib","version":"1.3"}`,
		"--source-list", file(t, dir, "modules.json", `[{"name":"golang.org/x/sys","version":"v0.1.0","purl":"pkg:golang/golang.org/x/sys@v0.1.0"}]`),
		"--packages", file(t, dir, "packages.json", `[
			{"package":"libc6","version":"2.41-12","arch":"amd64","path":"pool/main/x.deb","sha256":"`+strings.Repeat("ab", 32)+`"},
			{"package":"acl","version":"1:2.3","arch":"amd64"}]`),
		"--packages", file(t, dir, "same.json", `[{"package":"acl","version":"1:2.3","arch":"amd64"}]`),
	), "\n")+"\n")

	require.NoError(t, command.Run(context.Background(), []string{"@" + params}, os.Stderr))
	m, err := metadata.ReadFile(filepath.Join(dir, "thing.component.json"))
	require.NoError(t, err)
	var paths []string
	for _, f := range m.Files {
		if p, below := strings.CutPrefix(f.Path, "opt/kata-artifacts/opt/kata/"); below {
			paths = append(paths, f.Mode+" "+p)
		}
	}
	require.Equal(t, []string{"0755 bin", "0777 bin/alias", "0755 bin/tool", "0755 share", "0755 share/tree", "0755 share/tree/a", "0644 share/tree/a/b"}, paths)
	require.Equal(t, []metadata.Source{
		{Name: "acl", Version: "1:2.3", PURL: "pkg:deb/debian/acl@1:2.3?arch=amd64"},
		{Name: "golang.org/x/sys", Version: "v0.1.0", PURL: "pkg:golang/golang.org/x/sys@v0.1.0"},
		{Name: "libc6", Version: "2.41-12", PURL: "pkg:deb/debian/libc6@2.41-12?arch=amd64", SHA256: strings.Repeat("ab", 32)},
		{Name: "zlib", Version: "1.3"},
	}, m.Sources)
	info, err := os.Stat(filepath.Join(dir, "thing.tar.zst"))
	require.NoError(t, err)
	require.Equal(t, info.Size(), m.Layer.Size)
}

func TestPackRefuses(t *testing.T) {
	dir := t.TempDir()
	one, two := file(t, dir, "one", "1"), file(t, dir, "two", "2")
	for name, tc := range map[string]struct {
		args []string
		want []string
		code int
	}{
		"two sources":           {[]string{"--file", "a=" + one, "--file", "a=" + two}, []string{"a comes from two sources", one, two}, exitcode.BadInput},
		"file and symlink":      {[]string{"--file", "a=" + one, "--symlink", "a=b"}, []string{"a comes from two sources", one, "a symlink to b"}, exitcode.BadInput},
		"below a file":          {[]string{"--file", "a=" + one, "--file", "a/b=" + two}, []string{"a/b", two, "lies below", one}, exitcode.BadInput},
		"absolute":              {[]string{"--file", "/a=" + one}, []string{`"/a"`, one}, exitcode.BadInput},
		"climbing":              {[]string{"--file", "../a=" + one}, []string{"leaves the layer"}, exitcode.BadInput},
		"no source":             {[]string{"--file", "a"}, []string{`"a" is not of the form`}, exitcode.BadInput},
		"missing file":          {[]string{"--file", "a=/nowhere/x"}, []string{"/nowhere/x"}, exitcode.LocalIO},
		"unknown executable":    {[]string{"--file", "a=" + one, "--executable", "b"}, []string{"b is to be executable, but no file goes there"}, exitcode.BadInput},
		"executable directory":  {[]string{"--file", "a=" + dir, "--executable", "a"}, []string{"is a directory"}, exitcode.BadInput},
		"symlink twice":         {[]string{"--symlink", "a=b", "--symlink", "a=c"}, []string{"--symlink gives a two values: b, and c"}, exitcode.BadInput},
		"no files":              {nil, []string{"thing has no files"}, exitcode.BadInput},
		"symlink out":           {[]string{"--prefix", "opt/kata-artifacts/opt/kata", "--symlink", "a=/bin/sh"}, []string{"symlink /opt/kata/a leads to /bin/sh"}, exitcode.BadInput},
		"bad source":            {[]string{"--file", "a=" + one, "--source", `{"name":"x"}`}, []string{"x: version is empty"}, exitcode.BadInput},
		"source with a new key": {[]string{"--file", "a=" + one, "--source", `{"nom":"x"}`}, []string{"nom"}, exitcode.BadInput},
		"bad packages":          {[]string{"--file", "a=" + one, "--packages", one}, []string{"reading packages from " + one}, exitcode.BadInput},
		"unknown flag":          {[]string{"--colour", "red"}, []string{"--colour"}, exitcode.BadInput},
		"argument":              {[]string{"red"}, []string{"red"}, exitcode.BadInput},
		"name is missing":       {[]string{"--name", ""}, []string{"--name is missing"}, exitcode.BadInput},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			err := command.Run(context.Background(), append(arguments("pack", out, "thing"), tc.args...), os.Stderr)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.Equal(t, tc.code, exitcode.Of(err), err)
			left, err := os.ReadDir(out)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command":     {"fire"},
		"no such params file": {"@/nowhere/params"},
		"no root":             append(arguments("build", "/nowhere", "x"), "--script", "x"),
		"no script":           append(arguments("build", "/nowhere", "x"), "--root", "x"),
		"bad pair":            append(arguments("build", "/nowhere", "x"), "--root", "x", "--script", "x", "--env", "A"),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, exitcode.BadInput, exitcode.Of(command.Run(context.Background(), args, os.Stderr)))
		})
	}
}

func TestBuildInAPackedRoot(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	require.NoError(t, probe.Install(tree))
	require.NoError(t, command.Run(context.Background(), append(arguments("pack", dir, "root"), "--file", "bin="+filepath.Join(tree, "bin")), os.Stderr))
	if lib := filepath.Join(tree, "lib64"); exists(lib) {
		// Linked dynamically, as "go test" may do: its libraries too.
		require.NoError(t, command.Run(context.Background(), append(arguments("pack", dir, "root"),
			"--file", "bin="+filepath.Join(tree, "bin"), "--file", "lib64="+lib, "--file", "lib="+filepath.Join(tree, "lib")), os.Stderr))
	}
	run := func(script string, more ...string) (string, error) {
		var stderr bytes.Buffer
		args := append(arguments("build", dir, "thing"),
			"--root", filepath.Join(dir, "root.tar.zst"), "--script", file(t, dir, "build.sh", script),
			"--src", "in="+file(t, dir, "input", "hello"), "--env", "WHERE=/opt/kata/x",
			"--output", "seen="+filepath.Join(dir, "seen"), "--work-dir", dir, "--jobs", "2")
		err := command.Run(context.Background(), append(args, more...), &stderr)
		return stderr.String(), err
	}
	_, err := run("write $DESTDIR$WHERE x\nreport $OUT/seen\nread /src/in\nprint jobs $KILN_JOBS\n")
	require.NoError(t, err)
	seen, err := os.ReadFile(filepath.Join(dir, "seen"))
	require.NoError(t, err)
	require.Equal(t, "read /src/in: hello\njobs 2\n", string(seen))

	printed, err := run("print last words\nexit 9\n")
	require.ErrorContains(t, err, "exit status 9")
	require.Contains(t, printed, "last words\n")
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
