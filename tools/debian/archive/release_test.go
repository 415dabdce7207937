package archive_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const inRelease = `-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Debian
Codename: trixie
Date: Sat, 21 Nov 2026 09:15:44 UTC
Valid-Until: Sun, 22 Nov 2026 09:15:44 UTC
Acquire-By-Hash: yes
SHA256:
 aaaa 12 main/binary-amd64/Packages.gz
- bbbb 34 main/source/Sources.gz
-----BEGIN PGP SIGNATURE-----

iQ
-----END PGP SIGNATURE-----
`

func TestParseRelease(t *testing.T) {
	r, err := archive.ParseRelease("http://a.example/InRelease", []byte(strings.Replace(inRelease, "- bbbb", " bbbb", 1)))
	require.NoError(t, err)
	require.Equal(t, "trixie", r.Suite)
	require.True(t, r.ByHash)
	// An expired file is taken: see ParseRelease.
	require.Equal(t, time.Date(2026, 11, 21, 9, 15, 44, 0, time.UTC), r.Date)
	require.Equal(t, map[string]archive.IndexFile{
		"main/binary-amd64/Packages.gz": {SHA256: "aaaa", Size: 12},
		"main/source/Sources.gz":        {SHA256: "bbbb", Size: 34},
	}, r.Files)
}

func TestParseReleaseErrors(t *testing.T) {
	for name, tc := range map[string]struct{ data, want string }{
		"not signed":      {"Origin: Debian\n", "http://a.example/InRelease: not a signed Release file"},
		"a captive page":  {"<html>log in</html>", "http://a.example/InRelease: not a signed Release file"},
		"cut short":       {inRelease[:200], "http://a.example/InRelease: not a signed Release file"},
		"no date":         {strings.Replace(inRelease, "Date:", "Day:", 1), `http://a.example/InRelease: date: parsing time "" as "Mon, 02 Jan 2006 15:04:05 MST": cannot parse "" as "Mon"`},
		"no checksums":    {strings.Replace(inRelease, "SHA256:\n", "MD5Sum:\n", 1), "http://a.example/InRelease: no sha256 checksums"},
		"a broken line":   {strings.Replace(inRelease, " aaaa 12", " aaaa", 1), `http://a.example/InRelease: malformed checksum "aaaa main/binary-amd64/Packages.gz"`},
		"size no integer": {strings.Replace(inRelease, " 12 ", " x ", 1), `http://a.example/InRelease: size of main/binary-amd64/Packages.gz: strconv.ParseInt: parsing "x": invalid syntax`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := archive.ParseRelease("http://a.example/InRelease", []byte(tc.data))
			require.EqualError(t, err, tc.want)
			require.Equal(t, exitcode.Unverified, exitcode.Of(err))
		})
	}
}

func TestVerifySignature(t *testing.T) {
	ctx := t.Context()
	ok, err := archive.VerifySignature(ctx, "http://a.example/InRelease", []byte(inRelease), "")
	require.NoError(t, err)
	require.False(t, ok, "without a keyring nothing was verified")

	if _, lookErr := exec.LookPath("gpgv"); lookErr == nil {
		_, err = archive.VerifySignature(ctx, "http://a.example/InRelease", []byte(inRelease), filepath.Join(t.TempDir(), "none.gpg"))
		require.ErrorContains(t, err, "no good signature by a key in")
		require.Equal(t, exitcode.Unverified, exitcode.Of(err))
		return
	}
	ok, err = archive.VerifySignature(ctx, "http://a.example/InRelease", []byte(inRelease), "keys.gpg")
	require.NoError(t, err)
	require.False(t, ok, "without gpgv nothing was verified")
}
