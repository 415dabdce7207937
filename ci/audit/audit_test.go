package audit_test

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/audit"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/execlog/logpb"
	"github.com/kiln-build/kiln/tools/execlog/logtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	kernel = "//stack/kernel:kernel"
	qemu   = "//stack/qemu:qemu"
	key1   = "4d7357a0aeb7804c550b916c52178ec31d5373ec9f6cae51d7e207c40b698f54"
	key2   = "51ef199be2d89713b581291cc0a7bf946131cf443be80937cdc3058a99843f8d"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// at gives a time so many seconds after noon.
func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// took are the four durations of a remote execution of some 95 seconds.
func took(execution time.Duration) []time.Duration {
	return []time.Duration{20 * time.Millisecond, 4100 * time.Millisecond, execution, 900 * time.Millisecond}
}

func job(t *testing.T, name string, spawns ...*logpb.SpawnExec) audit.Job {
	t.Helper()
	log, err := execlog.ReadFile(t.Context(), logtest.JSON(t, spawns...))
	require.NoError(t, err)
	return audit.Job{Name: name, Log: log}
}

func options() audit.Options {
	return audit.Options{Mnemonics: []string{audit.Mnemonic}, Skew: audit.Skew}
}

func run(t *testing.T, o audit.Options, jobs ...audit.Job) *audit.Report {
	t.Helper()
	r, err := audit.Run(jobs, o)
	require.NoError(t, err)
	return r
}

func TestEightClientsOfOneExecution(t *testing.T) {
	var jobs []audit.Job
	for i, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		jobs = append(jobs, job(t, name, logtest.Component(kernel, key1, "remote", at(float64(i)/4), took(90*time.Second)...)))
	}
	jobs = append(jobs, job(t, "late", logtest.Component(kernel, key1, "remote cache hit", at(200))))
	r := run(t, options(), jobs...)
	require.NoError(t, r.Err())
	require.Equal(t, audit.Totals{Actions: 1, Executions: 1, Merged: 6, FromRemoteCache: 1}, r.Totals)
	c := r.Components[0]
	require.Equal(t, kernel, c.Target)
	require.Equal(t, key1, c.Key)
	require.Equal(t, 90.0, c.Seconds)
	require.EqualValues(t, 1000, c.Bytes)
	require.Len(t, c.Executions, 1)
	require.Equal(t, "a", c.Executions[0].Job)
	require.Equal(t, noon, c.Executions[0].Start)
	require.Equal(t, []string{"b", "c", "d", "e", "f", "g"}, c.Executions[0].Joined)
}

// Each case has two jobs that executed one action.
func TestTwoExecutions(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b *logpb.SpawnExec
		want int
	}{
		"merged": {
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "remote", at(60), took(90*time.Second)...), 1,
		},
		"at the same time, a millisecond apart": {
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second+time.Millisecond)...), 2,
		},
		"one after the other, in the same time": {
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "remote", at(101), took(90*time.Second)...), 2,
		},
		"clocks somewhat apart": {
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "remote", at(97), took(90*time.Second)...), 1,
		},
		"an answer without times": {
			logtest.Component(kernel, key1, "remote", at(0)),
			logtest.Component(kernel, key1, "remote", at(0)), 2,
		},
		"locally": {
			logtest.Component(kernel, key1, "linux-sandbox", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "linux-sandbox", at(0), took(90*time.Second)...), 2,
		},
		"locally and remotely": {
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "processwrapper-sandbox", at(0), took(90*time.Second)...), 2,
		},
		"without a cache, so without keys": {
			logtest.Component(kernel, "", "local", at(0), took(90*time.Second)...),
			logtest.Component(kernel, "", "local", at(0), took(90*time.Second)...), 2,
		},
		"one of them without a cache": {
			logtest.Component(kernel, "", "local", at(0), took(90*time.Second)...),
			logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...), 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, options(), job(t, "a", tc.a), job(t, "b", tc.b))
			require.Len(t, r.Components, 1)
			require.Len(t, r.Components[0].Executions, tc.want)
			require.Equal(t, 2-tc.want, r.Totals.Merged)
			if tc.want == 1 {
				require.NoError(t, r.Err())
			} else {
				require.Equal(t, exitcode.Failed, exitcode.Of(r.Err()))
			}
		})
	}
}

