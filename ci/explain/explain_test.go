package explain_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/command"
	"github.com/kiln-build/kiln/ci/explain"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/execlog/logpb"
	"github.com/kiln-build/kiln/tools/execlog/logtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	out  = "bazel-out/k8-fastbuild/bin/"
	exec = "bazel-out/k8-opt-exec-ST-d57f47055a04/bin/"
)

func file(path, hash string, size int64) *logpb.SpawnExec_File {
	return &logpb.SpawnExec_File{Path: path, Digest: &logpb.Digest{Hash: strings.Repeat(hash, 8), SizeBytes: size}}
}

func tool(path, hash string) *logpb.SpawnExec_File {
	f := file(path, hash, 4354210)
	f.IsTool = true
	return f
}

// spawn gives an executed action of a target. Without a cache it has no key.
func spawn(mnemonic, target string, inputs []*logpb.SpawnExec_File, outputs ...*logpb.SpawnExec_File) *logpb.SpawnExec {
	s := logtest.Component(target, "", "linux-sandbox", time.Unix(0, 0), 0, 0, time.Second, 0)
	s.Mnemonic, s.Inputs, s.ActualOutputs, s.ListedOutputs = mnemonic, inputs, outputs, nil
	s.CommandArgs = []string{exec + "tools/component/component", "build"}
	for _, o := range outputs {
		s.ListedOutputs = append(s.ListedOutputs, o.Path)
	}
	return s
}

// kernel is a component with one of everything.
func kernel() *logpb.SpawnExec {
	s := spawn("KataComponent", "//stack/kernel:kernel", []*logpb.SpawnExec_File{
		file("stack/kernel/build.sh", "a0", 900),
		file("external/_main~debian~debian_linux/lock.json", "b0", 300),
		file(out+"stack/kernel/kernel.tar.zst-0.params", "c0", 1672),
		tool(exec+"tools/component/component", "d0"),
		tool(exec+"tools/component/component.runfiles/_main/tools/component/component", "d0"),
	}, file(out+"stack/kernel/kernel.tar.zst", "f0", 10866722))
	s.CommandArgs = append(s.CommandArgs, "--jobs", "2", "--epoch=0")
	s.EnvironmentVariables = []*logpb.EnvironmentVariable{{Name: "LC_ALL", Value: "C"}}
	s.Platform = &logpb.Platform{Properties: []*logpb.Platform_Property{{Name: "OSFamily", Value: "linux"}}}
	return s
}

func build(t *testing.T, spawns ...*logpb.SpawnExec) *explain.Build {
	t.Helper()
	log, err := execlog.ReadFile(t.Context(), logtest.JSON(t, spawns...))
	require.NoError(t, err)
	return explain.NewBuild(log)
}

func components(s *execlog.Spawn) bool { return s.Mnemonic == "KataComponent" }

// explained gives the text about the only component that differs.
func explained(t *testing.T, a, b *explain.Build) string {
	t.Helper()
	explanations, _ := explain.Explain(b, a, components)
	require.Len(t, explanations, 1)
	var text bytes.Buffer
	require.NoError(t, explanations[0].Text(&text))
	return text.String()
}

