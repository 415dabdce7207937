package renew_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/archive/archivetest"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/debian/renew"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const date = "Sat, 21 Nov 2026 09:15:44 UTC"

func source(mirrors ...string) *renew.Source {
	return &renew.Source{
		Reader:         &archive.Reader{Client: archive.NewClient(), Mirrors: mirrors},
		SnapshotClient: archive.NewClient(),
	}
}

var sets = lock.Sets{
	"buildroot": {Suite: "trixie", Kind: lock.KindBinary, Resolve: true, Packages: []string{"gcc", "bash"}},
	"guest":     {Suite: "trixie", Kind: lock.KindBinary, Resolve: true, Packages: []string{"bash"}},
	"qemu":      {Suite: "sid", Kind: lock.KindSource, Packages: []string{"qemu"}},
}

const first = `Package: bash
Version: 5.2-1
Depends: libc6 (>= 2)

Package: gcc
Version: 14-1
Depends: libc6 (>= 2)

Package: libc6
Version: 2.41-1
Source: glibc
`

// qemu gives the index of a source package, and serves its files if asked to.
func qemu(m *archivetest.Mirror, serve bool, versions ...string) string {
	var b strings.Builder
	for _, v := range versions {
		fmt.Fprintf(&b, "Package: qemu\nVersion: 1:%s-1\nDirectory: pool/q\nChecksums-Sha256:\n", v)
		for _, file := range []string{"qemu_" + v + "-1.dsc", "qemu_" + v + ".orig.tar.xz", "qemu_" + v + "-1.debian.tar.xz"} {
			fmt.Fprintf(&b, " %x %d %s\n", sha256.Sum256([]byte(file)), len(file), file)
			if serve && !strings.HasSuffix(file, ".dsc") {
				m.Put("pool/q/"+file, []byte(file))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// versions gives "package version sets" of each entry.
func versions(l *lock.Lock) []string {
	var lines []string
	for line := range strings.Lines(string(l.Format())) {
		if f := strings.Fields(line); len(f) == 10 && !strings.HasPrefix(line, "#") {
			lines = append(lines, f[2]+" "+f[3]+" "+f[0])
		}
	}
	return lines
}

func mirror(t *testing.T) *archivetest.Mirror {
	t.Helper()
	m := archivetest.New(t)
	m.Publish("trixie", date, first, "")
	m.Publish("sid", date, "", qemu(m, true, "10.2"))
	return m
}

func TestUpdate(t *testing.T) {
	m := mirror(t)
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"qemu 1:10.2-1 qemu", // .debian.tar.xz
		"qemu 1:10.2-1 qemu", // .orig.tar.xz, and no .dsc
		"bash 5.2-1 buildroot,guest",
		"gcc 14-1 buildroot",
		"libc6 2.41-1 buildroot,guest",
	}, versions(l))
	require.Equal(t, map[string]string{"trixie": "20261121T141544Z", "sid": "20261121T141544Z"}, l.Snapshots)
	require.Equal(t, "glibc", l.InSet("guest")[1].Source)

	again, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	require.Equal(t, string(l.Format()), string(again.Format()))
}

// TestUpdateOfSeveralArchitectures takes each set from the index of its architecture, and
// keeps what is locked when told so.
func TestUpdateOfSeveralArchitectures(t *testing.T) {
	const all = "\nPackage: tzdata\nVersion: 2026a\nArchitecture: all\n"
	foreign := func(version string) string {
		return "\nPackage: bash\nVersion: " + version + "\nDepends: libc6, tzdata\nArchitecture: s390x\n\nPackage: libc6\nVersion: 2.41-1\nArchitecture: s390x\n"
	}
	m := mirror(t)
	m.Publish("trixie", date, first+all+foreign("5.2-1"), "")
	sets := lock.Sets{
		"guest":       {Suite: "trixie", Kind: lock.KindBinary, Resolve: true, Packages: []string{"bash", "tzdata"}},
		"guest_s390x": {Suite: "trixie", Kind: lock.KindBinary, Architecture: "s390x", Resolve: true, Packages: []string{"bash"}},
	}
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"bash 5.2-1 guest",
		"bash 5.2-1 guest_s390x",
		"libc6 2.41-1 guest",
		"libc6 2.41-1 guest_s390x",
		"tzdata 2026a guest,guest_s390x",
	}, versions(l))

	// A newer version is taken only by what is not locked yet.
	m.Publish("trixie", date, first+strings.ReplaceAll(first, "5.2-1", "5.3-1")+all+foreign("5.2-1")+foreign("5.3-1"), "")
	delete(sets, "guest")
	sets["other"] = lock.Set{Suite: "trixie", Kind: lock.KindBinary, Packages: []string{"gcc"}}
	fresh, err := source(m.URL).Update(t.Context(), sets, l)
	require.NoError(t, err)
	require.Equal(t, []string{
		"bash 5.2-1 guest_s390x",
		"gcc 14-1 other",
		"libc6 2.41-1 guest_s390x",
		"tzdata 2026a guest_s390x",
	}, versions(fresh))
	fresh, err = source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	require.Contains(t, versions(fresh), "bash 5.3-1 guest_s390x")
}

func TestUpdatePassesOverWhatIsListedButNotServed(t *testing.T) {
	m := mirror(t)
	m.Publish("sid", date, "", qemu(m, false, "11.1", "11.0")+qemu(m, true, "10.2"))
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	require.Equal(t, "qemu 1:10.2-1 qemu", versions(l)[0])

	m.Remove("pool/q/qemu_10.2.orig.tar.xz")
	_, err = source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.EqualError(t, err,
		"set qemu: source package qemu: suite sid lists 1:11.1-1, 1:11.0-1, 1:10.2-1, but no source in reach has its files")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
}

