package resolve_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/archive/archivetest"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/debian/resolve"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const date = "Sat, 21 Nov 2026 09:15:44 UTC"

func suite(t *testing.T, index, packages, sources string) *archive.Suite {
	t.Helper()
	mirror := archivetest.New(t)
	mirror.Publish("trixie", date, packages, sources)
	reader := &archive.Reader{Client: archive.NewClient(), Mirrors: []string{mirror.URL}}
	s, err := reader.ReadSuite(t.Context(), "trixie", index)
	require.NoError(t, err)
	return s
}

// optional reads a file of a case that it may lack.
func optional(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return string(data)
}

// TestBinary resolves the sets below testdata: each folder has an index, a
// set, perhaps versions to keep, and what must come of it.
func TestBinary(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var set lock.Set
			require.NoError(t, json.Unmarshal([]byte(optional(t, dir, "set.json")), &set))
			var keep resolve.Keep
			if text := optional(t, dir, "keep.json"); text != "" {
				require.NoError(t, json.Unmarshal([]byte(text), &keep))
			}
			r, err := resolve.New(suite(t, "amd64", optional(t, dir, "Packages"), ""), keep)
			require.NoError(t, err)
			packages, err := r.Binary("s", set)
			if want := strings.TrimSpace(optional(t, dir, "error.txt")); want != "" {
				require.EqualError(t, err, want)
				require.Equal(t, exitcode.BadInput, exitcode.Of(err))
				return
			}
			require.NoError(t, err)
			var got strings.Builder
			for _, p := range packages {
				got.WriteString(p.Name + " " + p.Version.String() + "\n")
			}
			require.Equal(t, optional(t, dir, "want.txt"), got.String())
		})
	}
}

const sources = `Package: qemu
Version: 1:10.0-1
Directory: pool/q
Checksums-Sha256:
 aa 1 qemu_10.0-1.dsc
 bb 2 qemu_10.0.orig.tar.xz

Package: qemu
Version: 1:11.0-1
Directory: pool/q
Checksums-Sha256:
 cc 3 qemu_11.0-1.dsc
 dd 4 qemu_11.0.orig.tar.xz
`

func TestSource(t *testing.T) {
	for name, tc := range map[string]struct {
		asked, keep string
		drop        string
		want        string
		err         string
		code        int
	}{
		"newest":              {asked: "qemu", want: "1:11.0-1"},
		"kept":                {asked: "qemu", keep: "1:10.0-1", want: "1:10.0-1"},
		"kept but too old":    {asked: "qemu (>= 1:10.1)", keep: "1:10.0-1", want: "1:11.0-1"},
		"newest is unserved":  {asked: "qemu", drop: "pool/q/qemu_11.0.orig.tar.xz", want: "1:10.0-1"},
		"unknown":             {asked: "nope", err: "set s: suite trixie has no source package nope", code: exitcode.BadInput},
		"too old":             {asked: "qemu (>= 2:0)", err: "set s: suite trixie has no source package qemu (>= 2:0)", code: exitcode.BadInput},
		"all others unserved": {asked: "qemu (>= 1:10.1)", drop: "pool/q/qemu_11.0.orig.tar.xz", err: "set s: source package qemu (>= 1:10.1): suite trixie lists 1:11.0-1, but no source in reach has its files", code: exitcode.Unverified},
	} {
		t.Run(name, func(t *testing.T) {
			s := suite(t, lock.ArchSource, "", sources)
			if tc.drop != "" {
				s.Drop(tc.drop)
			}
			r, err := resolve.New(s, resolve.Keep{"qemu": tc.keep})
			require.NoError(t, err)
			packages, err := r.Source("s", lock.Set{Packages: []string{tc.asked}})
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				require.Equal(t, tc.code, exitcode.Of(err))
				return
			}
			require.NoError(t, err)
			require.Len(t, packages, 1)
			require.Equal(t, tc.want, packages[0].Version.String())
			require.Equal(t, "pool/q", filepath.Dir(packages[0].Files[0].Path))
		})
	}
}