// Each case changes one thing, and names it.
func TestOneDifference(t *testing.T) {
	type change = func(*logpb.SpawnExec)
	arg := func(i int, value string) change { return func(s *logpb.SpawnExec) { s.CommandArgs[i] = value } }
	input := func(f *logpb.SpawnExec_File) change {
		return func(s *logpb.SpawnExec) { s.Inputs = append(s.Inputs, f) }
	}
	for name, tc := range map[string]struct {
		change change
		want   []string
	}{
		"a flag's value":  {arg(3, "4"), []string{"cause  argument --jobs\n           A  2\n           B  4\n  path   KataComponent //stack/kernel:kernel\n"}},
		"a flag":          {arg(4, "--epoch=1764000000"), []string{"cause  argument --epoch\n           A  --epoch=0\n", "looks like  timestamp: there is a date, or a number of seconds since 1970, in --epoch=1764000000\n"}},
		"another program": {arg(0, "/usr/bin/make"), []string{"cause  argument\n", "looks like  host tool: KataComponent //stack/kernel:kernel runs /usr/bin/make, which is the machine's and no input"}},
		"one more argument": {func(s *logpb.SpawnExec) { s.CommandArgs = append(s.CommandArgs, "--verbose") },
			[]string{"cause  argument\n           A  (not there)\n           B  --verbose\n"}},
		"one argument less": {func(s *logpb.SpawnExec) { s.CommandArgs = s.CommandArgs[:4] },
			[]string{"cause  argument --epoch\n           A  --epoch=0\n           B  (not there)\n"}},
		"order": {func(s *logpb.SpawnExec) {
			s.CommandArgs = []string{s.CommandArgs[0], "build", "--epoch=0", "--jobs", "2"}
		}, []string{"the order of 1 arguments\n           A  … --jobs 2 --epoch=0 …\n           B  … --epoch=0 --jobs 2 …\n", "looks like  undeclared order"}},
		"a variable": {func(s *logpb.SpawnExec) { s.EnvironmentVariables[0].Value = "en_US.UTF-8" },
			[]string{"cause  environment variable LC_ALL\n           A  C\n           B  en_US.UTF-8\n"}},
		"a new variable with a home": {func(s *logpb.SpawnExec) {
			s.EnvironmentVariables = append(s.EnvironmentVariables, &logpb.EnvironmentVariable{Name: "PATH", Value: "/bin:/home/alice/bin"})
		}, []string{"cause  environment variable PATH\n           A  (not there)\n", "looks like  absolute path: /bin is a path of one machine"}},
		"a variable into the output base": {func(s *logpb.SpawnExec) {
			s.EnvironmentVariables[0].Value = "/home/alice/.cache/bazel/_bazel_alice/0f/execroot/_main"
		},
			[]string{"/execroot/_main is a path in Bazel's output base"}},
		"a path in the guest is none of the machine": {func(s *logpb.SpawnExec) { s.CommandArgs = append(s.CommandArgs, "--prefix=/opt/kata") },
			[]string{"cause  argument --prefix", "!absolute path"}},
		"the clock": {func(s *logpb.SpawnExec) {
			s.EnvironmentVariables = append(s.EnvironmentVariables, &logpb.EnvironmentVariable{Name: "SOURCE_DATE_EPOCH", Value: "1"})
		}, []string{"looks like  timestamp: SOURCE_DATE_EPOCH is one by its name"}},
		"a date in a path": {input(file("stack/kernel/snapshot-20261124/config", "e0", 1)),
			[]string{"cause  new source file stack/kernel/snapshot-20261124/config\n", "looks like  timestamp: there is a date"}},
		"the platform": {func(s *logpb.SpawnExec) { s.Platform.Properties[0].Value = "windows" },
			[]string{"cause  platform property OSFamily\n           A  linux\n           B  windows\n"}},
		"the timeout":     {func(s *logpb.SpawnExec) { s.TimeoutMillis = 1000 }, []string{"cause  the timeout\n           A  0s\n           B  1s\n"}},
		"a tag":           {func(s *logpb.SpawnExec) { s.Cacheable = false; s.CommandArgs[3] = "1" }, []string{"cause  the action may be cached\n           A  yes\n           B  no\n"}},
		"another output":  {func(s *logpb.SpawnExec) { s.ListedOutputs = append(s.ListedOutputs, out+"stack/kernel/map") }, []string{"cause  the outputs that are asked for\n           A  (not there)\n           B  " + out + "stack/kernel/map\n"}},
		"a source":        {func(s *logpb.SpawnExec) { s.Inputs[0] = file("stack/kernel/build.sh", "a1", 901) }, []string{"cause  source file stack/kernel/build.sh\n           A  a0a0a0a0a0a0, 900 bytes\n           B  a1a1a1a1a1a1, 901 bytes\n  path   stack/kernel/build.sh\n      -> KataComponent //stack/kernel:kernel\n"}},
		"an emptied file": {func(s *logpb.SpawnExec) { s.Inputs[0] = &logpb.SpawnExec_File{Path: "stack/kernel/build.sh"} }, []string{"B  empty\n"}},
		"a symlink": {func(s *logpb.SpawnExec) {
			s.Inputs[0] = &logpb.SpawnExec_File{Path: "stack/kernel/build.sh", SymlinkTargetPath: "x"}
		},
			[]string{"B  a symlink to x\n"}},
		"a dropped source":      {func(s *logpb.SpawnExec) { s.Inputs = s.Inputs[1:] }, []string{"cause  dropped source file stack/kernel/build.sh\n", "B  (not there)\n"}},
		"a new patch":           {input(file("stack/kernel/patches/0001-fix.patch", "e0", 1)), []string{"cause  new patch stack/kernel/patches/0001-fix.patch\n"}},
		"a lock":                {input(file("stack/shim/go.sum", "e0", 1)), []string{"cause  new lock file stack/shim/go.sum\n"}},
		"an external file":      {func(s *logpb.SpawnExec) { s.Inputs[1].Digest.Hash = "b1" }, []string{"cause  file of the external repository _main~debian~debian_linux\n         external/_main~debian~debian_linux/lock.json\n", "pinned by tools/debian/debian.lock\n"}},
		"the workspace status":  {input(file("bazel-out/volatile-status.txt", "e0", 1)), []string{"cause  new workspace status, bazel-out/volatile-status.txt\n"}},
		"what Bazel wrote":      {input(file(out+"stack/kernel/generated.mak", "e0", 1)), []string{"cause  new input that Bazel wrote itself, " + out + "stack/kernel/generated.mak\n"}},
		"arguments in a file":   {func(s *logpb.SpawnExec) { s.Inputs[2].Digest.Hash = "c1" }, []string{"cause  arguments, in " + out + "stack/kernel/kernel.tar.zst-0.params\n", "undeclared order, perhaps"}},
		"more arguments":        {func(s *logpb.SpawnExec) { s.Inputs[2] = file(s.Inputs[2].Path, "c1", 1700) }, []string{"cause  arguments, in ", "!undeclared order"}},
		"a file of the machine": {input(file("/usr/include/elf.h", "e0", 1)), []string{"cause  new input of the machine itself, /usr/include/elf.h\n", "looks like  host tool: the input /usr/include/elf.h is the machine's own\n"}},
		"a tool that Bazel built earlier": {func(s *logpb.SpawnExec) { s.Inputs[3].Digest.Hash, s.Inputs[4].Digest.Hash = "d1", "d1" },
			[]string{"cause  tool that Bazel wrote itself, " + exec + "tools/component/component\n", "looks like  tool: " + exec + "tools/component/component is part of a program that KataComponent //stack/kernel:kernel runs\n", "!runfiles"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := kernel()
			tc.change(b)
			text := explained(t, build(t, kernel()), build(t, b))
			for _, want := range tc.want {
				if unwanted, ok := strings.CutPrefix(want, "!"); ok {
					require.NotContains(t, text, unwanted)
				} else {
					require.Contains(t, text, want)
				}
			}
			require.Contains(t, text, "  key    unknown in A, unknown in B; executed on linux-sandbox in 1.1 s\n")
		})
	}
}