func TestVanished(t *testing.T) {
	m, other, snapshot := mirror(t), archivetest.New(t), archivetest.New(t)
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)

	gone, err := source(m.URL).Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Empty(t, gone)

	bash := archivetest.Path("bash", "5.2-1")
	m.Remove(bash)
	gone, err = source(m.URL).Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.Equal(t, "bash", gone[0].Package)

	// A file of another size under that name is another file.
	m.Put(bash, []byte("something else"))
	gone, err = source(m.URL).Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	m.Remove(bash)

	// Another mirror or the snapshot archive may still have it.
	other.Put(bash, []byte("bash 5.2-1"))
	gone, err = source(m.URL, other.URL).Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Empty(t, gone)

	s := source(m.URL)
	s.Snapshot = snapshot.URL + "/archive/"
	snapshot.Put("archive/", nil)
	snapshot.Put("archive/20261121T141544Z/"+bash, []byte("bash 5.2-1"))
	gone, err = s.Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Empty(t, gone)

	// A snapshot archive out of reach is of no help, and no error.
	s.Snapshot = "http://127.0.0.1:1/archive/"
	gone, err = s.Vanished(t.Context(), l)
	require.NoError(t, err)
	require.Len(t, gone, 1)

	// But when a mirror does not answer, nothing can be said.
	_, err = source(m.URL, "http://127.0.0.1:1").Vanished(t.Context(), l)
	require.ErrorContains(t, err, "looking for bash 5.2-1: ")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
	_, err = source().Vanished(t.Context(), l)
	require.ErrorIs(t, err, archive.ErrNoMirror)
}

func TestRelock(t *testing.T) {
	for name, tc := range map[string]struct {
		index string
		// removed are files that the mirror drops.
		removed []string
		want    []string
		gone    []string
	}{
		"nothing is gone": {index: first},
		"newer versions alone are no reason": {
			index: strings.ReplaceAll(first, "14-1", "14-2"),
		},
		"only what is gone is resolved anew": {
			index:   first + "\nPackage: gcc\nVersion: 14-2\nDepends: libc6 (>= 2)\n\nPackage: bash\nVersion: 5.3-1\nDepends: libc6\n",
			removed: []string{archivetest.Path("gcc", "14-1")},
			gone:    []string{"gcc 14-1"},
			want:    []string{"bash 5.2-1 buildroot,guest", "gcc 14-2 buildroot", "libc6 2.41-1 buildroot,guest"},
		},
		"with its new dependencies": {
			index:   first + "\nPackage: gcc\nVersion: 14-2\nDepends: libc6 (>= 2), libnew\n\nPackage: libnew\nVersion: 7\n",
			removed: []string{archivetest.Path("gcc", "14-1")},
			gone:    []string{"gcc 14-1"},
			want:    []string{"bash 5.2-1 buildroot,guest", "gcc 14-2 buildroot", "libc6 2.41-1 buildroot,guest", "libnew 7 buildroot"},
		},
		"a kept package that became too old is renewed as well": {
			index:   first + "\nPackage: gcc\nVersion: 14-2\nDepends: libc6 (>= 2.41-2)\n\nPackage: libc6\nVersion: 2.41-2\nSource: glibc\n",
			removed: []string{archivetest.Path("gcc", "14-1")},
			gone:    []string{"gcc 14-1"},
			// The guest does not hold gcc, so it keeps what it has.
			want: []string{"bash 5.2-1 buildroot,guest", "gcc 14-2 buildroot", "libc6 2.41-1 guest", "libc6 2.41-2 buildroot"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := mirror(t)
			l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
			require.NoError(t, err)
			before := string(l.Format())

			m.Publish("trixie", date, tc.index, "")
			for _, file := range tc.removed {
				m.Remove(file)
			}
			fresh, gone, err := source(m.URL).Relock(t.Context(), l, sets, "local")
			require.NoError(t, err)
			require.Equal(t, before, string(l.Format()), "the lock itself stays as it is")
			if tc.want == nil {
				require.Nil(t, fresh)
				require.Empty(t, gone)
				return
			}
			var names []string
			for _, e := range gone {
				names = append(names, e.Package+" "+e.Version)
			}
			require.Equal(t, tc.gone, names)
			require.Equal(t, "local", fresh.Header)
			require.Equal(t, tc.want, versions(fresh)[2:])
			require.Equal(t, []string{"qemu 1:10.2-1 qemu", "qemu 1:10.2-1 qemu"}, versions(fresh)[:2])
		})
	}
}

func TestRelockOfASourcePackage(t *testing.T) {
	m := mirror(t)
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	m.Remove("pool/q/qemu_10.2-1.debian.tar.xz")
	m.Publish("sid", date, "", qemu(m, true, "11.0"))
	fresh, gone, err := source(m.URL).Relock(t.Context(), l, sets, "local")
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.Equal(t, []string{"qemu 1:11.0-1 qemu", "qemu 1:11.0-1 qemu"}, versions(fresh)[:2])
}

func TestRelockSaysWhatCannotBeReplaced(t *testing.T) {
	m := mirror(t)
	l, err := source(m.URL).Update(t.Context(), sets, &lock.Lock{})
	require.NoError(t, err)
	m.Remove(archivetest.Path("gcc", "14-1"))
	_, _, err = source(m.URL).Relock(t.Context(), l, sets, "local")
	require.EqualError(t, err, "set buildroot: package gcc: suite trixie lists 14-1, but no source in reach has its files")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
}