func TestWhereAndWhen(t *testing.T) {
	failed := logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...)
	failed.Status, failed.ExitCode = "NON_ZERO_EXIT", 2
	r := run(t, options(),
		job(t, "tdx", failed, logtest.Component(qemu, key2, "remote", at(1), took(time.Second)...)),
		job(t, "snp", logtest.Component(kernel, key1, "linux-sandbox", at(100), took(80*time.Second)...)))
	require.EqualError(t, r.Err(), `executed more than once: 1 of 2 component actions
  //stack/kernel:kernel (4d7357a0aeb7), 2 times: job tdx, remote, at 2026-11-24T12:00:00.000Z for 90.0 s (NON_ZERO_EXIT, exit code 2); job snp, linux-sandbox, at 2026-11-24T12:01:40.000Z for 80.0 s`)
}

func TestTheSameTargetWithTwoKeys(t *testing.T) {
	r := run(t, options(), job(t, "a",
		logtest.Component(kernel, key1, "remote", at(0), took(time.Second)...),
		logtest.Component(kernel, key2, "remote", at(0), took(time.Second)...)))
	require.NoError(t, r.Err())
	require.Len(t, r.Components, 2)
}

func TestOtherMnemonics(t *testing.T) {
	link := logtest.Component("//ci/cmd/kiln:kiln", key2, "linux-sandbox", at(0), took(time.Second)...)
	link.Mnemonic = "GoLink"
	a, b := job(t, "a", link), job(t, "b", link)
	o := options()
	_, err := audit.Run([]audit.Job{a, b}, o)
	require.ErrorContains(t, err, "none of the 2 logs has an action with mnemonic KataComponent")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	o.Mnemonics = append(o.Mnemonics, "GoLink")
	require.Equal(t, exitcode.Failed, exitcode.Of(run(t, o, a, b).Err()))
}

func TestCompleted(t *testing.T) {
	one := job(t, "a", logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...))
	local := job(t, "b", logtest.Component(qemu, key2, "linux-sandbox", at(0), took(90*time.Second)...))
	list := func(content string) []audit.Completed {
		path := filepath.Join(t.TempDir(), "completed.jsonl")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		list, err := audit.ReadCompleted(path)
		require.NoError(t, err)
		return list
	}
	line := func(digest, worker string) string {
		return `{"digest":"` + digest + `","worker":"` + worker + `","start":"2026-11-24T12:00:01Z","end":"2026-11-24T12:01:31Z"}` + "\n"
	}
	for name, tc := range map[string]struct{ content, want string }{
		"agrees":                        {line(key1+"/148", "w1"), ""},
		"another way of writing":        {line("sha256:"+key1, "w1"), ""},
		"and something else":            {line(key1+"-148", "w1") + line("00"+key1[2:], "w2"), ""},
		"the worker did not":            {"", kernel + " (" + key1 + "): 1 remote executions in the logs, 0 by the workers"},
		"the workers did it twice":      {line(key1, "w1") + line(key1, "w2"), kernel + " (" + key1 + "): 1 remote executions in the logs, 2 by the workers: worker w1, at 2026-11-24T12:00:01.000Z for 90.0 s; worker w2"},
		"a worker did what ran locally": {line(key1, "w1") + line(key2, "w1"), qemu + " (" + key2 + "): 0 remote executions in the logs, 1 by the workers"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Completed = list(tc.content)
			err := run(t, o, one, local).Err()
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.Unverified, exitcode.Of(err))
		})
	}
}