// The chain has a program that is compiled, linked, and then is a component's
// tool.
func chain(source string, seed string) []*logpb.SpawnExec {
	compile := spawn("GoCompilePkg", "//tools/component:component_lib", []*logpb.SpawnExec_File{
		file("tools/component/main.go", source, 5000),
	}, file(exec+"tools/component/lib.a", "1"+seed, 8000))
	link := spawn("GoLink", "//tools/component:component", []*logpb.SpawnExec_File{
		file(exec+"tools/component/lib.a", "1"+seed, 8000),
	}, file(exec+"tools/component/component", "2"+seed, 4354210))
	component := kernel()
	component.Inputs[3] = tool(exec+"tools/component/component", "2"+seed)
	component.Inputs[4] = tool(exec+"tools/component/component.runfiles/_main/tools/component/component", "2"+seed)
	return []*logpb.SpawnExec{compile, link, component}
}

func TestATool(t *testing.T) {
	text := explained(t, build(t, chain("aa", "0")...), build(t, chain("ab", "1")...))
	require.Contains(t, text, `  cause  source file tools/component/main.go
           A  aaaaaaaaaaaa, 5000 bytes
           B  abababababab, 5000 bytes
  path   tools/component/main.go
      -> GoCompilePkg //tools/component:component_lib makes `+exec+`tools/component/lib.a
      -> GoLink //tools/component:component makes `+exec+`tools/component/component
      -> KataComponent //stack/kernel:kernel
  looks like  tool: `+exec+`tools/component/component is part of a program that KataComponent //stack/kernel:kernel runs
`)
	require.Equal(t, 1, strings.Count(text, "cause"), text)
}

