package audit

import (
	"cmp"
	"fmt"
	"slices"
)

// A Cause is why a cache did not serve an action.
type Cause string

const (
	// CacheOff means that Bazel did not ask a cache.
	CacheOff Cause = "cache off"
	// Unreachable means that Bazel asked, and had no answer.
	Unreachable Cause = "cache unreachable"
	// WriteProtected means that an earlier execution's result was not
	// stored.
	WriteProtected Cause = "cache write-protected"
	// NotMerged means that two jobs executed the action at the same time.
	NotMerged Cause = "not merged"
	// NoResult means that the cache answered, and does not have the key.
	NoResult Cause = "no result in the cache"
	// Unknown means that what was given does not tell.
	Unknown Cause = "cause unknown"
)

// A Miss is an execution that a cache should have made unnecessary.
type Miss struct {
	Job    string `json:"job"`
	Cause  Cause  `json:"cause"`
	Detail string `json:"detail"`
}

// diagnose says why s was executed. It claims no more than what the logs, and
// the evidence beside them, show; what is certain is asked first.
func diagnose(jobs []Job, c Component, s spawnOf) Miss {
	miss := func(cause Cause, format string, args ...any) Miss {
		return Miss{Job: s.job.Name, Cause: cause, Detail: fmt.Sprintf(format, args...)}
	}
	known := s.job.Evidence
	switch {
	case !s.Cacheable:
		return miss(CacheOff, "the action may not be cached: it is tagged so, or Bazel was told so")
	case known.off("remote_accept_cached") && known.without("disk_cache"):
		return miss(CacheOff, "Bazel ran with --noremote_accept_cached")
	case known.HasOptions && known.without("remote_cache", "disk_cache", "remote_executor"):
		return miss(CacheOff, "Bazel ran without --remote_cache, --remote_executor and --disk_cache")
	case s.Digest.Hash == "":
		return miss(CacheOff, "Bazel had no key for the action, as is so only when neither a cache nor remote execution is in use")
	case len(known.Unreachable) > 0:
		return miss(Unreachable, "Bazel said: %s", known.Unreachable[0])
	}
	remote, hits := 0, 0
	for _, other := range s.job.Log.Spawns {
		if other.Runner == remoteRunner {
			remote++
		}
		if other.CacheHit {
			hits++
		}
	}
	if s.Runner != remoteRunner && s.Remotable && remote > 0 {
		return miss(Unreachable, "%d actions of the job ran remotely, and this one, which may, ran on %s: Bazel fell back to the machine it ran on", remote, s.Runner)
	}
	for _, e := range c.Executions {
		switch before := !e.end.After(s.Metrics.Start); {
		case e.Job == s.job.Name && e.Start.Equal(s.Metrics.Start), slices.Contains(e.Joined, s.job.Name):
			// This is the execution of s itself.
		case before && e.Failure != "":
			return miss(NoResult, "%s: a failed action's result is not stored", e)
		case before:
			return miss(WriteProtected, "it had been executed before (%s), and the result was not there: %s", e, notWritten(jobs, e))
		case !e.Start.After(s.end()):
			return miss(NotMerged, "it was executed at the same time: %s", e)
		}
	}
	switch {
	case len(known.Denied) > 0:
		return miss(Unreachable, "Bazel said: %s", known.Denied[0])
	case hits > 0:
		return miss(NoResult, "the cache had %d other results for the job; `kiln explain` says what changed for this one", hits)
	case known.Given:
		return miss(NoResult, "nothing in the job came from a cache, and Bazel did not complain: the cache is empty, or is another one")
	}
	return miss(Unknown, "nothing in the job came from a cache, which is so with an empty cache and with one out of reach: give --build-log or --events")
}

// notWritten says why an execution's result is not in the cache.
func notWritten(jobs []Job, e Execution) string {
	for _, j := range jobs {
		if j.Name != e.Job {
			continue
		}
		switch known := j.Evidence; {
		case len(known.Denied) > 0:
			return "Bazel said there: " + known.Denied[0]
		case len(known.Unreachable) > 0:
			return "Bazel said there: " + known.Unreachable[0]
		case known.off("remote_upload_local_results"):
			return "Bazel ran there with --noremote_upload_local_results"
		case known.HasOptions && known.without("remote_cache", "remote_executor"):
			return cmp.Or(known.value("disk_cache", "Bazel wrote there to the disk cache %s only"), "Bazel ran there without a remote cache")
		}
	}
	return "it was not written (--noremote_upload_local_results, or no right to write), or has gone since; --build-log or --events of that job would tell"
}
