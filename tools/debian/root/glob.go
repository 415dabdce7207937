package root

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// compile turns a pattern into a regular expression: * and ? match within a
// name, ** across names.
func compile(pattern string) (*regexp.Regexp, error) {
	if pattern == "" || strings.HasPrefix(pattern, "/") {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("pattern %q: want a path relative to the root", pattern))
	}
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	b.WriteString("$")
	return regexp.MustCompile(b.String()), nil
}

// excluder decides which paths are left out.
type excluder []rule

type rule struct {
	pattern *regexp.Regexp
	include bool
}

// newExcluder reads patterns, of which the last that matches decides; one
// that begins with ! takes back what an earlier one left out.
func newExcluder(patterns []string) (excluder, error) {
	var e excluder
	for _, p := range patterns {
		rest, include := strings.CutPrefix(p, "!")
		re, err := compile(rest)
		if err != nil {
			return nil, err
		}
		e = append(e, rule{re, include})
	}
	return e, nil
}

func (e excluder) excluded(name string) bool {
	for i := len(e) - 1; i >= 0; i-- {
		if e[i].pattern.MatchString(name) {
			return !e[i].include
		}
	}
	return false
}