func TestNondeterminismOnTheWay(t *testing.T) {
	// The linker got the same, and made something else.
	a, b := chain("aa", "0"), chain("aa", "1")
	b[0].ActualOutputs, b[1].Inputs = a[0].ActualOutputs, a[1].Inputs
	text := explained(t, build(t, a...), build(t, b...))
	require.Contains(t, text, "  cause  GoLink //tools/component:component made other bytes from the same inputs\n")
	require.Contains(t, text, "looks like  timestamp, random number or order in an output: the bytes differ and are of the same size")
	b[1].ActualOutputs[0].Digest.SizeBytes++
	b[2].Inputs[3].Digest.SizeBytes++
	require.Contains(t, explained(t, build(t, a...), build(t, b...)), "are of another size")
}

func TestNondeterminismOfTheComponent(t *testing.T) {
	b := kernel()
	b.ActualOutputs[0] = file(b.ActualOutputs[0].Path, "f1", 10866722)
	text := explained(t, build(t, kernel()), build(t, b))
	require.Contains(t, text, " in both; executed on linux-sandbox")
	require.Contains(t, text, "  cause  KataComponent //stack/kernel:kernel made other bytes from the same inputs\n           A  f0f0f0f0f0f0, 10866722 bytes\n")
}

func TestAnActionThatAHasNot(t *testing.T) {
	a := chain("aa", "0")
	text := explained(t, build(t, a[2]), build(t, chain("ab", "1")...))
	require.Contains(t, text, "  cause  A has no such action\n")
	require.Contains(t, text, "  path   GoLink //tools/component:component makes "+exec+"tools/component/component\n      -> KataComponent //stack/kernel:kernel\n")
}

func TestAKeyThatDiffersForNothingSeen(t *testing.T) {
	a, b := kernel(), kernel()
	a.Digest, b.Digest = &logpb.Digest{Hash: "4d", SizeBytes: 148}, &logpb.Digest{Hash: "4e", SizeBytes: 148}
	text := explained(t, build(t, a), build(t, b))
	require.Contains(t, text, "  key    4d in A, 4e in B;")
	require.Contains(t, text, "  cause  the key differs, and nothing that the logs show does\n")
}

func TestAnotherConfiguration(t *testing.T) {
	rename := func(text string) string { return strings.ReplaceAll(text, "k8-fastbuild", "k8-opt") }
	b := kernel()
	for _, f := range append(b.Inputs, b.ActualOutputs...) {
		f.Path = rename(f.Path)
	}
	b.ListedOutputs[0] = rename(b.ListedOutputs[0])
	b.CommandArgs = append(b.CommandArgs, out+"x")
	a := kernel()
	a.CommandArgs = append([]string{}, b.CommandArgs...)
	b.CommandArgs[len(b.CommandArgs)-1] = rename(out + "x")
	text := explained(t, build(t, a), build(t, b))
	require.Contains(t, text, "  cause  the configuration that the action is built in\n           A  k8-fastbuild\n           B  k8-opt\n")
	require.Equal(t, 1, strings.Count(text, "cause"), text)
}

