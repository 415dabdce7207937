// Package renew makes locks: a new one from the package sets, a check
// whether the archive still has what a lock names, and a lock that replaces
// what it has no more.
package renew

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/debian/resolve"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// snapshotDelay is added to the date of a Release file. snapshot.debian.org
// looks at the archive four times a day, one or two hours after each change
// of it, so five hours later it has this state, and not the next one.
const snapshotDelay = 5 * time.Hour

// Source is where packages come from.
type Source struct {
	Reader *archive.Reader
	// Snapshot is the base address of the snapshot archive, "" for none.
	Snapshot string
	// SnapshotClient asks it. It should give up soon: that it is out of
	// reach is ordinary, and only means that it is of no help.
	SnapshotClient *archive.Client
}

// index is one index of a suite: that of an architecture, or of the sources.
type index struct{ suite, arch string }

func indexOf(set lock.Set) index { return index{set.Suite, set.Index()} }

// read reads all indexes that sets are resolved against.
func (s *Source) read(ctx context.Context, sets lock.Sets) (map[index]*archive.Suite, error) {
	suites := map[index]*archive.Suite{}
	for _, name := range sets.Names() {
		i := indexOf(sets[name])
		if suites[i] != nil {
			continue
		}
		suite, err := s.Reader.ReadSuite(ctx, i.suite, i.arch)
		if err != nil {
			return nil, err
		}
		for _, note := range suite.Notes {
			s.progress("note: %s", note)
		}
		suites[i] = suite
	}
	return suites, nil
}

// drop forgets a package that cannot be had in all indexes that list it.
func drop(suites map[index]*archive.Suite, e lock.Entry) {
	for i, suite := range suites {
		if i.suite == e.Suite {
			suite.Drop(e.Path)
		}
	}
}

func (s *Source) progress(format string, args ...any) {
	if s.Reader.Progress != nil {
		s.Reader.Progress(fmt.Sprintf(format, args...))
	}
}

// Update resolves all sets anew: with the version that is locked of what keep
// names, as far as a mirror has it, and with the newest of everything else.
func (s *Source) Update(ctx context.Context, sets lock.Sets, keep *lock.Lock) (*lock.Lock, error) {
	suites, err := s.read(ctx, sets)
	if err != nil {
		return nil, err
	}
	return s.resolveServed(ctx, sets, suites, kept(keep, suites), lock.Header)
}

// resolveServed resolves all sets to packages that can be had. A mirror may
// list what it does not serve, so the index alone does not tell: what cannot
// be had is dropped from the index, until all that is chosen can.
func (s *Source) resolveServed(ctx context.Context, sets lock.Sets, suites map[index]*archive.Suite,
	keep map[index]resolve.Keep, header string) (*lock.Lock, error) {
	served := map[string]bool{}
	for {
		l, err := resolveAll(sets, suites, keep, header)
		if err != nil {
			return nil, err
		}
		unknown := &lock.Lock{Snapshots: l.Snapshots}
		for _, e := range l.Entries {
			if !served[e.Path] {
				unknown.Entries = append(unknown.Entries, e)
			}
		}
		missing, err := s.Vanished(ctx, unknown)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return l, nil
		}
		for _, e := range unknown.Entries {
			served[e.Path] = true
		}
		for _, e := range missing {
			s.progress("%s lists %s %s, but no source has %s", e.Suite, e.Package, e.Version, e.Path)
			drop(suites, e)
		}
	}
}

func resolveAll(sets lock.Sets, suites map[index]*archive.Suite, keep map[index]resolve.Keep, header string) (*lock.Lock, error) {
	resolvers := map[index]*resolve.Resolver{}
	l := &lock.Lock{Header: header, Snapshots: map[string]string{}}
	for i, suite := range suites {
		r, err := resolve.New(suite, keep[i])
		if err != nil {
			return nil, err
		}
		resolvers[i] = r
		l.Snapshots[i.suite] = suite.Newest.Date.Add(snapshotDelay).UTC().Format("20060102T150405Z")
	}
	files := map[string]int{}
	add := func(set string, e lock.Entry) {
		id := e.Suite + " " + e.Path
		i, ok := files[id]
		if !ok {
			i = len(l.Entries)
			files[id] = i
			l.Entries = append(l.Entries, e)
		}
		l.Entries[i].Sets = append(l.Entries[i].Sets, set)
	}
	for _, name := range sets.Names() {
		set := sets[name]
		if set.Kind == lock.KindSource {
			packages, err := resolvers[indexOf(set)].Source(name, set)
			if err != nil {
				return nil, err
			}
			for _, p := range packages {
				for _, f := range p.Files {
					if role := lock.Role(f.Path); role == "dsc" || strings.HasSuffix(role, ".asc") {
						// The signed index has the checksums of the
						// rest, and nothing is built from these.
						continue
					}
					add(name, lock.Entry{Suite: set.Suite, Package: p.Name, Version: p.Version.String(), Arch: lock.ArchSource,
						Source: p.Name, SourceVersion: p.Version.String(), Size: f.Size, SHA256: f.SHA256, Path: f.Path})
				}
			}
			continue
		}
		packages, err := resolvers[indexOf(set)].Binary(name, set)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			add(name, lock.Entry{Suite: set.Suite, Package: p.Name, Version: p.Version.String(), Arch: p.Arch,
				Source: p.Source, SourceVersion: p.SourceVersion, Size: p.Size, SHA256: p.SHA256, Path: p.Path})
		}
	}
	return l, nil
}