func TestBadCompleted(t *testing.T) {
	for name, tc := range map[string]struct{ content, want string }{
		"cut short": {`{"digest":"` + key1 + `"}` + "\n" + `{"digest":`, "entry 2: unexpected EOF"},
		"no digest": {`{"worker":"w1"}`, `entry 1: digest "" is not hexadecimal digits`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "completed.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o644))
			_, err := audit.ReadCompleted(path)
			require.ErrorContains(t, err, path+", "+tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestShouldHaveBeenCached(t *testing.T) {
	executed := func(runner, key string, start float64) *logpb.SpawnExec {
		return logtest.Component(kernel, key, runner, at(start), took(90*time.Second)...)
	}
	hit := logtest.Component(qemu, key2, "remote cache hit", at(0))
	uncacheable := executed("remote", key1, 200)
	uncacheable.Cacheable = false
	failed := executed("remote", key1, 0)
	failed.Status, failed.ExitCode = "TIMEOUT", 142
	with := func(options ...string) audit.Evidence {
		var e audit.Evidence
		path := filepath.Join(t.TempDir(), "build.log")
		text := "INFO: Reading rc options for 'build' from .bazelrc:\n  'build' options:"
		for _, o := range options {
			text += " " + o
		}
		require.NoError(t, os.WriteFile(path, []byte(text+"\n"), 0o644))
		require.NoError(t, e.ReadBuildLog(path))
		return e
	}
	said := func(line string) audit.Evidence {
		var e audit.Evidence
		path := filepath.Join(t.TempDir(), "build.log")
		require.NoError(t, os.WriteFile(path, []byte("INFO: Analyzed target\n"+line+"\nINFO: done"), 0o644))
		require.NoError(t, e.ReadBuildLog(path))
		return e
	}
	for name, tc := range map[string]struct {
		first, again       []*logpb.SpawnExec
		evidence, earliers audit.Evidence
		cause              audit.Cause
		detail             string
	}{
		"no key": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", "", 200)},
			cause: audit.CacheOff, detail: "Bazel had no key for the action",
		},
		"not cacheable": {
			again: []*logpb.SpawnExec{uncacheable},
			cause: audit.CacheOff, detail: "the action may not be cached",
		},
		"no cache among the options": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)}, evidence: with("--jobs=4", "--remote_cache=", "--disk_cache="),
			cause: audit.CacheOff, detail: "without --remote_cache, --remote_executor and --disk_cache",
		},
		"told not to accept": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)}, evidence: with("--remote_cache=grpc://cache", "--noremote_accept_cached"),
			cause: audit.CacheOff, detail: "--noremote_accept_cached",
		},
		"unreachable": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)}, evidence: said("\x1b[35mWARNING: \x1b[0mRemote Cache: UNAVAILABLE: io exception"),
			cause: audit.Unreachable, detail: "Bazel said: WARNING: Remote Cache: UNAVAILABLE: io exception",
		},
		"fell back": {
			again: []*logpb.SpawnExec{
				logtest.Component(qemu, key2, "remote", at(0), took(time.Second)...), executed("linux-sandbox", key1, 200),
			},
			cause: audit.Unreachable, detail: "1 actions of the job ran remotely, and this one, which may, ran on linux-sandbox",
		},
		"not written, by all that is known": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key1, 0)}, again: []*logpb.SpawnExec{hit, executed("linux-sandbox", key1, 200)},
			cause: audit.WriteProtected, detail: "it had been executed before (job first, linux-sandbox, at 2026-11-24T12:00:00.000Z for 90.0 s), and the result was not there: it was not written (",
		},
		"not written, since told so": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key1, 0)}, again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)},
			earliers: with("--remote_cache=grpc://cache", "--noremote_upload_local_results"),
			cause:    audit.WriteProtected, detail: "Bazel ran there with --noremote_upload_local_results",
		},
		"not written, since refused": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key1, 0)}, again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)},
			earliers: said("WARNING: Remote Cache: PERMISSION_DENIED: not allowed to write"),
			cause:    audit.WriteProtected, detail: "Bazel said there: WARNING: Remote Cache: PERMISSION_DENIED: not allowed to write",
		},
		"written to the disk cache alone": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key1, 0)}, again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)},
			earliers: with("--disk_cache=/cache"),
			cause:    audit.WriteProtected, detail: "Bazel wrote there to the disk cache /cache only",
		},
		"not stored, since it failed": {
			first: []*logpb.SpawnExec{failed}, again: []*logpb.SpawnExec{executed("remote", key1, 200)},
			cause: audit.NoResult, detail: "a failed action's result is not stored",
		},
		"at the same time": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key1, 0)}, again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 10)},
			cause: audit.NotMerged, detail: "it was executed at the same time: job first",
		},
		"joined what should not have been": {
			first: []*logpb.SpawnExec{executed("remote", key1, 0)}, again: []*logpb.SpawnExec{hit, executed("remote", key1, 10)},
			cause: audit.NoResult, detail: "the cache had 1 other results for the job",
		},
		"another key": {
			first: []*logpb.SpawnExec{executed("linux-sandbox", key2, 0)}, again: []*logpb.SpawnExec{hit, executed("linux-sandbox", key1, 200)},
			cause: audit.NoResult, detail: "`kiln explain`",
		},
		"refused": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)}, evidence: said("WARNING: Remote Cache: UNAUTHENTICATED: no token"),
			cause: audit.Unreachable, detail: "UNAUTHENTICATED",
		},
		"Bazel did not complain": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)}, evidence: with("--remote_cache=grpc://cache"),
			cause: audit.NoResult, detail: "the cache is empty, or is another one",
		},
		"nothing to go by": {
			again: []*logpb.SpawnExec{executed("linux-sandbox", key1, 200)},
			cause: audit.Unknown, detail: "give --build-log or --events",
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, again := job(t, "first", tc.first...), job(t, "again", tc.again...)
			first.Evidence, again.Evidence = tc.earliers, tc.evidence
			o := options()
			o.ExpectCached = []string{"again"}
			r := run(t, o, first, again)
			require.Equal(t, exitcode.NotCached, exitcode.Of(r.Err()))
			var misses []audit.Miss
			for _, c := range r.Components {
				if c.Target == kernel {
					misses = append(misses, c.Misses...)
				}
			}
			require.Len(t, misses, 1)
			require.Equal(t, tc.cause, misses[0].Cause, misses[0].Detail)
			require.Contains(t, misses[0].Detail, tc.detail)
			require.ErrorContains(t, r.Err(), "//stack/kernel:kernel (")
			require.ErrorContains(t, r.Err(), " in job again: "+string(tc.cause)+": ")
		})
	}
}

