package execlog_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/execlog/logpb"
	"github.com/kiln-build/kiln/tools/execlog/logtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// The two files are three spawns out of the logs that Bazel 7.7.1 wrote for
// builds of //payload:tdx from a disk cache, once in each format.
func TestBothFormatsSayTheSame(t *testing.T) {
	compact, err := execlog.ReadFile(t.Context(), "testdata/bazel-7.7.1.compact")
	require.NoError(t, err)
	require.True(t, compact.Compact)
	require.NotEmpty(t, compact.Invocation)
	json, err := execlog.ReadFile(t.Context(), "testdata/bazel-7.7.1.json")
	require.NoError(t, err)
	require.False(t, json.Compact)

	require.Len(t, compact.Spawns, 3)
	require.Len(t, json.Spawns, 3)
	byOutput := map[string]*execlog.Spawn{}
	for _, s := range json.Spawns {
		byOutput[s.Declared[0]] = s
	}
	for _, got := range compact.Spawns {
		want := byOutput[got.Declared[0]]
		require.NotNil(t, want, got)
		require.Equal(t, want.String(), got.String())
		require.Equal(t, want.Digest, got.Digest)
		require.Equal(t, want.Args, got.Args)
		require.Equal(t, want.Environment, got.Environment)
		require.Equal(t, want.Platform, got.Platform)
		require.Equal(t, want.Inputs(), got.Inputs())
		require.Equal(t, want.Outputs, got.Outputs)
		require.Equal(t, want.Declared, got.Declared)
		require.Equal(t, want.Runner, got.Runner)
		require.Equal(t, want.Derived(), got.Derived())
	}
}

func TestJSON(t *testing.T) {
	start := time.Date(2026, 11, 24, 13, 33, 54, 521e6, time.UTC)
	s := logtest.Component("@@//stack/kernel:kernel", "4d73", "remote", start, 20*time.Millisecond, 4*time.Second, 90*time.Second, time.Second)
	s.EnvironmentVariables = []*logpb.EnvironmentVariable{{Name: "PATH", Value: "/bin"}, {Name: "HOME", Value: "/"}}
	s.Platform = &logpb.Platform{Properties: []*logpb.Platform_Property{{Name: "OSFamily", Value: "linux"}}}
	s.Inputs = []*logpb.SpawnExec_File{
		{Path: "stack/kernel/b", Digest: &logpb.Digest{Hash: "b0", SizeBytes: 2}},
		{Path: "stack/kernel/a", Digest: &logpb.Digest{Hash: "e3b0c442", SizeBytes: 0}, IsTool: true},
		{Path: "stack/kernel/link", SymlinkTargetPath: "a"},
	}
	s.Status, s.ExitCode, s.TimeoutMillis = "NON_ZERO_EXIT", 7, 1500
	log, err := execlog.ReadFile(t.Context(), logtest.JSON(t, s, logtest.Component("//stack/qemu:qemu", "", "local", start)))
	require.NoError(t, err)
	require.Len(t, log.Spawns, 2)
	got := log.Spawns[0]
	require.Equal(t, "KataComponent //stack/kernel:kernel", got.String())
	require.Equal(t, execlog.Digest{Hash: "4d73", Size: 148}, got.Digest)
	require.Equal(t, execlog.Metrics{
		Start: start, Total: 95*time.Second + 120*time.Millisecond,
		Queue: 20 * time.Millisecond, Setup: 4 * time.Second, Execution: 90 * time.Second, Outputs: time.Second,
	}, got.Metrics)
	require.Equal(t, []execlog.Variable{{Name: "HOME", Value: "/"}, {Name: "PATH", Value: "/bin"}}, got.Environment)
	require.Equal(t, []execlog.Variable{{Name: "OSFamily", Value: "linux"}}, got.Platform)
	require.Equal(t, []execlog.File{
		{Path: "stack/kernel/a", Tool: true},
		{Path: "stack/kernel/b", Digest: execlog.Digest{Hash: "b0", Size: 2}},
		{Path: "stack/kernel/link", Target: "a"},
	}, got.Inputs())
	require.Equal(t, "NON_ZERO_EXIT", got.Status)
	require.Equal(t, 7, got.ExitCode)
	require.Equal(t, 1500*time.Millisecond, got.Timeout)
	require.Zero(t, log.Spawns[1].Digest)
}

