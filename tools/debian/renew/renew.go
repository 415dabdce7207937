// Package renew makes locks: a new one from the package sets, a check
// whether the archive still has what a lock names, and a lock that replaces
// what it has no more.
package renew

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

type want struct{ binaries, sources bool }

// suites reads the indexes of all suites that are wanted.
func (s *Source) suites(ctx context.Context, wanted map[string]want) (map[string]*archive.Suite, error) {
	names := make([]string, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	slices.Sort(names)
	suites := map[string]*archive.Suite{}
	for _, name := range names {
		suite, err := s.Reader.ReadSuite(ctx, name, wanted[name].binaries, wanted[name].sources)
		if err != nil {
			return nil, err
		}
		for _, note := range suite.Notes {
			s.progress("note: %s", note)
		}
		suites[name] = suite
	}
	return suites, nil
}

func (s *Source) progress(format string, args ...any) {
	if s.Reader.Progress != nil {
		s.Reader.Progress(fmt.Sprintf(format, args...))
	}
}

func wantedBySets(sets lock.Sets) map[string]want {
	wanted := map[string]want{}
	for _, set := range sets {
		w := wanted[set.Suite]
		w.binaries = w.binaries || set.Kind == lock.KindBinary
		w.sources = w.sources || set.Kind == lock.KindSource
		wanted[set.Suite] = w
	}
	return wanted
}

// Update resolves all sets anew, with the newest version of everything.
func (s *Source) Update(ctx context.Context, sets lock.Sets) (*lock.Lock, error) {
	suites, err := s.suites(ctx, wantedBySets(sets))
	if err != nil {
		return nil, err
	}
	return resolveAll(sets, suites, nil, lock.Header)
}

func resolveAll(sets lock.Sets, suites map[string]*archive.Suite, keep map[string]resolve.Keep, header string) (*lock.Lock, error) {
	resolvers := map[string]*resolve.Resolver{}
	l := &lock.Lock{Header: header, Snapshots: map[string]string{}}
	for name, suite := range suites {
		r, err := resolve.New(suite, keep[name])
		if err != nil {
			return nil, err
		}
		resolvers[name] = r
		l.Snapshots[name] = suite.Newest.Date.Add(snapshotDelay).UTC().Format("20060102T150405Z")
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
			packages, err := resolvers[set.Suite].Source(name, set)
			if err != nil {
				return nil, err
			}
			for _, p := range packages {
				for _, f := range p.Files {
					if strings.HasSuffix(f.Path, ".asc") {
						// Checksums of the signed index bind the rest.
						continue
					}
					add(name, lock.Entry{Suite: set.Suite, Package: p.Name, Version: p.Version.String(), Arch: lock.ArchSource,
						Source: p.Name, SourceVersion: p.Version.String(), Size: f.Size, SHA256: f.SHA256, Path: f.Path})
				}
			}
			continue
		}
		packages, err := resolvers[set.Suite].Binary(name, set)
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

// Vanished lists the entries of a lock that no source has any more. It is an
// error when that cannot be said, since a source is out of reach.
func (s *Source) Vanished(ctx context.Context, l *lock.Lock) ([]lock.Entry, error) {
	vanished, _, err := s.vanished(ctx, l, nil)
	return vanished, err
}

func (s *Source) vanished(ctx context.Context, l *lock.Lock, wanted map[string]want) ([]lock.Entry, map[string]*archive.Suite, error) {
	if wanted == nil {
		wanted = map[string]want{}
	}
	for _, e := range l.Entries {
		w := wanted[e.Suite]
		w.binaries = w.binaries || e.Arch != lock.ArchSource
		w.sources = w.sources || e.Arch == lock.ArchSource
		wanted[e.Suite] = w
	}
	suites, err := s.suites(ctx, wanted)
	if err != nil {
		return nil, nil, err
	}
	var unlisted []lock.Entry
	for _, e := range l.Entries {
		if !listed(suites[e.Suite], e) {
			unlisted = append(unlisted, e)
		}
	}
	if len(unlisted) == 0 {
		return nil, suites, nil
	}
	// A mirror keeps a file for a while after the index dropped it.
	s.progress("%d of %d files are not in the package index any more, asking for each", len(unlisted), len(l.Entries))
	bases := slices.Clone(s.Reader.Mirrors)
	there := make([]bool, len(unlisted))
	errs := make([]error, len(unlisted))
	snapshot := s.Snapshot != "" && s.reachable(ctx, s.Snapshot)
	var group sync.WaitGroup
	// Few at a time: mirrors are a gift.
	slots := make(chan struct{}, 4)
	for i, e := range unlisted {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for _, base := range bases {
				ok, err := s.Reader.Client.Has(ctx, base+"/"+e.Path, e.Size)
				if ok {
					there[i] = true
					return
				}
				errs[i] = errors.Join(errs[i], err)
			}
			if stamp := l.Snapshots[e.Suite]; snapshot && stamp != "" {
				ok, err := s.SnapshotClient.Has(ctx, strings.TrimRight(s.Snapshot, "/")+"/"+stamp+"/"+e.Path, e.Size)
				there[i] = ok
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	group.Wait()
	var vanished []lock.Entry
	for i, e := range unlisted {
		if there[i] {
			continue
		}
		if errs[i] != nil {
			return nil, nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("looking for %s: %w", e.Path, errs[i]))
		}
		vanished = append(vanished, e)
	}
	return vanished, suites, nil
}

func (s *Source) reachable(ctx context.Context, base string) bool {
	_, err := s.SnapshotClient.Has(ctx, base, -1)
	return err == nil
}

func listed(suite *archive.Suite, e lock.Entry) bool {
	if e.Arch == lock.ArchSource {
		for _, p := range suite.Sources[e.Package] {
			for _, f := range p.Files {
				if f.Path == e.Path && f.SHA256 == e.SHA256 {
					return true
				}
			}
		}
		return false
	}
	for _, p := range suite.Binaries[e.Package] {
		if p.Path == e.Path && p.SHA256 == e.SHA256 {
			return true
		}
	}
	return false
}

// Relock makes a lock in which the entries that no source has any more are
// replaced by what the suite has now, together with whatever the new ones
// need; all others keep their version. It gives nil when nothing vanished.
func (s *Source) Relock(ctx context.Context, l *lock.Lock, sets lock.Sets, header string) (*lock.Lock, []lock.Entry, error) {
	vanished, suites, err := s.vanished(ctx, l, wantedBySets(sets))
	if err != nil || len(vanished) == 0 {
		return nil, nil, err
	}
	keep := map[string]resolve.Keep{}
	for _, e := range l.Entries {
		k, ok := keep[e.Suite]
		if !ok {
			k = resolve.Keep{Binary: map[string]string{}, Source: map[string]string{}}
			keep[e.Suite] = k
		}
		if e.Arch == lock.ArchSource {
			k.Source[e.Package] = e.Version
		} else {
			k.Binary[e.Package] = e.Version
		}
	}
	fresh, err := resolveAll(sets, suites, keep, header)
	return fresh, vanished, err
}
