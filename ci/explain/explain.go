// Package explain says why a build executed what another one had not: which
// input, argument, tool, variable or property of an action differs, and from
// where in the graph the difference comes.
//
// An action's key changes when anything that goes into it does. What changed
// is often the output of another action that itself has another key, so each
// changed input is followed to the action that made it, and so on, to
// something that no action made: a source file, a file of an external
// repository, a flag, a variable. That is the cause; the way there is the
// path.
//
// A log does not say everything. It has the digests of inputs and not their
// content, so a changed file of arguments (*.params) is named, but not which
// argument in it. It has the actions of one invocation that ran or came from
// a cache, and none of those that were up to date in the output base. Files
// that Bazel writes by itself have no action in it. Where a path ends for one
// of these reasons, the text says so.
package explain

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/execlog"
)

// A Baseline is what a build is compared with.
type Baseline interface {
	// Counterpart gives the spawn that did there what s does here, or nil.
	Counterpart(s *execlog.Spawn) *execlog.Spawn
}

// A Build is one execution log, indexed.
type Build struct {
	log       *execlog.Log
	producers map[string]*execlog.Spawn
	symlinks  map[string]execlog.Symlink
	// made are outputs by what is in them, for logs without symlinks.
	made     map[execlog.Digest]string
	same     map[string][]*execlog.Spawn
	alike    map[string][]*execlog.Spawn
	byTarget map[string][]*execlog.Spawn
}

// NewBuild indexes a log.
func NewBuild(log *execlog.Log) *Build {
	b := &Build{
		log:       log,
		producers: map[string]*execlog.Spawn{},
		symlinks:  map[string]execlog.Symlink{},
		made:      map[execlog.Digest]string{},
		same:      map[string][]*execlog.Spawn{},
		alike:     map[string][]*execlog.Spawn{},
		byTarget:  map[string][]*execlog.Spawn{},
	}
	for _, s := range log.Spawns {
		for _, o := range s.Outputs {
			b.producers[o.Path] = s
			if b.made[o.Digest] == "" && o.Digest.Size > 0 {
				b.made[o.Digest] = o.Path
			}
		}
		for _, path := range s.Declared {
			b.producers[path] = s
		}
		b.same[identity(s)] = append(b.same[identity(s)], s)
		b.alike[normal(identity(s))] = append(b.alike[normal(identity(s))], s)
		b.byTarget[s.String()] = append(b.byTarget[s.String()], s)
	}
	for _, l := range log.Symlinks {
		b.symlinks[l.Path] = l
	}
	return b
}

// identity is what tells an action from others, whatever goes into it.
func identity(s *execlog.Spawn) string { return s.String() + " " + strings.Join(s.Declared, " ") }

var configurationRE = regexp.MustCompile(`(bazel-out|blaze-out)/([^/\s]+)/`)

// normal leaves out the name of the configuration, which changes in the paths
// of all outputs when one flag does.
func normal(text string) string { return configurationRE.ReplaceAllString(text, "$1/*/") }

// Counterpart looks for the same outputs, then for the same in another
// configuration, then for the only action of that kind of the target.
func (b *Build) Counterpart(s *execlog.Spawn) *execlog.Spawn {
	if same := b.same[identity(s)]; len(same) > 0 {
		return same[0]
	}
	// Tools are built in configurations of their own.
	for _, other := range b.alike[normal(identity(s))] {
		if forTools(other) == forTools(s) {
			return other
		}
	}
	if only := b.byTarget[s.String()]; len(only) == 1 {
		return only[0]
	}
	return nil
}

func forTools(s *execlog.Spawn) bool {
	return slices.ContainsFunc(s.Declared, func(path string) bool {
		m := configurationRE.FindStringSubmatch(path)
		return m != nil && strings.Contains(m[2], "-exec")
	})
}

// producer gives the spawn that made a file, if the log has it.
func (b *Build) producer(path string) *execlog.Spawn {
	for p := path; p != ""; {
		if s := b.producers[p]; s != nil {
			return s
		}
		// It may be in a directory that is an output.
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return nil
		}
		p = p[:i]
	}
	return nil
}

// target gives the file to which an output is a symlink, or the file itself.
// The JSON format does not have symlinks; there, an output that no action made
// is taken for one to an output with the same bytes.
func (b *Build) target(file execlog.File) string {
	path := file.Path
	for range 16 { // A broken log must not keep this from ending.
		l, ok := b.symlinks[path]
		if !ok {
			break
		}
		path = l.Input
	}
	if made := b.made[file.Digest]; made != "" && !b.log.Compact && strings.HasPrefix(path, "bazel-out/") && b.producer(path) == nil {
		return made
	}
	return path
}

// An Explanation is why one spawn of a build has another key, or ran again.
type Explanation struct {
	Spawn *execlog.Spawn
	// Counterpart is nil where the baseline does not have the spawn.
	Counterpart *execlog.Spawn
	// SameKey tells that nothing which goes into the spawn differs.
	SameKey bool
	// SameOutputs tells that what it made is the same in both.
	SameOutputs bool
	// Causes begin with the one that is most to the point.
	Causes []*Cause
	// Suspects name what is known to cause such differences.
	Suspects []string
}

// Explain compares the spawns that wanted picks with those of the baseline. A
// spawn is explained when it has another key there, or when it was executed
// although the baseline has its key. The others are counted.
func Explain(build *Build, base Baseline, wanted func(*execlog.Spawn) bool) (explanations []Explanation, same int) {
	t := &tracer{build: build, base: base, known: map[*execlog.Spawn][]*Cause{}}
	for _, s := range build.log.Spawns {
		if !wanted(s) {
			continue
		}
		a := base.Counterpart(s)
		e := Explanation{Spawn: s, Counterpart: a}
		if a != nil {
			e.SameKey = sameKey(a, s)
			e.SameOutputs = slices.Equal(contents(a), contents(s))
		}
		if e.SameKey && s.CacheHit {
			same++
			continue
		}
		e.Causes = t.causes(s)
		if e.SameKey && !e.SameOutputs {
			e.Causes = []*Cause{nondeterminism(a, s)}
		}
		e.Suspects = suspects(e)
		explanations = append(explanations, e)
	}
	slices.SortStableFunc(explanations, func(a, b Explanation) int {
		return cmp.Compare(a.Spawn.Target, b.Spawn.Target)
	})
	return explanations, same
}

func sameKey(a, b *execlog.Spawn) bool {
	if a.Digest.Hash != "" && b.Digest.Hash != "" {
		return a.Digest == b.Digest
	}
	return a.Derived() == b.Derived()
}

// contents are the outputs without the paths' configurations.
func contents(s *execlog.Spawn) []execlog.File {
	files := slices.Clone(s.Outputs)
	for i := range files {
		files[i].Path = normal(files[i].Path)
	}
	return files
}
