// Package check finds the files that a runtime configuration names, so that a
// payload that lacks one is refused before a node finds out.
package check

import (
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Prefix is where a payload is installed; what a configuration names
// elsewhere belongs to the node.
const Prefix = "/opt/kata"

// Path is one file that a configuration names.
type Path struct {
	Path string
	// Key is the full name of the setting, such as hypervisor.qemu.kernel.
	Key string
	// Line is where the configuration says so, from 1.
	Line int
}

// Paths gives all files under Prefix that the settings of a configuration
// name, in the order of their lines. Comments name nothing.
func Paths(configuration []byte) ([]Path, error) {
	text := string(configuration)
	var document map[string]any
	meta, err := toml.Decode(text, &document)
	if err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			err = fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
		}
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("parsing configuration: %w", err))
	}
	var found []Path
	for _, key := range meta.Keys() {
		for _, value := range stringsIn(lookup(document, key)) {
			if value == Prefix || strings.HasPrefix(value, Prefix+"/") {
				found = append(found, Path{Path: path.Clean(value), Key: key.String(), Line: lineOf(text, key, value)})
			}
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].Line < found[j].Line })
	return found, nil
}

// Missing reports the first file that a configuration names and a payload
// lacks. Has tells whether the payload has an absolute path; name is what
// the error calls the configuration.
func Missing(name string, configuration []byte, has func(string) bool) error {
	paths, err := Paths(configuration)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, p := range paths {
		if !has(p.Path) {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("%s:%d: %s names %s, which no component of the payload installs", name, p.Line, p.Key, p.Path))
		}
	}
	return nil
}

func lookup(document map[string]any, key toml.Key) any {
	var value any = document
	for _, part := range key {
		table, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = table[part]
	}
	return value
}

// stringsIn gives the strings of a value itself, not of tables below it, whose
// settings are keys of their own.
func stringsIn(value any) []string {
	switch value := value.(type) {
	case string:
		return []string{value}
	case []any:
		var all []string
		for _, element := range value {
			all = append(all, stringsIn(element)...)
		}
		return all
	default:
		return nil
	}
}

// lineOf finds the line of a setting: below its table's header, the first one
// that is not a comment and has both its name and its value, or only the name
// if the value spans lines.
func lineOf(text string, key toml.Key, value string) int {
	table, name := strings.Join(key[:len(key)-1], "."), key[len(key)-1]
	current, named := "", 0
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "[") && strings.Contains(line, "]") && !strings.Contains(line, "=") && !strings.HasPrefix(line, `["`) {
			current = strings.Trim(strings.TrimSpace(strings.Split(line, "#")[0]), "[] ")
			continue
		}
		if current != table {
			continue
		}
		if left, _, ok := strings.Cut(line, "="); ok && strings.Trim(strings.TrimSpace(left), `"'`) == name {
			named = number + 1
		}
		if named > 0 && strings.Contains(line, value) {
			return number + 1
		}
	}
	return named
}
