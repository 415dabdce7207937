// Package configuration renders the runtime's configuration files from the
// templates that its module carries.
package configuration

import (
	"errors"
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
	if s.Image != "" {
		if err := replaceInitrd(lines, s.Image); err != nil {
			return fail("%s: %w", s.Name, err)
		}
	}
	text := strings.Join(lines, "\n")
	if err := validate(text); err != nil {
		return fail("%s: the rendered configuration is not TOML: %w", s.Name, err)
	}
	return text, nil
}

// replaceInitrd makes the one setting of an initrd one of an image.
func replaceInitrd(lines []string, image string) error {
	at := -1
	for i, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "image":
			return fmt.Errorf("line %d: there is an image already: %s", i+1, line)
		case "initrd":
			if at >= 0 {
				return fmt.Errorf("line %d: a second initrd: %s", i+1, line)
			}
			at = i
		}
	}
	if at < 0 {
		return errors.New("there is no initrd whose place the image could take")
	}
	lines[at] = fmt.Sprintf("image = \"%s\"", Quote(image))
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
