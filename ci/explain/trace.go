package explain

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/execlog"
)

// A Cause is something that no action made, and that differs.
type Cause struct {
	Difference
	// What names it for people.
	What string
	// Spawn is the one that it went into first.
	Spawn *execlog.Spawn
	// Path leads from the cause to the spawn that is explained: files, and
	// the actions that they go into.
	Path []Step
	// More are further files of the same repository, and further spawns
	// with the same difference.
	More []string
	// Note is what else is to be known.
	Note string
}

// A Step is an action, and the file that made it differ; for the first one
// that is the cause itself.
type Step struct {
	File  string
	Tool  bool
	Spawn *execlog.Spawn
	// Symlink is the file to which File is a symlink, if it is.
	Symlink string
}

// tracer follows differences to their causes.
type tracer struct {
	build *Build
	base  Baseline
	known map[*execlog.Spawn][]*Cause
}

// causes gives those of one spawn. It is empty for one that does not differ.
func (t *tracer) causes(s *execlog.Spawn) []*Cause {
	if known, ok := t.known[s]; ok {
		return known
	}
	// An action cannot have itself among its inputs, but a broken log must
	// not keep this from ending.
	t.known[s] = nil
	a := t.base.Counterpart(s)
	if a == nil {
		missing := &Cause{
			Difference: Difference{Kind: Missing, Name: s.String(), New: value(s.String())}, Spawn: s,
			What: "A has no such action", Path: []Step{{Spawn: s}},
			Note: "the target is new, or was up to date when A ran: compare with the log of a build from an empty output base",
		}
		t.known[s] = []*Cause{missing}
		return t.known[s]
	}
	if sameKey(a, s) {
		return nil
	}
	var found []*Cause
	for _, d := range Diff(a, s) {
		if d.Kind == Source || d.Kind == InputSet {
			found = append(found, t.input(d, s)...)
		} else {
			found = append(found, direct(d, s))
		}
	}
	if len(found) == 0 {
		found = []*Cause{{
			Difference: Difference{Kind: Unseen, Name: s.String()}, Spawn: s, Path: []Step{{Spawn: s}},
			What: "the key differs, and nothing that the logs show does",
			Note: "what they do not show: execution requirements, --remote_default_exec_properties, --experimental_remote_cache_salt",
		}}
	}
	t.known[s] = distinct(found)
	return t.known[s]
}

// input follows an input that changed, came or went.
func (t *tracer) input(d Difference, s *execlog.Spawn) []*Cause {
	file := d.Name
	if d.New.There {
		file = t.build.target(d.NewFile)
	}
	step := Step{File: d.Name, Tool: d.Tool, Spawn: s}
	if file != d.Name {
		step.Symlink = file
	}
	if p := t.build.producer(file); p != nil && p != s {
		a := t.base.Counterpart(p)
		found := t.causes(p)
		if a != nil && sameKey(a, p) && d.Kind == Source && !slices.Equal(contents(a), contents(p)) {
			found = []*Cause{nondeterminism(a, p)}
		}
		// An input that came or went is a matter of s alone, unless
		// the action that makes it did not make it before.
		if d.Kind == Source || a == nil || !slices.Equal(normals(a.Declared), normals(p.Declared)) || inDirectory(file, p) {
			var longer []*Cause
			for _, c := range found {
				copied := *c
				copied.Path = append(slices.Clone(c.Path), step)
				longer = append(longer, &copied)
			}
			if len(longer) > 0 {
				return longer
			}
		}
	}
	c := leaf(d, file)
	c.Spawn = s
	c.Path = []Step{step}
	return []*Cause{c}
}

// inDirectory tells that a file is in a directory which is p's output.
func inDirectory(file string, p *execlog.Spawn) bool { return !slices.Contains(p.Declared, file) }

// direct makes a cause of what is in the spawn itself.
func direct(d Difference, s *execlog.Spawn) *Cause {
	c := &Cause{Difference: d, Spawn: s, Path: []Step{{Spawn: s}}}
	switch d.Kind {
	case Environment:
		c.What = "environment variable " + d.Name
	case Argument:
		c.What = "argument " + d.Name
		if d.Name == d.New.Text || d.Name == d.Old.Text {
			c.What = "argument"
		}
	case Platform:
		c.What = "platform property " + d.Name
	case Order:
		c.What = fmt.Sprintf("the order of %d arguments", d.Moved)
		c.Note = "the arguments are the same"
	case Configuration:
		c.What = "the configuration that the action is built in"
		c.Note = "a flag such as --compilation_mode or --platforms, or a transition"
	case Limits:
		c.What = "the action " + d.Name
		if d.Name == "timeout" {
			c.What = "the timeout"
		}
	case OutputSet:
		c.What = "the outputs that are asked for"
	}
	return c
}

