// Package configuration renders the runtime's configuration files from the
// templates that its module carries.
package configuration

import (
	"fmt"
	"regexp"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Spec is what one configuration file is made from.
type Spec struct {
	// Name is what errors call the template.
	Name string
	// Template is its text, with variables of the form @NAME@.
	Template string
	// Defaults has a value for every variable that any template may have.
	Defaults map[string]string
	// Set overrides defaults. A variable that the template does not have
	// is an error here: the value would be lost silently.
	Set map[string]string
	// Image is the guest image that takes the place of the initrd which the
	// template names. If it is empty the template is left as it is.
	Image string
	// Initrd is the guest initrd that takes the place of such an image.
	Initrd string
}

var variableRE = regexp.MustCompile(`@[A-Z0-9_]+@`)

// Render replaces the variables and makes sure that the result is TOML.
func Render(s Spec) (string, error) {
	fail := func(format string, args ...any) (string, error) {
		return "", exitcode.With(exitcode.BadInput, fmt.Errorf(format, args...))
	}
	used := map[string]bool{}
	lines := strings.Split(s.Template, "\n")
	for i, line := range lines {
		var unknown string
		lines[i] = variableRE.ReplaceAllStringFunc(line, func(match string) string {
			name := strings.Trim(match, "@")
			if value, ok := s.Set[name]; ok {
				used[name] = true
				return value
			}
			if value, ok := s.Defaults[name]; ok {
				return value
			}
			unknown = match
			return match
		})
		if unknown != "" {
			return fail("%s:%d: variable %s has no value", s.Name, i+1, unknown)
		}
	}
	var unused []string
	for name := range s.Set {
		if !used[name] {
			unused = append(unused, "@"+name+"@")
		}
	}
	if len(unused) > 0 {
		sort.Strings(unused)
		return fail("%s: no such variable: %s", s.Name, strings.Join(unused, ", "))
	}
	for to, file := range map[string]string{"image": s.Image, "initrd": s.Initrd} {
		if file == "" {
			continue
		}
		from := map[string]string{"image": "initrd", "initrd": "image"}[to]
		if err := replaceGuest(lines, from, to, file); err != nil {
			return fail("%s: %w", s.Name, err)
		}
	}
	text := strings.Join(lines, "\n")
	if err := validate(text); err != nil {
		return fail("%s: the rendered configuration is not TOML: %w", s.Name, err)
	}
	return text, nil
}

// replaceGuest makes the one setting of a kind of guest one of the other kind.
func replaceGuest(lines []string, from, to, file string) error {
	at := -1
	for i, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case to:
			return fmt.Errorf("line %d: there is an %s already: %s", i+1, to, line)
		case from:
			if at >= 0 {
				return fmt.Errorf("line %d: a second %s: %s", i+1, from, line)
			}
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("there is no %s whose place the %s could take", from, to)
	}
	lines[at] = fmt.Sprintf("%s = \"%s\"", to, Quote(file))
	return nil
}

// validate parses a configuration with the library that the runtime uses.
func validate(text string) error {
	var document map[string]any
	_, err := toml.Decode(text, &document)
	return err
}

// Quote makes a value safe inside the double quotes of a TOML string.
func Quote(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
}
