package explain

import (
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/execlog"
)

// A Kind is what sort of thing differs.
type Kind int

// The kinds, the most telling first: what people change stands before what
// follows from it.
const (
	Source Kind = iota
	External
	Environment
	Argument
	Platform
	Order
	Nondeterminism
	Configuration
	Limits
	InputSet
	OutputSet
	// Written is a file that Bazel wrote by itself.
	Written
	// Arguments is a file of arguments that Bazel wrote by itself.
	Arguments
	// Missing is a spawn that the baseline does not have.
	Missing
	// Unseen is a difference that logs do not show.
	Unseen
)

// A Difference is one thing that two spawns have different.
type Difference struct {
	Kind Kind
	// Name is a path, a variable, a property or a flag.
	Name string
	// Old and New are the values. That of a file is a description.
	Old, New Value
	// OldFile and NewFile are the files, where Old and New are there.
	OldFile, NewFile execlog.File
	// Tool tells that an input is one of the spawn's tools.
	Tool bool
	// Moved is the number of arguments that are in another order.
	Moved int
}

// A Value is a text that may be absent.
type Value struct {
	Text  string
	There bool
}

func value(text string) Value { return Value{text, true} }

// Diff gives everything in which b differs from a, inputs included.
func Diff(a, b *execlog.Spawn) []Difference {
	var ds []Difference
	ds = append(ds, diffVariables(Environment, a.Environment, b.Environment)...)
	ds = append(ds, diffArgs(a.Args, b.Args)...)
	ds = append(ds, diffVariables(Platform, a.Platform, b.Platform)...)
	if old, now := configuration(a), configuration(b); old != now {
		ds = append(ds, Difference{Kind: Configuration, Name: "configuration", Old: value(old), New: value(now)})
	}
	if a.Timeout != b.Timeout {
		ds = append(ds, Difference{Kind: Limits, Name: "timeout", Old: value(a.Timeout.String()), New: value(b.Timeout.String())})
	}
	for _, tag := range []struct {
		name string
		a, b bool
	}{{"may run remotely", a.Remotable, b.Remotable}, {"may be cached", a.Cacheable, b.Cacheable}} {
		if tag.a != tag.b {
			ds = append(ds, Difference{Kind: Limits, Name: tag.name, Old: value(yes(tag.a)), New: value(yes(tag.b))})
		}
	}
	ds = append(ds, diffSets(OutputSet, a.Declared, b.Declared)...)
	return append(ds, diffInputs(a.Inputs(), b.Inputs())...)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// configuration is the name that outputs have in their path.
func configuration(s *execlog.Spawn) string {
	for _, path := range s.Declared {
		if m := configurationRE.FindStringSubmatch(path); m != nil {
			return m[2]
		}
	}
	return ""
}

func diffVariables(kind Kind, a, b []execlog.Variable) []Difference {
	var ds []Difference
	old, now := map[string]string{}, map[string]string{}
	var names []string
	for _, v := range a {
		old[v.Name] = v.Value
		names = append(names, v.Name)
	}
	for _, v := range b {
		now[v.Name] = v.Value
		names = append(names, v.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		was, inOld := old[name]
		is, inNow := now[name]
		if inOld != inNow || normal(was) != normal(is) {
			ds = append(ds, Difference{Kind: kind, Name: name, Old: Value{was, inOld}, New: Value{is, inNow}})
		}
	}
	return ds
}

func diffSets(kind Kind, a, b []string) []Difference {
	var ds []Difference
	has := func(list []string, path string) bool {
		return slices.ContainsFunc(list, func(other string) bool { return normal(other) == normal(path) })
	}
	for _, path := range a {
		if !has(b, path) {
			ds = append(ds, Difference{Kind: kind, Name: path, Old: value(path)})
		}
	}
	for _, path := range b {
		if !has(a, path) {
			ds = append(ds, Difference{Kind: kind, Name: path, New: value(path)})
		}
	}
	return ds
}

// diffArgs finds the arguments that changed, each with the flag that it
// belongs to.
func diffArgs(a, b []string) []Difference {
	var ds []Difference
	var removed, added []string
	for _, h := range hunks(normals(a), normals(b)) {
		was, is := a[h.a0:h.a1], b[h.b0:h.b1]
		removed = append(removed, normals(was)...)
		added = append(added, normals(is)...)
		for i := range max(len(was), len(is)) {
			var d Difference
			at := h.b0 + i
			if i < len(was) {
				d.Old = value(was[i])
			}
			if i < len(is) {
				d.New = value(is[i])
			}
			d.Kind, d.Name = Argument, flagOf(b, at, d)
			ds = append(ds, d)
		}
	}
	slices.Sort(removed)
	slices.Sort(added)
	if len(removed) > 0 && slices.Equal(removed, added) {
		first := 0
		for normal(a[first]) == normal(b[first]) {
			first++
		}
		return []Difference{{Kind: Order, Name: "arguments", Old: window(a, first), New: window(b, first), Moved: len(removed)}}
	}
	return ds
}

// window shows some arguments in their order.
func window(args []string, at int) Value {
	return value("… " + strings.Join(args[at:min(at+3, len(args))], " ") + " …")
}

// flagOf names an argument: the flag that it is, or the one that it is the
// value of.
func flagOf(args []string, at int, d Difference) string {
	isFlag := func(v Value) bool { return !v.There || strings.HasPrefix(v.Text, "-") }
	text := d.New.Text
	if !d.New.There {
		text = d.Old.Text
	}
	if isFlag(d.Old) && isFlag(d.New) {
		name, _, _ := strings.Cut(text, "=")
		return name
	}
	if at > 0 && at <= len(args) && strings.HasPrefix(args[at-1], "-") && !strings.Contains(args[at-1], "=") {
		return args[at-1]
	}
	return text
}

func normals(list []string) []string {
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = normal(text)
	}
	return out
}

// A hunk is a stretch of two lists in which they differ.
type hunk struct{ a0, a1, b0, b1 int }

// hunks compares two lists by their longest common subsequence.
func hunks(a, b []string) []hunk {
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	endA, endB := len(a), len(b)
	for endA > start && endB > start && a[endA-1] == b[endB-1] {
		endA--
		endB--
	}
	x, y := a[start:endA], b[start:endB]
	// Command lines beyond this are in files; the table would be large.
	if len(x)*len(y) > 1<<24 {
		return []hunk{{start, endA, start, endB}}
	}
	common := make([][]int32, len(x)+1)
	for i := range common {
		common[i] = make([]int32, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []hunk
	for i, j := 0, 0; i < len(x) || j < len(y); {
		if i < len(x) && j < len(y) && x[i] == y[j] {
			i++
			j++
			continue
		}
		h := hunk{a0: start + i, b0: start + j}
		for (i < len(x) || j < len(y)) && (i >= len(x) || j >= len(y) || x[i] != y[j]) {
			if j >= len(y) || i < len(x) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		h.a1, h.b1 = start+i, start+j
		out = append(out, h)
	}
	return out
}

// diffInputs compares inputs by path. A tool's copy in a runfiles tree is not
// named again.
func diffInputs(a, b []execlog.File) []Difference {
	old, now := map[string]execlog.File{}, map[string]execlog.File{}
	var paths []string
	for _, f := range a {
		old[normal(f.Path)] = f
		paths = append(paths, normal(f.Path))
	}
	for _, f := range b {
		now[normal(f.Path)] = f
		paths = append(paths, normal(f.Path))
	}
	slices.Sort(paths)
	var ds []Difference
	said := map[[2]execlog.Digest]bool{}
	var copies []Difference
	for _, path := range slices.Compact(paths) {
		was, inOld := old[path]
		is, inNow := now[path]
		if inOld == inNow && was.Digest == is.Digest && was.Target == is.Target && was.Tool == is.Tool {
			continue
		}
		d := Difference{Kind: InputSet, Tool: is.Tool || was.Tool, OldFile: was, NewFile: is}
		if inOld {
			d.Old = value(describe(was))
			d.Name = was.Path
		}
		if inNow {
			d.New = value(describe(is))
			d.Name = is.Path
		}
		if inOld && inNow {
			d.Kind = Source // Until the tracer knows better.
		}
		pair := [2]execlog.Digest{was.Digest, is.Digest}
		if strings.Contains(path, ".runfiles/") {
			if !said[pair] {
				copies = append(copies, d)
			}
			continue
		}
		said[pair] = true
		ds = append(ds, d)
	}
	for _, d := range copies {
		if !said[[2]execlog.Digest{d.OldFile.Digest, d.NewFile.Digest}] {
			ds = append(ds, d)
		}
	}
	return ds
}
