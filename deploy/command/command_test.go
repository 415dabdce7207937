package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func run(t *testing.T, prefix string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runWith(t, map[string]string{"INSTALLATION_PREFIX": prefix}, args...)
}

func runWith(t *testing.T, environment map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = command.Run(context.Background(), args, func(name string) string { return environment[name] }, &out, &errs)
	return code, out.String(), errs.String()
}

func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "qemu"), []byte("qemu"), 0o755))
	return dir
}

func TestThePrefixOfTheEnvironment(t *testing.T) {
	prefix, src := t.TempDir(), source(t)
	code, stdout, stderr := run(t, prefix, "install-stage-artifacts", "--files-only", "--artifacts="+src)
	require.Equal(t, 0, code, stderr)
	line := "installed to " + prefix + "/opt/kata: 1 new, 0 unchanged, 0 removed, 0.0 MiB written"
	require.Equal(t, line+"\n", stdout)
	require.Regexp(t, "^artifacts: "+line+` \([0-9.]+s\)\n$`, stderr)
	require.FileExists(t, filepath.Join(prefix, "opt/kata/bin/qemu"))
	code, stdout, stderr = run(t, prefix, "cleanup-stage-remove-artifacts", "--files-only")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "removed 1 files from "+prefix+"/opt/kata\nthe runtime goes on as it is\n", stdout)
	require.NoDirExists(t, filepath.Join(prefix, "opt"))
}

func TestAFlagBeatsTheEnvironment(t *testing.T) {
	prefix, src := t.TempDir(), source(t)
	code, stdout, stderr := run(t, "/absent", "install-stage-artifacts", "--files-only", "--artifacts="+src, "--prefix="+prefix, "--output=json")
	require.Equal(t, 0, code, stderr)
	var result struct {
		Artifacts struct {
			Destination string
			Installed   int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Equal(t, filepath.Join(prefix, "opt/kata"), result.Artifacts.Destination)
	require.Equal(t, 1, result.Artifacts.Installed)

	require.NoError(t, os.WriteFile(filepath.Join(prefix, "opt/kata/bin/mine"), nil, 0o644))
	code, stdout, _ = run(t, "", "cleanup-stage-remove-artifacts", "--files-only", "--prefix="+prefix, "--output=json")
	require.Equal(t, 0, code)
	var cleaned struct{ Artifacts struct{ Kept []string } }
	require.NoError(t, json.Unmarshal([]byte(stdout), &cleaned))
	require.Contains(t, cleaned.Artifacts.Kept, filepath.Join(prefix, "opt/kata/bin"))
}

func TestFailures(t *testing.T) {
	taken := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(taken, "opt/kata/bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(taken, "opt/kata/bin/qemu"), []byte("mine"), 0o644))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for name, tc := range map[string]struct {
		prefix string
		args   []string
		code   int
		want   string
	}{
		"no such command":      {"", []string{"remove"}, exitcode.BadInput, `unknown command "remove"`},
		"no DaemonSet":         {"", []string{"uninstall"}, exitcode.BadInput, "DAEMONSET_NAME is not set: name the DaemonSet"},
		"no patience":          {"", []string{"uninstall", "--daemonset=d", "--timeout=0s"}, exitcode.BadInput, "--timeout=0s: give a positive duration"},
		"no cluster to leave":  {"", []string{"uninstall", "--daemonset=d"}, exitcode.BadInput, "finding the cluster"},
		"no node":              {"", []string{"install"}, exitcode.BadInput, "NODE_NAME is not set: name the node that this runs on, or say --files-only"},
		"no cluster":           {"", []string{"install", "--node=n"}, exitcode.BadInput, "finding the cluster"},
		"no lock":              {"", []string{"cleanup", "--node=n", "--lock="}, exitcode.BadInput, "--lock=: give an absolute path"},
		"nothing to reset":     {"", []string{"reset", "--files-only"}, exitcode.BadInput, "there is nothing to reset"},
		"an argument":          {"", []string{"install", "now"}, exitcode.BadInput, `unknown command "now"`},
		"unknown flag":         {"", []string{"cleanup", "--force"}, exitcode.BadInput, "unknown flag: --force"},
		"odd output":           {"", []string{"cleanup", "--output=xml"}, exitcode.BadInput, `give "text" or "json"`},
		"relative prefix":      {"srv", []string{"install", "--files-only"}, exitcode.BadInput, `prefix "srv" is not an absolute path`},
		"no artefacts":         {t.TempDir(), []string{"install-stage-artifacts", "--files-only", "--artifacts=/absent"}, exitcode.LocalIO, "/absent"},
		"something in the way": {taken, []string{"install-stage-artifacts", "--files-only", "--artifacts=" + source(t)}, exitcode.BadInput, "was not installed by kata-deploy"},
		"the prefix is a file": {file, []string{"install-stage-artifacts", "--files-only", "--artifacts=" + source(t)}, exitcode.LocalIO, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, tc.prefix, tc.args...)
			require.Equal(t, tc.code, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tc.want)
			require.Equal(t, 1, strings.Count(stderr, "error: "))
		})
	}
}

