package lock

import (
	"cmp"
	"slices"
)

// Change says how one package differs between two locks. Old is empty for
// a package that is new, New for one that is gone.
type Change struct {
	Suite   string `json:"suite"`
	Package string `json:"package"`
	Arch    string `json:"architecture"`
	Old     string `json:"old,omitempty"`
	New     string `json:"new,omitempty"`
	// Sets are the sets of the package after the change, or before it
	// when the package is gone.
	Sets []string `json:"sets"`
}

// Diff lists what changed from one lock to another. The several files of a
// source package count as one change. A package with the same version but
// other bytes, or in other sets, counts as changed too.
func Diff(from, to *Lock) []Change {
	type state struct{ old, new []Entry }
	states := map[string]*state{}
	id := func(e Entry) string { return e.Suite + " " + e.Package + " " + e.Arch }
	at := func(e Entry) *state {
		if states[id(e)] == nil {
			states[id(e)] = &state{}
		}
		return states[id(e)]
	}
	for _, e := range from.Entries {
		s := at(e)
		s.old = append(s.old, e)
	}
	for _, e := range to.Entries {
		s := at(e)
		s.new = append(s.new, e)
	}
	changes := []Change{}
	for _, s := range states {
		if sameEntries(s.old, s.new) {
			continue
		}
		var c Change
		if len(s.old) > 0 {
			e := s.old[0]
			c = Change{Suite: e.Suite, Package: e.Package, Arch: e.Arch, Sets: e.Sets, Old: e.Version}
		}
		if len(s.new) > 0 {
			e := s.new[0]
			c.Suite, c.Package, c.Arch, c.Sets, c.New = e.Suite, e.Package, e.Arch, e.Sets, e.Version
		}
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(x, y Change) int {
		return cmp.Or(cmp.Compare(x.Suite, y.Suite), cmp.Compare(x.Package, y.Package), cmp.Compare(x.Arch, y.Arch))
	})
	return changes
}

func sameEntries(x, y []Entry) bool {
	sums := func(entries []Entry) []string {
		var out []string
		for _, e := range entries {
			s := e.Version + " " + e.Path + " " + e.SHA256
			for _, set := range e.Sets {
				s += " " + set
			}
			out = append(out, s)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(sums(x), sums(y))
}