func TestNothingRan(t *testing.T) {
	log, err := execlog.Read(t.Context(), "log.json", strings.NewReader(""))
	require.NoError(t, err)
	require.Empty(t, log.Spawns)
}

func invocation() *logpb.ExecLogEntry {
	return &logpb.ExecLogEntry{Type: &logpb.ExecLogEntry_Invocation_{Invocation: &logpb.ExecLogEntry_Invocation{
		HashFunctionName: "SHA-256", WorkspaceRunfilesDirectory: "_main", Id: "6f2c",
	}}}
}

func file(id uint32, path, hash string) *logpb.ExecLogEntry {
	return &logpb.ExecLogEntry{Id: id, Type: &logpb.ExecLogEntry_File_{File: &logpb.ExecLogEntry_File{
		Path: path, Digest: &logpb.Digest{Hash: hash, SizeBytes: 1},
	}}}
}

func inputSet(id uint32, sets []uint32, inputs ...uint32) *logpb.ExecLogEntry {
	return &logpb.ExecLogEntry{Id: id, Type: &logpb.ExecLogEntry_InputSet_{InputSet: &logpb.ExecLogEntry_InputSet{
		TransitiveSetIds: sets, InputIds: inputs,
	}}}
}

func symlinks(id uint32, sets []uint32, entries map[string]uint32) *logpb.ExecLogEntry {
	return &logpb.ExecLogEntry{Id: id, Type: &logpb.ExecLogEntry_SymlinkEntrySet_{SymlinkEntrySet: &logpb.ExecLogEntry_SymlinkEntrySet{
		TransitiveSetIds: sets, DirectEntries: entries,
	}}}
}

func spawn(inputs, tools uint32, outputs ...*logpb.ExecLogEntry_Output) *logpb.ExecLogEntry {
	return &logpb.ExecLogEntry{Type: &logpb.ExecLogEntry_Spawn_{Spawn: &logpb.ExecLogEntry_Spawn{
		Mnemonic: "KataComponent", TargetLabel: "@@//stack/qemu:qemu", Runner: "remote",
		InputSetId: inputs, ToolSetId: tools, Outputs: outputs,
	}}}
}

func output(id uint32) *logpb.ExecLogEntry_Output {
	return &logpb.ExecLogEntry_Output{Type: &logpb.ExecLogEntry_Output_OutputId{OutputId: id}}
}

func read(t *testing.T, entries ...*logpb.ExecLogEntry) (*execlog.Log, error) {
	t.Helper()
	return execlog.Read(t.Context(), "log.bin", bytes.NewReader(logtest.Compact(t, entries...)))
}

// Every path of a runfiles tree, with the digest that is to be there.
func paths(files []execlog.File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		out[f.Path] = f.Digest.Hash
	}
	return out
}

