package archive_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/archive/archivetest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestReadSuiteMergesUpdates(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("trixie", "Sat, 21 Nov 2026 09:15:44 UTC",
		"Package: bash\nVersion: 5.2-2\nSource: bash (5.2-1)\n\nPackage: zlib1g\nVersion: 1\nSource: zlib\n", "")
	m.Publish("trixie-updates", "Mon, 23 Nov 2026 02:09:33 UTC", "Package: bash\nVersion: 5.2-10\n", "")
	reader := &archive.Reader{Client: archive.NewClient(), Mirrors: []string{m.URL}}
	s, err := reader.ReadSuite(t.Context(), "trixie", "amd64")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 11, 23, 2, 9, 33, 0, time.UTC), s.Newest.Date)
	require.Len(t, s.Notes, 2, "it is said that no signature was checked")
	bash := s.Binaries["bash"]
	require.Len(t, bash, 2)
	require.Equal(t, []string{"5.2-10", "5.2-2"}, []string{bash[0].Version.String(), bash[1].Version.String()})
	require.Equal(t, []string{"bash", "5.2-1"}, []string{bash[1].Source, bash[1].SourceVersion})
	require.Equal(t, []string{"zlib", "1"}, []string{s.Binaries["zlib1g"][0].Source, s.Binaries["zlib1g"][0].SourceVersion})
}

func TestReadSuiteTriesAllMirrors(t *testing.T) {
	empty, full := archivetest.New(t), archivetest.New(t)
	full.Publish("sid", "Sat, 21 Nov 2026 09:15:44 UTC", "Package: bash\nVersion: 1\n", "")
	reader := &archive.Reader{Client: archive.NewClient(), Mirrors: []string{"http://127.0.0.1:1", empty.URL, full.URL}}
	s, err := reader.ReadSuite(t.Context(), "sid", "amd64")
	require.NoError(t, err)
	require.Contains(t, s.Binaries, "bash")

	reader.Mirrors = reader.Mirrors[:2]
	_, err = reader.ReadSuite(t.Context(), "sid", "amd64")
	require.ErrorContains(t, err, "reading the package index of sid: ")
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.ErrorContains(t, err, empty.URL)
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))

	reader.Mirrors = nil
	_, err = reader.ReadSuite(t.Context(), "sid", "amd64")
	require.ErrorIs(t, err, archive.ErrNoMirror)
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
}

func TestReadSuiteRefusesAnIndexThatIsNotTheAnnouncedOne(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("sid", "Sat, 21 Nov 2026 09:15:44 UTC", "Package: bash\nVersion: 1\n", "")
	reader := &archive.Reader{Client: archive.NewClient(), Mirrors: []string{m.URL}, CacheDir: t.TempDir()}
	_, err := reader.ReadSuite(t.Context(), "sid", "amd64")
	require.NoError(t, err)

	// A damaged index in the cache is fetched anew.
	kept, err := filepath.Glob(filepath.Join(reader.CacheDir, "*"))
	require.NoError(t, err)
	require.Len(t, kept, 1)
	index := "dists/sid/main/binary-amd64/by-hash/SHA256/" + filepath.Base(kept[0])
	require.Equal(t, 1, m.Asked(index))
	_, err = reader.ReadSuite(t.Context(), "sid", "amd64")
	require.NoError(t, err)
	require.Equal(t, 1, m.Asked(index), "it comes from the cache")
	require.NoError(t, os.WriteFile(kept[0], []byte("damaged"), 0o644))
	_, err = reader.ReadSuite(t.Context(), "sid", "amd64")
	require.NoError(t, err)
	require.Equal(t, 2, m.Asked(index))

	m.Put(index, []byte("forged"))
	reader.CacheDir = ""
	_, err = reader.ReadSuite(t.Context(), "sid", "amd64")
	require.ErrorContains(t, err, "wrong checksum: want sha256 "+filepath.Base(kept[0]))
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
}
