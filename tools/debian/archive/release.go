package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// IndexFile is what a Release file says about one index.
type IndexFile struct {
	SHA256 string
	Size   int64
}

// Release is what a suite says about itself.
type Release struct {
	Suite  string
	Date   time.Time
	ByHash bool
	Files  map[string]IndexFile
	// Signed says whether the signature was checked.
	Signed bool
}

// ParseRelease reads an InRelease file. Its Valid-Until is not looked at: a
// mirror that is not followed any more still serves what it says it does,
// and every file of it is pinned by checksum.
func ParseRelease(url string, data []byte) (*Release, error) {
	bad := func(format string, args ...any) error {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("%s: "+format, append([]any{url}, args...)...))
	}
	text, ok := clearText(data)
	if !ok {
		return nil, bad("not a signed Release file")
	}
	scanner := NewScanner(bytes.NewReader(text), "Codename", "Date", "Acquire-By-Hash", "SHA256")
	if !scanner.Scan() {
		return nil, bad("empty Release file")
	}
	p := scanner.Stanza()
	release := &Release{
		Suite:  p.Get("Codename"),
		ByHash: strings.EqualFold(p.Get("Acquire-By-Hash"), "yes"),
		Files:  map[string]IndexFile{},
	}
	date, err := time.Parse(time.RFC1123, p.Get("Date"))
	if err != nil {
		return nil, bad("date: %w", err)
	}
	release.Date = date.UTC()
	for line := range strings.Lines(p.Get("SHA256")) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, bad("malformed checksum %q", strings.TrimSpace(line))
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, bad("size of %s: %w", f[2], err)
		}
		release.Files[f[2]] = IndexFile{SHA256: f[0], Size: size}
	}
	if len(release.Files) == 0 {
		return nil, bad("no sha256 checksums")
	}
	return release, nil
}

// clearText gives what is signed in a clear-signed message.
func clearText(data []byte) ([]byte, bool) {
	const begin, sig = "-----BEGIN PGP SIGNED MESSAGE-----\n", "\n-----BEGIN PGP SIGNATURE-----"
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	rest, ok := bytes.CutPrefix(data, []byte(begin))
	if !ok {
		return nil, false
	}
	_, rest, ok = bytes.Cut(rest, []byte("\n\n"))
	if !ok {
		return nil, false
	}
	text, _, ok := bytes.Cut(rest, []byte(sig))
	return bytes.ReplaceAll(text, []byte("\n- "), []byte("\n")), ok
}

// keyrings is where Debian's packages put the keys of the archive.
var keyrings = []string{
	"usr/share/keyrings/debian-archive-keyring.gpg",
	"usr/share/keyrings/debian-archive-keyring.pgp",
}

// KeyringVariable is the environment variable that names another keyring.
const KeyringVariable = "KILN_DEBIAN_KEYRING"

// FindKeyring gives the keyring to check signatures with, or "".
func FindKeyring(variable, root string) string {
	if variable != "" {
		return variable
	}
	for _, k := range keyrings {
		file := filepath.Join(root, k)
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// VerifySignature checks an InRelease file with gpgv. It gives false without
// an error when the machine has no gpgv or no keyring.
func VerifySignature(ctx context.Context, url string, data []byte, keyring string) (bool, error) {
	if keyring == "" {
		return false, nil
	}
	gpgv, err := exec.LookPath("gpgv")
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for gpgv: %w", err))
	}
	cmd := exec.CommandContext(ctx, gpgv, "--status-fd", "1", "--keyring", keyring, "-")
	cmd.Stdin = bytes.NewReader(data)
	var status, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &status, &messages
	// The exit status is that of the worst signature, and a release is
	// signed by several keys of which an older machine may lack one. Like
	// apt, take one good signature, and no bad one.
	runErr := cmd.Run()
	good, bad := false, false
	for line := range strings.Lines(status.String()) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "[GNUPG:]" {
			continue
		}
		switch fields[1] {
		case "VALIDSIG":
			good = true
		case "BADSIG":
			bad = true
		}
	}
	if good && !bad {
		return true, nil
	}
	detail := strings.TrimSpace(messages.String())
	if detail == "" && runErr != nil {
		detail = runErr.Error()
	}
	return false, exitcode.With(exitcode.Unverified, fmt.Errorf(
		"%s: no good signature by a key in %s (set %s to use another keyring):\n%s", url, keyring, KeyringVariable, detail))
}