func TestCompactSetsAndDirectories(t *testing.T) {
	log, err := read(t, invocation(),
		file(1, "a", "a0"),
		file(2, "b", "b0"),
		&logpb.ExecLogEntry{Id: 3, Type: &logpb.ExecLogEntry_Directory_{Directory: &logpb.ExecLogEntry_Directory{
			Path: "dir", Files: []*logpb.ExecLogEntry_File{{Path: "x/y", Digest: &logpb.Digest{Hash: "d0", SizeBytes: 1}}, {Path: "empty"}},
		}}},
		&logpb.ExecLogEntry{Id: 4, Type: &logpb.ExecLogEntry_UnresolvedSymlink_{UnresolvedSymlink: &logpb.ExecLogEntry_UnresolvedSymlink{Path: "link", TargetPath: "to"}}},
		inputSet(5, nil, 1, 4),
		inputSet(6, []uint32{5}, 2, 3),
		&logpb.ExecLogEntry{Type: &logpb.ExecLogEntry_SymlinkAction_{SymlinkAction: &logpb.ExecLogEntry_SymlinkAction{InputPath: "a", OutputPath: "out/a", TargetLabel: "//x", Mnemonic: "Symlink"}}},
		file(7, "out/layer", "f0"),
		spawn(6, 5, output(7), output(3), &logpb.ExecLogEntry_Output{Type: &logpb.ExecLogEntry_Output_InvalidOutputPath{InvalidOutputPath: "out/absent"}}),
	)
	require.NoError(t, err)
	require.Equal(t, "6f2c", log.Invocation)
	require.Equal(t, []execlog.Symlink{{Path: "out/a", Input: "a", Target: "//x", Mnemonic: "Symlink"}}, log.Symlinks)
	require.Len(t, log.Spawns, 1)
	s := log.Spawns[0]
	require.Equal(t, "KataComponent //stack/qemu:qemu", s.String())
	require.Equal(t, []execlog.File{
		{Path: "a", Digest: execlog.Digest{Hash: "a0", Size: 1}, Tool: true},
		{Path: "b", Digest: execlog.Digest{Hash: "b0", Size: 1}},
		{Path: "dir/empty"},
		{Path: "dir/x/y", Digest: execlog.Digest{Hash: "d0", Size: 1}},
		{Path: "link", Tool: true, Target: "to"},
	}, s.Inputs())
	require.Equal(t, []string{"dir", "out/absent", "out/layer"}, s.Declared)
	require.Equal(t, map[string]string{"dir/x/y": "d0", "dir/empty": "", "out/layer": "f0"}, paths(s.Outputs))
}