func TestStagesOfTheRuntime(t *testing.T) {
	src := source(t)
	defaults := filepath.Join(src, "share/defaults/kata-containers")
	require.NoError(t, os.MkdirAll(defaults, 0o755))
	for _, shim := range []string{"qemu-snp", "qemu-tdx"} {
		require.NoError(t, os.WriteFile(filepath.Join(defaults, "configuration-"+shim+".toml"), []byte("[hypervisor.qemu]\npath = '/opt/kata/bin/qemu'\n"), 0o644))
	}
	for name, tc := range map[string]struct {
		version, runtime string
		// file is below the node.
		file string
	}{
		"containerd": {"containerd://2.2.1", "containerd", "etc/containerd/conf.d/kata-deploy-blue.toml"},
		"CRI-O":      {"cri-o://1.33.0", "cri-o", "etc/crio/crio.conf.d/99-kata-deploy-blue"},
	} {
		t.Run(name, func(t *testing.T) {
			node := t.TempDir()
			environment := map[string]string{
				"INSTALLATION_PREFIX": node, "CONTAINER_RUNTIME_VERSION": tc.version, "MULTI_INSTALL_SUFFIX": "blue", "HANDLER_DIGEST": "0123ab",
				"SHIMS_" + map[string]string{"amd64": "X86_64", "arm64": "AARCH64"}[runtime.GOARCH]: "qemu-tdx",
			}
			where := []string{"--containerd-directory=" + node + "/etc/containerd", "--crio-directory=" + node + "/etc/crio"}
			code, stdout, stderr := runWith(t, environment, append(where, "install", "--files-only", "--artifacts="+src)...)
			require.Equal(t, 0, code, stderr)
			installed := "installed to " + node + "/opt/kata-blue: "
			require.Equal(t, installed+"3 new, 0 unchanged, 0 removed, 0.0 MiB written\n"+tc.runtime+", when it is started again, serves kata-qemu-tdx-blue-0123ab\n", stdout)
			content, err := os.ReadFile(filepath.Join(node, tc.file))
			require.NoError(t, err)
			config := node + "/opt/kata-blue/share/defaults/kata-containers/runtimes/qemu-tdx/configuration-qemu-tdx.toml"
			require.Contains(t, string(content), config)
			require.Contains(t, string(content), "kata-qemu-tdx-blue-0123ab")
			require.FileExists(t, config)
			code, stdout, _ = runWith(t, environment, append(where, "install-stage-cri", "--files-only")...)
			require.Equal(t, 0, code)
			require.Equal(t, tc.runtime+" knows kata-qemu-tdx-blue-0123ab, as before\n", stdout)

			code, stdout, stderr = runWith(t, environment, append(where, "cleanup-stage-revert-cri", "--files-only", "--output=json")...)
			require.Equal(t, 0, code, stderr)
			var result struct{ Restart bool }
			require.NoError(t, json.Unmarshal([]byte(stdout), &result))
			require.True(t, result.Restart)
			code, _, stderr = runWith(t, environment, append(where, "cleanup", "--files-only")...)
			require.Equal(t, 0, code, stderr)
			entries, err := os.ReadDir(node)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
	code, _, stderr := run(t, t.TempDir(), "install-stage-cri", "--files-only")
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "CONTAINER_RUNTIME_VERSION is not set")
	code, _, stderr = runWith(t, map[string]string{"CONTAINER_RUNTIME_VERSION": "docker://28"}, "cleanup-stage-revert-cri", "--files-only")
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "kata-deploy knows containerd and cri-o")
}
