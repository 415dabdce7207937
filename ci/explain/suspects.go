package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	// Paths that are a machine's own. What is installed below /opt/kata is
	// named by its place in the guest or on the node, and is no such path.
	machinePath = regexp.MustCompile(`(?:^|[=:,;@'"\s])(/(?:home|root|Users|tmp|var|usr|bin|sbin|lib|lib64|etc|srv|mnt|nix|workspace|builds|runner|github)(?:/[^\s:,;'"]*)?)`)
	outputBase  = regexp.MustCompile(`/execroot/|/_bazel_|/sandbox/`)
	date        = regexp.MustCompile(`\b20[0-9]{2}[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12][0-9]|3[01])(?:\b|[T_])`)
	epoch       = regexp.MustCompile(`\b1[4-9][0-9]{8}(?:[0-9]{3})?\b`)
	clockName   = regexp.MustCompile(`(?i)SOURCE_DATE_EPOCH|TIMESTAMP|BUILD_(?:DATE|TIME)|KBUILD_BUILD`)
)

// suspects names what the causes look like. They are hints: the cause itself
// is what the logs show.
func suspects(e Explanation) []string {
	var out []string
	say := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	for _, c := range e.Causes {
		inText := c.Kind == Argument || c.Kind == Environment || c.Kind == Platform
		// The name of an argument without a flag is the argument.
		texts := []string{c.Old.Text, c.New.Text}
		if !inText {
			texts = []string{c.Name}
		}
		for _, text := range texts {
			if m := machinePath.FindStringSubmatch(text); m != nil && inText {
				where := "a path of one machine"
				if outputBase.MatchString(m[1]) {
					where = "a path in Bazel's output base"
				}
				say("absolute path: %s is %s", m[1], where)
				break
			}
		}
		switch {
		case inText && clockName.MatchString(c.Name):
			say("timestamp: %s is one by its name", c.Name)
		case slices.ContainsFunc(texts, func(text string) bool { return date.MatchString(text) || epoch.MatchString(text) }):
			say("timestamp: there is a date, or a number of seconds since 1970, in %s", c.text80(inText))
		case c.Kind == Nondeterminism:
			how := "of another size"
			if c.OldFile.Digest.Size == c.NewFile.Digest.Size {
				how = "of the same size"
			}
			say("timestamp, random number or order in an output: the bytes differ and are %s, the key does not; build it twice with //tools/repro/cmd", how)
		case c.Kind == Order:
			say("undeclared order: a listing or a map that is not sorted before it becomes arguments")
		case c.Kind == Arguments && c.OldFile.Digest.Size == c.NewFile.Digest.Size:
			say("undeclared order, perhaps: %s has the size that it had", c.Name)
		}
		if i := slices.IndexFunc(c.Path, func(step Step) bool { return step.Tool }); i >= 0 {
			say("tool: %s is part of a program that %s runs", c.Path[i].File, c.Path[i].Spawn)
		}
		for _, step := range c.Path {
			if args := step.Spawn.Args; len(args) > 0 && strings.HasPrefix(args[0], "/") {
				say("host tool: %s runs %s, which is the machine's and no input", step.Spawn, args[0])
			}
			if strings.HasPrefix(step.File, "/") {
				say("host tool: the input %s is the machine's own", step.File)
			}
		}
	}
	return out
}

// text80 is the text of a cause in which something is seen.
func (c *Cause) text80(inText bool) string {
	switch {
	case inText && c.New.There:
		return clip(c.New.Text, 80)
	case inText:
		return clip(c.Old.Text, 80)
	}
	return clip(c.Name, 80)
}