// probes is how many files are asked for at a time; Bazel fetches as many.
const probes = 8

// Vanished lists the entries of a lock that no source has any more. It is an
// error when that cannot be said, since a source is out of reach.
func (s *Source) Vanished(ctx context.Context, l *lock.Lock) ([]lock.Entry, error) {
	if len(s.Reader.Mirrors) == 0 {
		return nil, archive.ErrNoMirror
	}
	s.progress("asking for %d files", len(l.Entries))
	missing, errs := s.ask(ctx, l.Entries, func(e lock.Entry) (bool, error) {
		var problems error
		for _, base := range s.Reader.Mirrors {
			ok, err := s.Reader.Client.Has(ctx, base+"/"+e.Path, e.Size)
			if ok {
				return true, nil
			}
			problems = errors.Join(problems, err)
		}
		return false, problems
	})
	if len(missing) == 0 {
		return nil, nil
	}
	// Most machines where something has vanished do not reach the snapshot
	// archive: it is asked only then, and first whether it is there at all.
	if s.Snapshot != "" && s.reachable(ctx, s.Snapshot) {
		missing, errs = s.ask(ctx, missing, func(e lock.Entry) (bool, error) {
			stamp := l.Snapshots[e.Suite]
			if stamp == "" {
				return false, nil
			}
			return s.SnapshotClient.Has(ctx, strings.TrimRight(s.Snapshot, "/")+"/"+stamp+"/"+e.Path, e.Size)
		})
	}
	for i, e := range missing {
		if errs[i] != nil {
			return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("looking for %s %s: %w", e.Package, e.Version, errs[i]))
		}
	}
	return missing, ctx.Err()
}

// ask lists the entries that has does not find, with the error for each.
func (s *Source) ask(ctx context.Context, entries []lock.Entry, has func(lock.Entry) (bool, error)) ([]lock.Entry, []error) {
	found := make([]bool, len(entries))
	errs := make([]error, len(entries))
	var group sync.WaitGroup
	slots := make(chan struct{}, probes)
	for i, e := range entries {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				found[i], errs[i] = has(e)
			}
		})
	}
	group.Wait()
	var missing []lock.Entry
	var why []error
	for i, e := range entries {
		if !found[i] {
			missing = append(missing, e)
			why = append(why, errs[i])
		}
	}
	return missing, why
}

func (s *Source) reachable(ctx context.Context, base string) bool {
	_, err := s.SnapshotClient.Has(ctx, base, -1)
	return err == nil
}

// Relock makes a lock in which the entries that no source has any more are
// replaced by what the suite has now, together with whatever the new ones
// need; all others keep their version. It gives nil when nothing vanished.
func (s *Source) Relock(ctx context.Context, l *lock.Lock, sets lock.Sets, header string) (*lock.Lock, []lock.Entry, error) {
	vanished, err := s.Vanished(ctx, l)
	if err != nil || len(vanished) == 0 {
		return nil, nil, err
	}
	suites, err := s.read(ctx, sets)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range vanished {
		drop(suites, e)
	}
	fresh, err := s.resolveServed(ctx, sets, suites, kept(l, suites), header)
	return fresh, vanished, err
}

// archAll is the architecture column of a package that is for all of them.
const archAll = "all"

// kept gives the versions that a lock has, for each index.
func kept(l *lock.Lock, suites map[index]*archive.Suite) map[index]resolve.Keep {
	keep := map[index]resolve.Keep{}
	for i := range suites {
		k := resolve.Keep{}
		for _, e := range l.Entries {
			if e.Suite == i.suite && (e.Arch == i.arch || e.Arch == archAll && i.arch != lock.ArchSource) {
				k[e.Package] = e.Version
			}
		}
		keep[i] = k
	}
	return keep
}