func TestCompactRunfiles(t *testing.T) {
	tree := &logpb.ExecLogEntry_RunfilesTree{
		Path: "out/tool.runfiles", InputSetId: 10, SymlinksId: 12, RootSymlinksId: 13,
		EmptyFiles:          []string{"pkg/__init__.py", "../other~/__init__.py"},
		RepoMappingManifest: &logpb.ExecLogEntry_File{Digest: &logpb.Digest{Hash: "99", SizeBytes: 1}},
	}
	entries := func(tree *logpb.ExecLogEntry_RunfilesTree) []*logpb.ExecLogEntry {
		return []*logpb.ExecLogEntry{
			invocation(),
			file(1, "pkg/source", "a0"),
			file(2, "bazel-out/k8-fastbuild/bin/pkg/tool", "b0"),
			file(3, "external/rules~/lib", "c0"),
			file(4, "bazel-out/k8-opt/bin/external/rules~/made", "d0"),
			file(5, "pkg/target", "e0"),
			&logpb.ExecLogEntry{Id: 6, Type: &logpb.ExecLogEntry_Directory_{Directory: &logpb.ExecLogEntry_Directory{
				Path: "pkg/tree", Files: []*logpb.ExecLogEntry_File{{Path: "leaf", Digest: &logpb.Digest{Hash: "1f", SizeBytes: 1}}},
			}}},
			inputSet(10, nil, 1, 2, 3, 4),
			symlinks(11, nil, map[string]uint32{"pkg/source": 5, "pkg/nothing": 0}),
			symlinks(12, []uint32{11}, map[string]uint32{"pkg/alias": 5, "pkg/aliased": 6, "../rules~/alias": 5}),
			symlinks(13, nil, map[string]uint32{"root": 5}),
			{Id: 14, Type: &logpb.ExecLogEntry_RunfilesTree_{RunfilesTree: tree}},
			inputSet(15, nil, 14),
			spawn(15, 15),
		}
	}
	log, err := read(t, entries(tree)...)
	require.NoError(t, err)
	inputs := log.Spawns[0].Inputs()
	require.Equal(t, map[string]string{
		"out/tool.runfiles/_main/pkg/source":       "a0", // The file itself wins over the symlink.
		"out/tool.runfiles/_main/pkg/tool":         "b0",
		"out/tool.runfiles/rules~/lib":             "c0",
		"out/tool.runfiles/rules~/made":            "d0",
		"out/tool.runfiles/_main/pkg/alias":        "e0",
		"out/tool.runfiles/_main/pkg/nothing":      "",
		"out/tool.runfiles/_main/pkg/aliased/leaf": "1f",
		"out/tool.runfiles/rules~/alias":           "e0",
		"out/tool.runfiles/_main/pkg/__init__.py":  "",
		"out/tool.runfiles/other~/__init__.py":     "",
		"out/tool.runfiles/root":                   "e0",
		"out/tool.runfiles/_repo_mapping":          "99",
	}, paths(inputs))
	for _, f := range inputs {
		require.True(t, f.Tool, f.Path)
	}

	// The old layout has everything of other repositories twice.
	tree.LegacyExternalRunfiles = true
	log, err = read(t, entries(tree)...)
	require.NoError(t, err)
	legacy := paths(log.Spawns[0].Inputs())
	require.Equal(t, "c0", legacy["out/tool.runfiles/_main/external/rules~/lib"])
	require.Equal(t, "e0", legacy["out/tool.runfiles/_main/external/rules~/alias"])

	// A tree with files of other repositories alone has a marker.
	log, err = read(t, invocation(), file(1, "external/rules~/lib", "c0"), inputSet(2, nil, 1),
		&logpb.ExecLogEntry{Id: 3, Type: &logpb.ExecLogEntry_RunfilesTree_{RunfilesTree: &logpb.ExecLogEntry_RunfilesTree{Path: "t", InputSetId: 2}}},
		inputSet(4, nil, 3), spawn(4, 0))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"t/rules~/lib": "c0", "t/_main/.runfile": ""}, paths(log.Spawns[0].Inputs()))
}