func TestTheToolOfAConfigurationIsComparedWithATool(t *testing.T) {
	// One target is built for the payload and, as a tool, for the machine.
	a, b := chain("aa", "0"), chain("ab", "1")
	payload := spawn("GoLink", "//tools/component:component", nil, file(out+"tools/component/component", "99", 1))
	b[1].ListedOutputs[0] = strings.Replace(b[1].ListedOutputs[0], "d57f", "0000", 1)
	explanations, _ := explain.Explain(build(t, b...), build(t, append([]*logpb.SpawnExec{payload}, a...)...), func(s *execlog.Spawn) bool { return s.Mnemonic == "GoLink" })
	require.Len(t, explanations, 1)
	require.Equal(t, a[1].ListedOutputs, explanations[0].Counterpart.Declared)
}

// Every way through the graph leads to one cause, and the rest is counted.
func TestManyCausesStayOnOneScreen(t *testing.T) {
	side := func(flag, seed string) []*logpb.SpawnExec {
		component := kernel()
		var spawns []*logpb.SpawnExec
		for i := range 40 {
			object := fmt.Sprintf("%sobjects/%02d.o", out, i)
			c := spawn("CppCompile", fmt.Sprintf("//objects:%02d", i), []*logpb.SpawnExec_File{
				file(fmt.Sprintf("objects/%02d.c", i), seed, 10),
				file("external/_main~debian~debian_linux/include/x.h", seed, 10),
			}, file(object, fmt.Sprintf("%02d%s", i, seed), 10))
			c.CommandArgs = append(c.CommandArgs, flag)
			component.Inputs = append(component.Inputs, file(object, fmt.Sprintf("%02d%s", i, seed), 10))
			spawns = append(spawns, c)
		}
		return append(spawns, component)
	}
	a, b := side("-O0", "aa"), side("-O2", "bb")
	text := explained(t, build(t, a...), build(t, b...))
	require.LessOrEqual(t, strings.Count(text, "\n"), screen, text)
	require.Contains(t, text, "  and    39 more: source file objects/03.c; ")

	// Only the flag.
	text = explained(t, build(t, a...), build(t, func() []*logpb.SpawnExec {
		only := side("-O2", "aa")
		for i, s := range only[:40] {
			s.ActualOutputs[0] = file(s.ActualOutputs[0].Path, fmt.Sprintf("%02dbb", i), 10)
			only[40].Inputs[5+i] = s.ActualOutputs[0]
		}
		return only
	}()...))
	require.Equal(t, 1, strings.Count(text, "cause"), text)
	require.Contains(t, text, "  cause  argument\n           A  -O0\n           B  -O2\n         also in 39 more actions: CppCompile //objects:01, ")
}

func TestALongWay(t *testing.T) {
	side := func(seed string) []*logpb.SpawnExec {
		var spawns []*logpb.SpawnExec
		last := file("source.c", seed, 10)
		for i := range 12 {
			next := file(fmt.Sprintf("%sstep%d", out, i), fmt.Sprint(i)+seed, 10)
			spawns = append(spawns, spawn("Step", fmt.Sprintf("//step:%d", i), []*logpb.SpawnExec_File{last}, next))
			last = next
		}
		component := kernel()
		component.Inputs = append(component.Inputs, last)
		return append(spawns, component)
	}
	text := explained(t, build(t, side("aa")...), build(t, side("bb")...))
	require.Contains(t, text, "  path   source.c\n")
	require.Contains(t, text, "      -> … 9 more …\n")
	require.Contains(t, text, "      -> KataComponent //stack/kernel:kernel\n")
}

