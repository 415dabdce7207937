package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Kinds of a set.
const (
	KindBinary = "binary"
	KindSource = "source"
)

// Set is what a human asks for: some packages of one suite.
type Set struct {
	// About says what the set is for.
	About string `json:"about"`
	// Like names a set that this one equals in all but About and Architecture.
	Like  string `json:"like,omitempty"`
	Suite string `json:"suite"`
	// Kind is "binary" or "source".
	Kind string `json:"kind"`
	// Architecture is what binary packages are for, by Debian's name; amd64
	// when it is empty. Packages for all architectures come with any.
	Architecture string `json:"architecture,omitempty"`
	// Resolve adds what the packages depend on (Pre-Depends and Depends,
	// never Recommends).
	Resolve bool `json:"resolve,omitempty"`
	// Essential adds all packages that the archive marks as essential.
	Essential bool `json:"essential,omitempty"`
	// Packages are the names asked for, each with the version that it must
	// have at least if one is needed: "qemu (>= 1:10.1)".
	Packages []string `json:"packages"`
	// Omit maps packages that are left out, though something depends on
	// them, to the reason why nothing misses them.
	Omit map[string]string `json:"omit,omitempty"`
}

// Sets maps the name of a set to what it holds.
type Sets map[string]Set

// Index names the index of the suite that the set is resolved against: an
// architecture, or ArchSource.
func (s Set) Index() string {
	if s.Kind == KindSource {
		return ArchSource
	}
	return cmp.Or(s.Architecture, "amd64")
}

// Names gives the sorted names of all sets.
func (s Sets) Names() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var (
	setName      = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	architecture = regexp.MustCompile(`^[a-z0-9]+$`)
	request      = regexp.MustCompile(`^([a-z0-9][a-z0-9+.-]+)(?: \(>= ([0-9A-Za-z.+~:-]+)\))?$`)
)

// Request splits what is asked for into the name of a package and the version
// that it must have at least, which may be empty.
func Request(asked string) (name, atLeast string) {
	m := request.FindStringSubmatch(asked)
	if m == nil {
		return asked, ""
	}
	return m[1], m[2]
}

// ReadSets reads sets.json. Errors name the file and, where JSON tells it,
// the line.
func ReadSets(file string) (Sets, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, badInput("reading the package sets: %w", err)
	}
	return ParseSets(file, data)
}

// ParseSets reads the content of sets.json.
func ParseSets(name string, data []byte) (Sets, error) {
	sets, expanded := Sets{}, Sets{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&sets); err != nil {
		line := 1 + bytes.Count(data[:errorOffset(data, err)], []byte("\n"))
		return nil, badInput("%s:%d: %w", name, line, err)
	}
	for _, n := range sets.Names() {
		set, err := sets.expand(sets[n])
		if err == nil {
			err = set.check()
		}
		if err != nil {
			return nil, badInput("%s:%d: set %q: %w", name, lineOf(data, n), n, err)
		}
		expanded[n] = set
		if !setName.MatchString(n) {
			return nil, badInput("%s:%d: set name %q: want lower-case letters, digits and _, since it names a Bazel repository", name, lineOf(data, n), n)
		}
	}
	return expanded, nil
}

// expand gives a set what it has of the set that it is like.
func (s Sets) expand(set Set) (Set, error) {
	if set.Like == "" {
		return set, nil
	}
	like, ok := s[set.Like]
	if !ok || like.Like != "" {
		return Set{}, fmt.Errorf("like %q: want the name of a set that lists packages itself", set.Like)
	}
	if set.Suite != "" || set.Kind != "" || set.Resolve || set.Essential || len(set.Packages) > 0 || len(set.Omit) > 0 {
		return Set{}, fmt.Errorf("like %q: nothing but about and architecture can stand beside it", set.Like)
	}
	like.About, like.Like, like.Architecture = set.About, set.Like, set.Architecture
	return like, nil
}

// errorOffset says where in the data a JSON error is.
func errorOffset(data []byte, err error) int {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	offset := len(data)
	switch field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); {
	case errors.As(err, &syntax):
		offset = int(syntax.Offset)
	case errors.As(err, &kind):
		offset = int(kind.Offset)
	case ok:
		// The decoder does not say where, but what.
		offset = bytes.Index(data, []byte(field))
	}
	return max(0, min(offset, len(data)))
}

// lineOf finds where a set begins, for error messages.
func lineOf(data []byte, set string) int {
	key, err := json.Marshal(set)
	if err != nil {
		return 1
	}
	i := bytes.Index(data, append(key, ':'))
	if i < 0 {
		return 1
	}
	return 1 + bytes.Count(data[:i], []byte("\n"))
}

func (s Set) check() error {
	if s.Suite == "" || strings.ContainsAny(s.Suite, "/ ") {
		return fmt.Errorf("suite %q: want the code name of a release", s.Suite)
	}
	switch s.Kind {
	case KindBinary:
		if s.Architecture != "" && !architecture.MatchString(s.Architecture) {
			return fmt.Errorf("architecture %q: want Debian's name of one, like ppc64el", s.Architecture)
		}
	case KindSource:
		if s.Resolve || s.Essential || s.Architecture != "" || len(s.Omit) > 0 {
			return errors.New("architecture, resolve, essential and omit make sense for binary packages only")
		}
	default:
		return fmt.Errorf("kind %q: want %q or %q", s.Kind, KindBinary, KindSource)
	}
	if len(s.Packages) == 0 && !s.Essential {
		return errors.New("no packages")
	}
	seen := map[string]bool{}
	for _, p := range s.Packages {
		if !request.MatchString(p) {
			return fmt.Errorf("%q: want the name of a package, or \"name (>= version)\"", p)
		}
		p, _ = Request(p)
		if seen[p] {
			return fmt.Errorf("package %s is listed twice", p)
		}
		if _, ok := s.Omit[p]; ok {
			return fmt.Errorf("package %s is both asked for and omitted", p)
		}
		seen[p] = true
	}
	return nil
}