// An external repository is made from what a lock file pins.
var locks = []struct {
	repository *regexp.Regexp
	lock       string
	// tool tells that the repository is one of tools.
	tool bool
}{
	{regexp.MustCompile(`^_main~debian~`), "tools/debian/debian.lock", false},
	{regexp.MustCompile(`^_main~go_modules~`), "the program's go.mod, go.sum and patches, see go_modules in MODULE.bazel", false},
	{regexp.MustCompile(`^_main~imports~`), "stack/imports.lock", false},
	{regexp.MustCompile(`^gazelle~~go_deps~`), "go.mod and go.sum", false},
	{regexp.MustCompile(`^rules_go~~go_sdk~`), "go_sdk in MODULE.bazel and tools/offline/modules.lock", true},
	{regexp.MustCompile(`^bazel_tools~cc_configure_extension~`), "nothing: it is made from the C compiler of the machine", true},
}

// leaf names a file that no spawn of the log made.
func leaf(d Difference, file string) *Cause {
	c := &Cause{Difference: d}
	name := path.Base(file)
	how := ""
	switch {
	case !d.Old.There:
		how = "new "
	case !d.New.There:
		how = "dropped "
	}
	what := "input"
	if d.Tool {
		what = "tool"
	}
	switch external, isExternal := strings.CutPrefix(file, "external/"); {
	case isExternal:
		repository, _, _ := strings.Cut(external, "/")
		c.Kind = External
		what := "file"
		c.Tool = d.Tool
		for _, l := range locks {
			if l.repository.MatchString(repository) {
				c.Note = "pinned by " + l.lock
				c.Tool = c.Tool || l.tool
			}
		}
		if c.Tool {
			what = "tool"
		}
		c.What = fmt.Sprintf("%s%s of the external repository %s", how, what, repository)
	case path.IsAbs(file):
		c.Kind = Source
		c.What = fmt.Sprintf("%s%s of the machine itself, %s", how, what, file)
	case strings.HasSuffix(file, ".params"):
		c.Kind = Arguments
		c.What = how + "arguments, in " + file
		c.Note = "logs have only the digest of arguments that are in a file; `bazel aquery --include_param_files` on both sides shows them"
	case strings.HasPrefix(file, "bazel-out/stable-status.txt"), strings.HasPrefix(file, "bazel-out/volatile-status.txt"):
		c.Kind = Written
		c.What = how + "workspace status, " + file
		c.Note = "an action with stamping reads it; components must not"
	case strings.HasPrefix(file, "bazel-out/"):
		c.Kind = Written
		c.What = how + what + " that Bazel wrote itself, " + file
		c.Note = "from an attribute, a build setting or a template; or the action that made it was up to date when B ran"
	case slices.Contains([]string{".patch", ".diff"}, path.Ext(name)):
		c.Kind = Source
		c.What = how + "patch " + file
	case path.Ext(name) == ".lock" || name == "go.sum" || name == "go.mod" || name == "lock.json":
		c.Kind = Source
		c.What = how + "lock file " + file
	default:
		c.Kind = Source
		c.What = how + "source file " + file
	}
	return c
}

// nondeterminism is the cause where one key gave two results.
func nondeterminism(a, b *execlog.Spawn) *Cause {
	c := &Cause{
		Difference: Difference{Kind: Nondeterminism, Name: b.String()}, Spawn: b, Path: []Step{{Spawn: b}},
		What: b.String() + " made other bytes from the same inputs",
	}
	old := map[string]execlog.File{}
	for _, f := range a.Outputs {
		old[normal(f.Path)] = f
	}
	for _, f := range b.Outputs {
		was, there := old[normal(f.Path)]
		if there && was.Digest == f.Digest && was.Target == f.Target {
			continue
		}
		if !c.New.There {
			c.Old, c.New = Value{describe(was), there}, value(describe(f))
			c.OldFile, c.NewFile = was, f
			c.Name = f.Path
			c.Note = "in " + f.Path
			continue
		}
		c.More = append(c.More, f.Path)
	}
	return c
}

// distinct keeps one cause of each, the one with the shortest path, and puts
// together the files of a repository.
func distinct(causes []*Cause) []*Cause {
	var out []*Cause
	byKey := map[string]*Cause{}
	for _, c := range causes {
		key := fmt.Sprint(c.Kind, " ", c.What, " ", c.Name, " ", c.Old, " ", c.New)
		if c.Kind == External {
			key = c.What
		}
		known := byKey[key]
		if known == nil {
			copied := *c
			byKey[key] = &copied
			out = append(out, &copied)
			continue
		}
		// What people look at first is the shortest way.
		first, second := known, c
		if len(c.Path) < len(known.Path) {
			first, second = c, known
		}
		more := slices.Concat(first.More, second.More, []string{second.place()})
		slices.Sort(more)
		merged := *first
		merged.More = slices.DeleteFunc(slices.Compact(more), func(other string) bool { return other == first.place() })
		*known = merged
	}
	slices.SortStableFunc(out, func(a, b *Cause) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(len(a.Path), len(b.Path)))
	})
	return out
}

// place is what tells a cause from others that are put together with it.
func (c *Cause) place() string {
	if c.Kind == External {
		return c.Name
	}
	return c.Spawn.String()
}

func describe(f execlog.File) string {
	switch {
	case f.Target != "":
		return "a symlink to " + f.Target
	case f.Digest.Hash == "":
		return "empty"
	}
	return fmt.Sprintf("%s, %d bytes", key(f.Digest.Hash), f.Digest.Size)
}
