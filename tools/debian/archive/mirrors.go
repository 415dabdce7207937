// Package archive reads Debian archives: it finds the mirrors that a machine
// is set up to use, fetches from them, checks what they say about
// themselves, and reads their package indexes.
package archive

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// MirrorsVariable is the environment variable that names mirrors to use
// before all others, as base addresses separated by spaces.
const MirrorsVariable = "KILN_DEBIAN_MIRROR"

// SnapshotBase is the archive of everything that Debian ever published.
// Below it come a timestamp and then the layout of an ordinary mirror.
const SnapshotBase = "https://snapshot.debian.org/archive/debian/"

// debianSuite tells entries for Debian's main archive from those of other
// vendors and from the security archive, which has another root.
var debianSuite = regexp.MustCompile(
	`^(?:buster|bullseye|bookworm|trixie|forky|duke|sid|(?:old)*stable|testing|unstable)(?:-updates|-backports|-proposed-updates)?$`)

// Mirrors gives the base addresses to try, in order: those of the
// environment variable, then those in the apt configuration below root
// ("/" but for tests). snapshot.debian.org is not among them.
func Mirrors(variable, root string) []string {
	var mirrors []string
	for _, m := range append(strings.Fields(variable), aptMirrors(root)...) {
		m = strings.TrimRight(m, "/")
		if !slices.Contains(mirrors, m) {
			mirrors = append(mirrors, m)
		}
	}
	return mirrors
}

func aptMirrors(root string) []string {
	etc := filepath.Join(root, "etc/apt")
	files := []string{filepath.Join(etc, "sources.list")}
	// Glob sorts, and its only error is a bad pattern.
	more, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	files = append(files, more...)
	var mirrors []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			// apt itself skips files that it may not read.
			continue
		}
		switch filepath.Ext(file) {
		case ".list":
			mirrors = append(mirrors, oneLineSources(data)...)
		case ".sources":
			mirrors = append(mirrors, deb822Sources(data)...)
		}
	}
	var usable []string
	for _, m := range mirrors {
		if list, ok := strings.CutPrefix(m, "mirror+file:"); ok {
			// Cloud images keep the mirrors in a file of their own.
			usable = append(usable, mirrorList(filepath.Join(root, list))...)
			continue
		}
		usable = append(usable, m)
	}
	return slices.DeleteFunc(usable, func(m string) bool {
		return !strings.HasPrefix(m, "http://") && !strings.HasPrefix(m, "https://")
	})
}

func mirrorList(file string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var mirrors []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			mirrors = append(mirrors, fields[0])
		}
	}
	return mirrors
}

// oneLineSources reads the format of sources.list.
func oneLineSources(data []byte) []string {
	var mirrors []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		// Options in brackets may hold spaces.
		if before, rest, ok := strings.Cut(line, "["); ok {
			if _, after, ok := strings.Cut(rest, "]"); ok {
				line = before + " " + after
			}
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || (fields[0] != "deb" && fields[0] != "deb-src") {
			continue
		}
		if debianSuite.MatchString(fields[2]) && slices.Contains(fields[3:], "main") {
			mirrors = append(mirrors, fields[1])
		}
	}
	return mirrors
}

// deb822Sources reads the format of *.sources files.
func deb822Sources(data []byte) []string {
	var mirrors []string
	scanner := NewScanner(bytes.NewReader(data), "Enabled", "Components", "Suites", "URIs")
	for scanner.Scan() {
		p := scanner.Stanza()
		switch strings.ToLower(cmp.Or(p.Get("Enabled"), "yes")) {
		case "no", "false", "without", "off", "disable", "0":
			continue
		}
		if !slices.Contains(strings.Fields(p.Get("Components")), "main") ||
			!slices.ContainsFunc(strings.Fields(p.Get("Suites")), debianSuite.MatchString) {
			continue
		}
		mirrors = append(mirrors, strings.Fields(p.Get("URIs"))...)
	}
	return mirrors
}