func TestNotAWholeLog(t *testing.T) {
	whole := logtest.Compact(t, invocation(), file(1, strings.Repeat("path/", 100), "a0"), inputSet(2, nil, 1), spawn(2, 0))
	json, err := os.ReadFile(logtest.JSON(t, logtest.Component("//a", "4d", "remote", time.Unix(0, 0)), logtest.Component("//b", "4e", "remote", time.Unix(0, 0))))
	require.NoError(t, err)
	compact := func(entries ...*logpb.ExecLogEntry) string { return string(logtest.Compact(t, entries...)) }
	for name, tc := range map[string]struct{ content, want string }{
		"compact, cut short":    {string(whole[:len(whole)-20]), "entry 1: it ends in the middle: take it after Bazel has exited, and copy all of it"},
		"JSON, cut short":       {string(json[:len(json)-20]), "entry 2: it ends in the middle"},
		"JSON, broken":          {string(json) + "{]", "entry 3: invalid character ']'"},
		"JSON of another kind":  {`{"id":{"started":{}},"children":[]}`, "entry 1: it has no mnemonic, so it is not a spawn"},
		"a field of wrong type": {`{"mnemonic":"KataComponent","inputs":"none"}`, "entry 1: it is not a spawn"},
		"text":                  {"INFO: Build completed successfully\n", "entry 1: it starts like neither format of a log: give what --execution_log_compact_file or --execution_log_json_file of Bazel 7.7 wrote"},
		"no entries":            {compact(), "entry 1: it has no entries"},
		"no invocation":         {compact(file(1, "a", "a0")), "entry 1: the first entry, and no other, must be the invocation"},
		"two invocations":       {compact(invocation(), invocation()), "entry 2: the first entry, and no other, must be the invocation"},
		"an empty entry":        {compact(invocation(), &logpb.ExecLogEntry{}), "entry 2: it is of a kind that Bazel 7.7 does not write"},
		"unknown input":         {compact(invocation(), inputSet(2, nil, 1)), "entry 2: it names number 1 as an input"},
		"unknown set":           {compact(invocation(), spawn(3, 0)), "entry 2: it names number 3 as a *execlog.inputSet"},
		"a set as an input":     {compact(invocation(), inputSet(1, nil), inputSet(2, nil, 1)), "entry 3: it names number 1 as an input"},
		"a file as a set":       {compact(invocation(), file(1, "a", "a0"), inputSet(2, []uint32{1})), "entry 3: it names number 1 as a *execlog.inputSet"},
		"a number twice":        {compact(invocation(), file(1, "a", "a0"), file(1, "b", "b0")), "entry 3: number 1 is taken"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "the.log")
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o644))
			_, err := execlog.ReadFile(t.Context(), path)
			require.ErrorContains(t, err, "execution log "+path+", "+tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestForeignZstd(t *testing.T) {
	// A layer is a zstd stream too.
	_, err := execlog.Read(t.Context(), "layer.tar.zst", bytes.NewReader(logtest.Compact(t, &logpb.ExecLogEntry{
		Id: 1, Type: &logpb.ExecLogEntry_SymlinkAction_{SymlinkAction: &logpb.ExecLogEntry_SymlinkAction{InputPath: "opt/kata"}},
	})))
	require.ErrorContains(t, err, "the first entry, and no other, must be the invocation")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestAbsentFile(t *testing.T) {
	_, err := execlog.ReadFile(t.Context(), filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := execlog.Read(ctx, "log.bin", bytes.NewReader(logtest.Compact(t, invocation())))
	require.ErrorIs(t, err, context.Canceled)
}

func TestDerivedKeyFollowsWhatGoesIn(t *testing.T) {
	base := func() *logpb.SpawnExec {
		s := logtest.Component("//a", "", "linux-sandbox", time.Unix(1, 0))
		s.Inputs = []*logpb.SpawnExec_File{{Path: "a", Digest: &logpb.Digest{Hash: "a0", SizeBytes: 1}}}
		s.EnvironmentVariables = []*logpb.EnvironmentVariable{{Name: "A", Value: "1"}}
		s.Platform = &logpb.Platform{Properties: []*logpb.Platform_Property{{Name: "P", Value: "1"}}}
		return s
	}
	key := func(change func(*logpb.SpawnExec)) string {
		s := base()
		change(s)
		log, err := execlog.ReadFile(t.Context(), logtest.JSON(t, s))
		require.NoError(t, err)
		return log.Spawns[0].Derived()
	}
	want := key(func(*logpb.SpawnExec) {})
	for name, tc := range map[string]struct {
		change func(*logpb.SpawnExec)
		same   bool
	}{
		"runner":      {func(s *logpb.SpawnExec) { s.Runner = "remote" }, true},
		"output":      {func(s *logpb.SpawnExec) { s.ActualOutputs[0].Digest.Hash = "other" }, true},
		"argument":    {func(s *logpb.SpawnExec) { s.CommandArgs[1] = "pack" }, false},
		"joined":      {func(s *logpb.SpawnExec) { s.CommandArgs = []string{"tools/componentbuild"} }, false},
		"environment": {func(s *logpb.SpawnExec) { s.EnvironmentVariables[0].Value = "2" }, false},
		"platform":    {func(s *logpb.SpawnExec) { s.Platform.Properties[0].Value = "2" }, false},
		"input":       {func(s *logpb.SpawnExec) { s.Inputs[0].Digest.Hash = "b0" }, false},
		"declared":    {func(s *logpb.SpawnExec) { s.ListedOutputs = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.same, want == key(tc.change))
		})
	}
}
