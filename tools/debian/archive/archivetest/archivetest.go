// Package archivetest serves small Debian archives on loopback, for tests.
package archivetest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Mirror is a Debian archive that a test fills and empties.
type Mirror struct {
	// URL is the base address.
	URL string

	mu    sync.Mutex
	files map[string][]byte
	asked map[string]int
}

// New starts a mirror that ends with the test.
func New(t *testing.T) *Mirror {
	t.Helper()
	m := &Mirror{files: map[string][]byte{}, asked: map[string]int{}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.URL = server.URL + "/debian"
	return m
}

// ServeHTTP implements http.Handler.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/debian/")
	m.mu.Lock()
	data, ok := m.files[name]
	m.asked[name]++
	m.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data)
}

// Put serves a file.
func (m *Mirror) Put(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = data
}

// Remove serves a file no more.
func (m *Mirror) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
}

// Asked says how often a file was asked for.
func (m *Mirror) Asked(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[name]
}

// Publish serves a suite with these indexes, one for each architecture that a
// package names, and for amd64 whatever they are. Binary packages that name no
// file get one of their own: pool/<name>_<version>.deb, with the name and
// version as its content, as often as a field Repeat says.
func (m *Mirror) Publish(suite, date, packages, sources string) {
	indexes := map[string]string{"main/source/Sources": sources}
	for arch, packages := range m.fill(packages) {
		indexes["main/binary-"+arch+"/Packages"] = packages
	}
	var release strings.Builder
	fmt.Fprintf(&release, "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nCodename: %s\nDate: %s\nAcquire-By-Hash: yes\nSHA256:\n", suite, date)
	for name, text := range indexes {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		sum := sha256.Sum256(b.Bytes())
		fmt.Fprintf(&release, " %x %d %s.gz\n", sum, b.Len(), name)
		dir := name[:strings.LastIndex(name, "/")]
		m.Put(fmt.Sprintf("dists/%s/%s/by-hash/SHA256/%x", suite, dir, sum), b.Bytes())
	}
	release.WriteString("-----BEGIN PGP SIGNATURE-----\n-----END PGP SIGNATURE-----\n")
	m.Put("dists/"+suite+"/InRelease", []byte(release.String()))
}

// fill adds to each paragraph what an index must have, and gives the index of each
// architecture.
func (m *Mirror) fill(packages string) map[string]string {
	const all = "all"
	filled := map[string][]string{"amd64": nil}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(packages), "\n\n") {
		fields := map[string]string{}
		for line := range strings.SplitSeq(paragraph, "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				fields[key] = value
			}
		}
		if fields["Package"] == "" {
			continue
		}
		content := []byte(fields["Package"] + " " + fields["Version"])
		if n, err := strconv.Atoi(fields["Repeat"]); err == nil {
			content = bytes.Repeat(content, n)
		}
		path, arch := Path(fields["Package"], fields["Version"]), fields["Architecture"]
		if arch == "" {
			arch = "amd64"
			paragraph += "\nArchitecture: amd64"
		}
		if arch != "amd64" {
			path = strings.TrimSuffix(path, ".deb") + "_" + arch + ".deb"
		}
		if _, given := fields["Filename"]; !given {
			paragraph += "\nFilename: " + path
			m.Put(path, content)
		}
		paragraph += fmt.Sprintf("\nSize: %d\nSHA256: %x", len(content), sha256.Sum256(content))
		filled[arch] = append(filled[arch], paragraph)
	}
	indexes := map[string]string{}
	for arch, paragraphs := range filled {
		if arch != all {
			indexes[arch] = strings.Join(append(paragraphs, filled[all]...), "\n\n") + "\n"
		}
	}
	return indexes
}

// Path is where Publish puts a binary package.
func Path(name, version string) string {
	return "pool/" + name + "_" + strings.ReplaceAll(version, ":", "%") + ".deb"
}
