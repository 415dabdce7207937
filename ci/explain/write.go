package explain

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// What fits on one screen.
const (
	mostCauses = 3
	mostSteps  = 6
	widest     = 110
)

// Text writes an explanation, the root cause first.
func (e Explanation) Text(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, e.Spawn)
	how := fmt.Sprintf("executed on %s in %.1f s", e.Spawn.Runner, e.Spawn.Metrics.Total.Seconds())
	if e.Spawn.CacheHit {
		how = "from a cache (" + e.Spawn.Runner + ")"
	}
	switch {
	case e.Counterpart == nil:
		fmt.Fprintf(out, "  key    %s in B; %s\n", key(e.Spawn.Digest.Hash), how)
	case e.SameKey && e.SameOutputs:
		fmt.Fprintf(out, "  key    %s in both; %s\n", key(e.Spawn.Digest.Hash), how)
		fmt.Fprintln(out, "  cause  none: nothing that goes into it differs, and it made the same.")
		fmt.Fprintln(out, "         No cache served it; `kiln audit --expect-cached` says why.")
	case e.SameKey:
		fmt.Fprintf(out, "  key    %s in both; %s\n", key(e.Spawn.Digest.Hash), how)
	default:
		fmt.Fprintf(out, "  key    %s in A, %s in B; %s\n", key(e.Counterpart.Digest.Hash), key(e.Spawn.Digest.Hash), how)
	}
	for i, c := range e.Causes {
		if i == mostCauses {
			var names []string
			for _, other := range e.Causes[mostCauses:] {
				names = append(names, other.What)
			}
			fmt.Fprintf(out, "  and    %s\n", clip(fmt.Sprintf("%d more: %s", len(names), strings.Join(names, "; ")), widest))
			break
		}
		c.text(out, i == 0)
	}
	for _, s := range e.Suspects {
		fmt.Fprintf(out, "  looks like  %s\n", s)
	}
	return out.Flush()
}

func key(hash string) string {
	if hash == "" {
		return "unknown"
	}
	return hash[:min(12, len(hash))]
}

// text writes a cause. That of the first is told in full.
func (c *Cause) text(w io.Writer, full bool) {
	fmt.Fprintf(w, "  cause  %s\n", c.What)
	if c.Kind == External {
		fmt.Fprintf(w, "         %s\n", c.Name)
	}
	if c.Kind != Missing && (c.Old.There || c.New.There) {
		fmt.Fprintf(w, "           A  %s\n", c.Old)
		fmt.Fprintf(w, "           B  %s\n", c.New)
	}
	if len(c.More) > 0 {
		what := "in %d more actions: %s"
		switch c.Kind {
		case External:
			what = "%d more files: %s"
		case Nondeterminism:
			what = "%d more outputs: %s"
		}
		fmt.Fprintf(w, "         also %s\n", clip(fmt.Sprintf(what, len(c.More), strings.Join(c.More, ", ")), widest))
	}
	if !full {
		return
	}
	if c.Note != "" {
		fmt.Fprintf(w, "         %s\n", c.Note)
	}
	lines := c.lines()
	if len(lines) > mostSteps {
		skipped := fmt.Sprintf("… %d more …", len(lines)-mostSteps+1)
		lines = slices.Concat(lines[:mostSteps/2], []string{skipped}, lines[len(lines)-mostSteps/2+1:])
	}
	for i, line := range lines {
		lead := "      ->"
		if i == 0 {
			lead = "  path  "
		}
		fmt.Fprintf(w, "%s %s\n", lead, line)
	}
}

// String writes a value for people.
func (v Value) String() string {
	switch {
	case !v.There:
		return "(not there)"
	case v.Text == "":
		return "(empty)"
	}
	return clip(v.Text, widest)
}

// lines are the way from the cause to the explained spawn.
func (c *Cause) lines() []string {
	var lines []string
	for i, step := range c.Path {
		file := step.File
		if step.Symlink != "" {
			file = step.Symlink + ", also known as " + step.File
		}
		switch {
		case file == "":
			// The cause is in the action itself.
		case i == 0:
			lines = append(lines, file)
		default:
			lines[len(lines)-1] += " makes " + file
		}
		lines = append(lines, step.Spawn.String())
	}
	return lines
}

// clip shortens a text in its middle, so that both ends can be told apart.
func clip(text string, width int) string {
	runes := []rune(strings.ReplaceAll(text, "\n", " "))
	if len(runes) <= width {
		return string(runes)
	}
	half := (width - 3) / 2
	return string(runes[:half]) + " … " + string(runes[len(runes)-half:])
}