func TestWasCached(t *testing.T) {
	o := options()
	o.ExpectCached = []string{"again"}
	r := run(t, o,
		job(t, "first", logtest.Component(kernel, key1, "remote", at(0), took(time.Second)...)),
		job(t, "again", logtest.Component(kernel, key1, "disk cache hit", at(9))))
	require.NoError(t, r.Err())
	o.ExpectCached = []string{"nobody"}
	_, err := audit.Run([]audit.Job{job(t, "first", logtest.Component(kernel, key1, "remote", at(0)))}, o)
	require.ErrorContains(t, err, `no log is that of a job "nobody"`)
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"id":{"started":{}},"children":[]}
{"id":{"optionsParsed":{}},"optionsParsed":{"cmdLine":["--remote_cache\u003dgrpc://cache","--noremote_upload_local_results","--disk_cache\u003d/a","--disk_cache\u003d/b","--jobs\u003d4"]}}
{"id":{"progress":{"opaqueCount":1}},"progress":{"stderr":"INFO: a\nWARNING: Remote Cache: UNAVAILABLE: io exception\n"}}
`), 0o644))
	var e audit.Evidence
	require.NoError(t, e.ReadEvents(path))
	require.Equal(t, audit.Evidence{
		Given:      true,
		HasOptions: true,
		Options: map[string]string{
			"remote_cache": "grpc://cache", "remote_upload_local_results": "false", "disk_cache": "/b",
		},
		Unreachable: []string{"WARNING: Remote Cache: UNAVAILABLE: io exception"},
	}, e)

	for name, tc := range map[string]struct{ content, want string }{
		"cut short":    {`{"id":{"started":{}}}{"id":`, "event 2: unexpected EOF"},
		"another kind": {`{"mnemonic":"GoLink"}`, "event 1: it has no id"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o644))
			err := e.ReadEvents(path)
			require.ErrorContains(t, err, path+", "+tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(logtest.JSON(t, logtest.Component(kernel, key1, "remote", at(0))))
	require.NoError(t, err)
	write := func(path, content string) string {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	write("all/tdx/exec.bin.zst", string(data))
	write("all/snp/exec.json", string(data))
	write("single.json", string(data))
	asIs := func(path string) string { return filepath.Join(dir, path) }
	load := func(args ...string) ([]string, error) {
		var logs []audit.Named
		for _, arg := range args {
			logs = append(logs, audit.ParseNamed(arg, asIs))
		}
		jobs, err := audit.Load(t.Context(), logs)
		var names []string
		for _, j := range jobs {
			require.Len(t, j.Log.Spawns, 1)
			names = append(names, j.Name)
		}
		return names, err
	}
	names, err := load("all", "one=single.json", "single.json")
	require.NoError(t, err)
	require.Equal(t, []string{"snp/exec", "tdx/exec", "one", "single"}, names)
	names, err = load("run=all")
	require.NoError(t, err)
	require.Equal(t, []string{"run/snp/exec", "run/tdx/exec"}, names)
	// A name that is there is a path, whatever is in it.
	write("a=b.json", string(data))
	names, err = load("a=b.json")
	require.NoError(t, err)
	require.Equal(t, []string{"a=b"}, names)

	invocation := &logpb.ExecLogEntry{Type: &logpb.ExecLogEntry_Invocation_{Invocation: &logpb.ExecLogEntry_Invocation{Id: "6f2c"}}}
	write("first.bin", string(logtest.Compact(t, invocation)))
	write("second.bin", string(logtest.Compact(t, invocation)))
	write("empty.json", "")
	write("mixed/exec.bin", string(data))
	write("mixed/notes.txt", "hello")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "nothing"), 0o755))
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"one name twice":            {[]string{"a=single.json", "a=all/tdx/exec.bin.zst"}, `are both job "a": give NAME=PATH`},
		"one invocation twice":      {[]string{"first.bin", "second.bin"}, "are logs of the same invocation 6f2c"},
		"an empty log":              {[]string{"empty.json"}, "is empty: it may be the log of a build in which nothing ran"},
		"absent":                    {[]string{"a=absent.bin"}, "looking for execution logs"},
		"a folder without logs":     {[]string{"nothing"}, "there is no execution log in"},
		"a folder with other files": {[]string{"mixed"}, "notes.txt, entry 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(tc.args...)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestAddEvidence(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	require.NoError(t, os.WriteFile(path, []byte("WARNING: Remote Cache: UNAVAILABLE\n"), 0o644))
	jobs := []audit.Job{{Name: "a"}, {Name: "b"}}
	read := (*audit.Evidence).ReadBuildLog
	require.NoError(t, audit.AddEvidence(jobs, []audit.Named{{Name: "b", Path: path}}, read))
	require.Empty(t, jobs[0].Evidence.Unreachable)
	require.Len(t, jobs[1].Evidence.Unreachable, 1)
	require.NoError(t, audit.AddEvidence(jobs[:1], []audit.Named{{Path: path}}, read))
	require.Len(t, jobs[0].Evidence.Unreachable, 1)
	require.ErrorContains(t, audit.AddEvidence(jobs, []audit.Named{{Path: path}}, read), "there are 2 jobs, give NAME=PATH")
	require.ErrorContains(t, audit.AddEvidence(jobs, []audit.Named{{Name: "c", Path: path}}, read), `no log is that of a job "c"`)
	require.ErrorIs(t, audit.AddEvidence(jobs, []audit.Named{{Name: "a", Path: path + "x"}}, read), os.ErrNotExist)
}

func TestDocuments(t *testing.T) {
	o := options()
	o.ExpectCached = []string{"b"}
	r := run(t, o,
		job(t, "a", logtest.Component(kernel, key1, "remote", at(0), took(90*time.Second)...), logtest.Component(qemu, key2, "remote", at(1), took(2*time.Second)...)),
		job(t, "b", logtest.Component(kernel, key1, "linux-sandbox", at(200), took(80*time.Second)...), logtest.Component(qemu, key2, "remote", at(2), took(2*time.Second)...)),
		job(t, "c", logtest.Component(qemu, key2, "remote cache hit", at(20))))

	var text, markdown, junit bytes.Buffer
	require.NoError(t, r.Text(&text))
	require.Equal(t, `COMPONENT              KEY           EXECUTED  MERGED  DISK CACHE  REMOTE CACHE  SECONDS  SIZE
//stack/kernel:kernel  4d7357a0aeb7  2         0       0           0             170.0    1000 B
//stack/qemu:qemu      51ef199be2d8  1         1       0           1             2.0      1000 B

EXECUTED               BY JOB  ON             AT                        SECONDS  JOINED BY
//stack/kernel:kernel  a       remote         2026-11-24T12:00:00.000Z  90.0     
//stack/kernel:kernel  b       linux-sandbox  2026-11-24T12:03:20.000Z  80.0     
//stack/qemu:qemu      a       remote         2026-11-24T12:00:01.000Z  2.0      b

3 jobs, 2 component actions: executed 3 times, 1 of them more than once; 1 requests joined an execution, 1 came from a cache.
`, text.String())

	require.NoError(t, r.Markdown(&markdown))
	require.Contains(t, markdown.String(), "### Executions: not as it must be\n\n```\nexecuted more than once: 1 of 2 component actions\n")
	require.Contains(t, markdown.String(), "| `//stack/qemu:qemu` | `51ef199be2d8` | 1 | 1 | 0 | 1 | 2.0 | 1000 B |\n")

	require.NoError(t, r.JUnit(&junit))
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name     string `xml:"name,attr"`
			Failures []struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	require.NoError(t, xml.Unmarshal(junit.Bytes(), &suite))
	require.Equal(t, 2, suite.Tests)
	require.Equal(t, 2, suite.Failures)
	require.Equal(t, "//stack/kernel:kernel 4d7357a0aeb7", suite.Cases[0].Name)
	require.Len(t, suite.Cases[0].Failures, 2)
	require.Equal(t, "executed more than once", suite.Cases[0].Failures[0].Message)
	require.Contains(t, suite.Cases[0].Failures[0].Text, "job b, linux-sandbox")
	require.Equal(t, "a cache should have had the result", suite.Cases[1].Failures[0].Message)
}
