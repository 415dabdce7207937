// Package audit finds out from the execution logs of all jobs of a run how
// often each component action was executed, and whether a run that a cache
// should have served was served.
//
// # What one execution is
//
// A local runner (linux-sandbox, processwrapper-sandbox, local, worker, …)
// executes by itself, so each spawn of one is an execution.
//
// Of remote execution Bazel says "remote", whether the action ran for this
// client or the client joined one that was already running for another. What
// tells the two apart is that the answer carries the worker's own times:
// waiting for a worker, fetching inputs, running, uploading outputs. Clients
// that were merged into one execution got one answer, and have the same four
// durations; two real executions do not. Bazel 7.7 rounds the durations to
// milliseconds, so one more thing is asked of spawns that are to count as
// merged: that there was a moment at which all of their clients were waiting,
// as far as their machines' clocks agree (Options.Skew).
// An answer without any of the four durations proves nothing, and counts as
// an execution of its own.
//
// So an execution's identity is the action's digest, the four durations, and
// that moment. Two executions of one action that ran at the same time, and
// took the same in each phase to the millisecond, would be seen as one. Where
// that matters the workers' own list (Options.Completed) is the proof.
//
// # Keys
//
// A component action's key is its digest in the action cache. Bazel computes
// none when it has no cache and no remote execution; then a key derived from
// what the log says about the action takes its place, which is the same
// wherever the action is the same.
package audit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Mnemonic is that of component actions.
const Mnemonic = "KataComponent"

// Skew is how far apart the clocks of two jobs' machines usually are at most.
const Skew = 5 * time.Second

// A Job is one run of Bazel.
type Job struct {
	Name string
	Log  *execlog.Log
	// Evidence is what else is known about the job.
	Evidence Evidence
}

// Options say what is looked at, and what is expected.
type Options struct {
	// Mnemonics are those of the actions to count.
	Mnemonics []string
	// ExpectCached are the names of the jobs that should have executed
	// nothing.
	ExpectCached []string
	// Skew is how far apart the clocks of the jobs' machines may be.
	Skew time.Duration
	// Completed is the workers' own list of executions. Nil means that
	// there is none, an empty one that they executed nothing.
	Completed []Completed
}

// A Report is the outcome.
type Report struct {
	Jobs       []string    `json:"jobs"`
	Components []Component `json:"components"`
	Totals     Totals      `json:"totals"`
	// Disagreements are keys of which the workers counted otherwise.
	Disagreements []Disagreement `json:"disagreements"`
}

// Totals count over all component actions.
type Totals struct {
	Actions          int `json:"actions"`
	Executions       int `json:"executions"`
	MoreThanOnce     int `json:"moreThanOnce"`
	Merged           int `json:"merged"`
	FromDiskCache    int `json:"fromDiskCache"`
	FromRemoteCache  int `json:"fromRemoteCache"`
	ShouldBeCached   int `json:"shouldBeCached"`
	WorkerExecutions int `json:"workerExecutions,omitempty"`
}

// A Component is one component action.
type Component struct {
	Target   string `json:"target"`
	Mnemonic string `json:"mnemonic"`
	// Key is the hash of the action's digest, or a derived key.
	Key     string `json:"key"`
	Derived bool   `json:"derived,omitempty"`
	// Executions are in the order in which they began.
	Executions []Execution `json:"executions"`
	// Merged counts the clients that joined an execution in flight.
	Merged          int `json:"merged"`
	FromDiskCache   int `json:"fromDiskCache"`
	FromRemoteCache int `json:"fromRemoteCache"`
	// Seconds is the time that all executions together ran.
	Seconds float64 `json:"seconds"`
	// Bytes is the size of the outputs.
	Bytes int64 `json:"bytes"`
	// Misses are executions that a cache should have made unnecessary.
	Misses []Miss `json:"misses,omitempty"`
}

// An Execution is one run of an action.
type Execution struct {
	// Job is the one that asked first.
	Job    string    `json:"job"`
	Runner string    `json:"runner"`
	Start  time.Time `json:"start"`
	// Seconds is the time that the action ran.
	Seconds float64 `json:"seconds"`
	// Joined are the jobs that were merged into it.
	Joined []string `json:"joined,omitempty"`
	// Failure is what went wrong. A failed action's result is not cached,
	// so that the next job executes it again.
	Failure string `json:"failure,omitempty"`

	remote bool
	end    time.Time
}

// A Disagreement is a key that logs and workers count differently.
type Disagreement struct {
	Target string `json:"target"`
	Key    string `json:"key"`
	// Logs and Workers count remote executions.
	Logs    int `json:"logs"`
	Workers int `json:"workers"`
	// Where lists what the workers say, for people.
	Where []string `json:"where"`
}

