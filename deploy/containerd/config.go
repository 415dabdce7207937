package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is what kata-deploy reads of containerd's configuration. See
// containerd-config.toml(5).
type document struct {
	Version int      `toml:"version"`
	Imports []string `toml:"imports"`
}

// parse reads a configuration.
func parse(config []byte) (*document, error) {
	d := document{Version: 1}
	if err := toml.Unmarshal(config, &d); err != nil {
		return nil, err
	}
	if d.Version < 1 {
		return nil, fmt.Errorf("version = %d: there is no such configuration", d.Version)
	}
	return &d, nil
}

// imports is where a configuration has its list of imports, in bytes. All that
// is not one of these bytes stays as it is.
type imports struct {
	// found tells whether there is such a list.
	found bool
	// begin and end are those of the whole setting, end that of its bracket.
	begin, end int
	values     []value
}

type value struct {
	text       string
	begin, end int
}

// findImports finds the list of imports at the top level.
func findImports(config []byte) (imports, error) {
	var found imports
	p := unstable.Parser{}
	p.Reset(config)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			break // what follows is not at the top level
		}
		if e.Kind != unstable.KeyValue {
			continue
		}
		key := e.Key()
		if !key.Next() || string(key.Node().Data) != "imports" || key.Next() {
			continue
		}
		found.found = true
		found.begin = int(e.Raw.Offset)
		found.end = int(e.Raw.Offset + e.Raw.Length)
		if e.Value().Kind != unstable.Array {
			return imports{}, errors.New("imports is not a list")
		}
		for it := e.Value().Children(); it.Next(); {
			n := it.Node()
			if n.Kind != unstable.String {
				return imports{}, errors.New("imports is not a list of strings")
			}
			found.values = append(found.values, value{string(n.Data), int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)})
		}
	}
	if err := p.Error(); err != nil {
		return imports{}, err
	}
	return found, nil
}

// line is the setting that addImport makes where there is none. It stands first:
// after a table's header it would belong to the table.
func line(path string) string { return "imports = [" + strconv.Quote(path) + "]\n" }

// addImport makes a configuration import a file. It gives the configuration
// unchanged if that imports the file already.
func addImport(config []byte, path string) ([]byte, error) {
	found, err := findImports(config)
	if err != nil {
		return nil, err
	}
	var changed []byte
	switch last := len(found.values) - 1; {
	case !found.found:
		changed = append([]byte(line(path)), config...)
	case last < 0:
		changed = splice(config, found.end-1, found.end-1, strconv.Quote(path))
	default:
		for _, v := range found.values {
			if v.text == path {
				return config, nil
			}
		}
		changed = splice(config, found.values[last].end, found.values[last].end, ", "+strconv.Quote(path))
	}
	return changed, onlyImports(config, changed)
}

// removeImport takes a file out of the imports of a configuration.
func removeImport(config []byte, path string) ([]byte, error) {
	found, err := findImports(config)
	if err != nil {
		return nil, err
	}
	for i, v := range found.values {
		if v.text != path {
			continue
		}
		var changed []byte
		switch {
		case len(found.values) == 1 && bytes.HasPrefix(config, []byte(line(path))):
			changed = config[len(line(path)):]
		case i > 0 && onlyComma(config[found.values[i-1].end:v.begin]):
			changed = splice(config, found.values[i-1].end, v.end, "")
		case i+1 < len(found.values) && onlyComma(config[v.end:found.values[i+1].begin]):
			changed = splice(config, v.begin, found.values[i+1].begin, "")
		default:
			// With the comma that follows, if one does: comments stay.
			end := v.end
			if rest := bytes.TrimLeft(config[end:], " \t"); bytes.HasPrefix(rest, []byte(",")) {
				end = len(config) - len(rest) + 1
			}
			changed = splice(config, v.begin, end, "")
		}
		return changed, onlyImports(config, changed)
	}
	return config, nil
}

func onlyComma(gap []byte) bool { return bytes.Equal(bytes.Trim(gap, " \t\r\n"), []byte(",")) }

func splice(config []byte, begin, end int, by string) []byte {
	return bytes.Join([][]byte{config[:begin], config[end:]}, []byte(by))
}

// onlyImports makes sure that two configurations mean the same but for what they
// import, and that the second one is still a configuration.
func onlyImports(before, after []byte) error {
	var meanings [2]map[string]any
	for i, config := range [][]byte{before, after} {
		if err := toml.Unmarshal(config, &meanings[i]); err != nil {
			return err
		}
		delete(meanings[i], "imports")
	}
	if !reflect.DeepEqual(meanings[0], meanings[1]) {
		return errors.New("changing its imports would change something else")
	}
	return nil
}