// A symlink to an output has no action in the JSON format, but its bytes.
func TestSymlinks(t *testing.T) {
	side := func(seed string) []*logpb.SpawnExec {
		link := spawn("GoLink", "//stack/agent/bringup:bringup", []*logpb.SpawnExec_File{
			file("stack/agent/bringup/main.go", seed, 100),
		}, file(out+"stack/agent/bringup/bringup_/bringup", "2"+seed, 4354210))
		component := kernel()
		component.Inputs = append(component.Inputs, file(out+"stack/agent/bringup/kata-agent", "2"+seed, 4354210))
		return []*logpb.SpawnExec{link, component}
	}
	want := "  path   stack/agent/bringup/main.go\n" +
		"      -> GoLink //stack/agent/bringup:bringup makes " + out + "stack/agent/bringup/bringup_/bringup, also known as " + out + "stack/agent/bringup/kata-agent\n" +
		"      -> KataComponent //stack/kernel:kernel\n"
	require.Contains(t, explained(t, build(t, side("aa")...), build(t, side("bb")...)), want)

	// The compact format says it.
	log, err := execlog.ReadFile(t.Context(), logtest.JSON(t, side("bb")...))
	require.NoError(t, err)
	log.Compact = true
	require.NotContains(t, explained(t, build(t, side("aa")...), explain.NewBuild(log)), "main.go")
	log.Symlinks = []execlog.Symlink{{Path: out + "stack/agent/bringup/kata-agent", Input: out + "stack/agent/bringup/bringup_/bringup"}}
	require.Contains(t, explained(t, build(t, side("aa")...), explain.NewBuild(log)), want)
}

// A file may be in a directory that is the output.
func TestDirectories(t *testing.T) {
	side := func(seed string, files ...string) []*logpb.SpawnExec {
		tree := spawn("GoStdlib", "//go:stdlib", []*logpb.SpawnExec_File{file("external/rules_go~~go_sdk~go_sdk/bin/go", seed, 100)})
		tree.ListedOutputs = []string{out + "stdlib"}
		component := kernel()
		for _, name := range files {
			made := file(out+"stdlib/"+name, seed, 10)
			tree.ActualOutputs = append(tree.ActualOutputs, made)
			component.Inputs = append(component.Inputs, made)
		}
		return []*logpb.SpawnExec{tree, component}
	}
	text := explained(t, build(t, side("aa", "fmt.a")...), build(t, side("bb", "fmt.a", "new.a")...))
	require.Contains(t, text, "  cause  tool of the external repository rules_go~~go_sdk~go_sdk\n")
	require.Equal(t, 1, strings.Count(text, "cause"), text)
}

func TestWhatIsTheSameIsCounted(t *testing.T) {
	hit, other := kernel(), kernel()
	hit.CacheHit, hit.Runner = true, "disk cache hit"
	explanations, same := explain.Explain(build(t, hit), build(t, kernel()), components)
	require.Empty(t, explanations)
	require.Equal(t, 1, same)

	// What a cache had under another key is explained all the same.
	other.CacheHit, other.Runner = true, "remote cache hit"
	other.CommandArgs[3] = "8"
	require.Contains(t, explained(t, build(t, kernel()), build(t, other)), "from a cache (remote cache hit)")
}

func TestCommand(t *testing.T) {
	run := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := command.Run(t.Context(), append([]string{"explain"}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	a, b := logtest.JSON(t, chain("aa", "0")...), logtest.JSON(t, chain("ab", "1")...)
	code, stdout, _ := run(a, b, "--all")
	require.Equal(t, exitcode.OK, code)
	require.Contains(t, stdout, "\nGoLink //tools/component:component\n")
	require.Contains(t, stdout, "explained: 3; with the same key in A, and from a cache: 0\n")
	code, stdout, _ = run(a, b, "--mnemonic=GoCompilePkg")
	require.Equal(t, exitcode.OK, code)
	require.Contains(t, stdout, "explained: 1; ")
	code, _, stderr := run(a, b, "--mnemonic=Nope")
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "has no action to explain (mnemonic Nope)")
	code, _, stderr = run(a)
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "accepts 2 arg(s), received 1")
	code, _, stderr = run(a, b+".absent")
	require.Equal(t, exitcode.BadInput, code)
	require.Contains(t, stderr, "opening an execution log")
}