// remoteRunner is what Bazel calls remote execution, and a merged one.
const remoteRunner = "remote"

// Run audits the jobs of a run.
func Run(jobs []Job, o Options) (*Report, error) {
	r := &Report{Components: []Component{}, Disagreements: []Disagreement{}}
	for _, j := range jobs {
		r.Jobs = append(r.Jobs, j.Name)
	}
	for _, name := range o.ExpectCached {
		if !slices.Contains(r.Jobs, name) {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf(
				"no log is that of a job %q, which should have been served by a cache: the jobs are %s", name, strings.Join(r.Jobs, ", ")))
		}
	}
	actions := collect(jobs, o.Mnemonics)
	if len(actions) == 0 {
		// To say yes here would be to say it of any log at all.
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf(
			"none of the %d logs has an action with mnemonic %s: nothing can be said about how often one was executed; were they taken from builds that were up to date?",
			len(jobs), strings.Join(o.Mnemonics, " or ")))
	}
	for _, a := range actions {
		c := a.component(o.Skew)
		for _, s := range a.spawns {
			if !s.CacheHit && slices.Contains(o.ExpectCached, s.job.Name) {
				c.Misses = append(c.Misses, diagnose(jobs, c, s))
			}
		}
		r.Components = append(r.Components, c)
	}
	slices.SortStableFunc(r.Components, func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Key, b.Key))
	})
	r.count()
	if o.Completed != nil {
		r.compare(o.Completed)
	}
	return r, nil
}

// A spawnOf is a spawn and the job that it was of.
type spawnOf struct {
	*execlog.Spawn
	job *Job
}

func (s spawnOf) end() time.Time { return s.Metrics.Start.Add(s.Metrics.Total) }

// action is one key and all spawns that had it.
type action struct {
	key     string
	derived bool
	spawns  []spawnOf
}

func collect(jobs []Job, mnemonics []string) []*action {
	var spawns []spawnOf
	unknown := false
	for i := range jobs {
		for _, s := range jobs[i].Log.Spawns {
			if slices.Contains(mnemonics, s.Mnemonic) {
				spawns = append(spawns, spawnOf{s, &jobs[i]})
				unknown = unknown || s.Digest.Hash == ""
			}
		}
	}
	// A job without a cache has no digests, but may have executed what
	// other jobs have digests for.
	digests := map[string]string{}
	if unknown {
		for _, s := range spawns {
			if s.Digest.Hash != "" {
				digests[s.Derived()] = s.Digest.Hash
			}
		}
	}
	byKey := map[string]*action{}
	var all []*action
	for _, s := range spawns {
		key, derived := s.Digest.Hash, false
		if key == "" {
			own := s.Derived()
			if key = digests[own]; key == "" {
				key, derived = own, true
			}
		}
		a := byKey[key]
		if a == nil {
			a = &action{key: key, derived: derived}
			byKey[key] = a
			all = append(all, a)
		}
		a.spawns = append(a.spawns, s)
	}
	return all
}

func (a *action) component(skew time.Duration) Component {
	first := a.spawns[0]
	c := Component{Target: first.Target, Mnemonic: first.Mnemonic, Key: a.key, Derived: a.derived, Executions: []Execution{}}
	var executed []spawnOf
	for _, s := range a.spawns {
		var bytes int64
		for _, o := range s.Outputs {
			bytes += o.Digest.Size
		}
		c.Bytes = max(c.Bytes, bytes)
		switch {
		case s.CacheHit && strings.HasPrefix(s.Runner, "disk"):
			c.FromDiskCache++
		case s.CacheHit:
			c.FromRemoteCache++
		default:
			executed = append(executed, s)
		}
	}
	sort.SliceStable(executed, func(i, j int) bool { return executed[i].Metrics.Start.Before(executed[j].Metrics.Start) })
	for _, group := range merge(executed, skew) {
		e := execution(group)
		c.Merged += len(e.Joined)
		c.Seconds += e.Seconds
		c.Executions = append(c.Executions, e)
	}
	return c
}

// merge puts together the spawns that share one execution. They come in the
// order in which they began.
func merge(spawns []spawnOf, skew time.Duration) [][]spawnOf {
	type group struct {
		spawns []spawnOf
		// until is when the first of the clients stopped waiting.
		until time.Time
	}
	var groups []*group
	open := map[[4]time.Duration][]*group{}
next:
	for _, s := range spawns {
		took := [4]time.Duration{s.Metrics.Queue, s.Metrics.Setup, s.Metrics.Execution, s.Metrics.Outputs}
		if s.Runner == remoteRunner && took != [4]time.Duration{} {
			for _, g := range open[took] {
				if !s.Metrics.Start.After(g.until.Add(skew)) {
					g.spawns = append(g.spawns, s)
					if s.end().Before(g.until) {
						g.until = s.end()
					}
					continue next
				}
			}
		}
		g := &group{[]spawnOf{s}, s.end()}
		groups = append(groups, g)
		if s.Runner == remoteRunner && took != [4]time.Duration{} {
			open[took] = append(open[took], g)
		}
	}
	var out [][]spawnOf
	for _, g := range groups {
		out = append(out, g.spawns)
	}
	return out
}

func execution(group []spawnOf) Execution {
	first := group[0]
	e := Execution{
		Job:     first.job.Name,
		Runner:  first.Runner,
		Start:   first.Metrics.Start,
		Seconds: cmp.Or(first.Metrics.Execution, first.Metrics.Total).Seconds(),
		remote:  first.Runner == remoteRunner,
		end:     first.end(),
	}
	if e.Runner == "" {
		e.Runner = "an unnamed runner"
	}
	if first.Status != "" || first.ExitCode != 0 {
		e.Failure = fmt.Sprintf("%s, exit code %d", cmp.Or(first.Status, "failed"), first.ExitCode)
	}
	for _, s := range group[1:] {
		e.Joined = append(e.Joined, s.job.Name)
	}
	return e
}

func (r *Report) count() {
	for _, c := range r.Components {
		r.Totals.Actions++
		r.Totals.Executions += len(c.Executions)
		if len(c.Executions) > 1 {
			r.Totals.MoreThanOnce++
		}
		r.Totals.Merged += c.Merged
		r.Totals.FromDiskCache += c.FromDiskCache
		r.Totals.FromRemoteCache += c.FromRemoteCache
		r.Totals.ShouldBeCached += len(c.Misses)
	}
}

// Err is nil when all is as it must be. The exit code that it carries is that
// of the gravest finding: counts that contradict each other say that nothing
// else here can be trusted, and a cache that did not serve explains why
// something was executed twice.
func (r *Report) Err() error {
	code := exitcode.OK
	var findings []string
	if twice := r.findings((*Component).twice); len(twice) > 0 {
		code = exitcode.Failed
		findings = append(findings, fmt.Sprintf("executed more than once: %d of %d component actions", r.Totals.MoreThanOnce, r.Totals.Actions))
		findings = append(findings, twice...)
	}
	if missed := r.findings((*Component).missed); len(missed) > 0 {
		code = exitcode.NotCached
		findings = append(findings, fmt.Sprintf("executed although a cache should have had the result: %d", r.Totals.ShouldBeCached))
		findings = append(findings, missed...)
	}
	if len(r.Disagreements) > 0 {
		code = exitcode.Unverified
		findings = append(findings, fmt.Sprintf("counted otherwise by the workers: %d of %d component actions", len(r.Disagreements), r.Totals.Actions))
		for _, d := range r.Disagreements {
			findings = append(findings, "  "+d.String())
		}
	}
	if code == exitcode.OK {
		return nil
	}
	return exitcode.With(code, errors.New(strings.Join(findings, "\n")))
}

func (r *Report) findings(of func(*Component) []string) []string {
	var lines []string
	for i := range r.Components {
		for _, line := range of(&r.Components[i]) {
			lines = append(lines, "  "+line)
		}
	}
	return lines
}

// twice names the executions of a component that has too many of them.
func (c *Component) twice() []string {
	if len(c.Executions) < 2 {
		return nil
	}
	var where []string
	for _, e := range c.Executions {
		where = append(where, e.String())
	}
	return []string{fmt.Sprintf("%s (%s), %d times: %s", c.Target, short(c.Key), len(c.Executions), strings.Join(where, "; "))}
}

func (c *Component) missed() []string {
	var lines []string
	for _, m := range c.Misses {
		lines = append(lines, fmt.Sprintf("%s (%s) in job %s: %s: %s", c.Target, short(c.Key), m.Job, m.Cause, m.Detail))
	}
	return lines
}

func (e Execution) String() string {
	s := fmt.Sprintf("job %s, %s, at %s for %.1f s", e.Job, e.Runner, when(e.Start), e.Seconds)
	if e.Failure != "" {
		s += " (" + e.Failure + ")"
	}
	return s
}

func (d Disagreement) String() string {
	s := fmt.Sprintf("%s (%s): %d remote executions in the logs, %d by the workers", d.Target, d.Key, d.Logs, d.Workers)
	if len(d.Where) > 0 {
		s += ": " + strings.Join(d.Where, "; ")
	}
	return s
}

// short is as much of a key as people need to tell two apart.
func short(key string) string { return key[:min(len(key), 12)] }

func when(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
