package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Evidence is what Bazel said about its caches, outside the execution log.
type Evidence struct {
	// Given tells that there is any.
	Given bool
	// HasOptions tells that Options are known.
	HasOptions bool
	// Options are Bazel's options about caches, by name without dashes.
	// The last one given counts.
	Options map[string]string
	// Unreachable and Denied are Bazel's own words about a cache that did
	// not answer, or refused.
	Unreachable, Denied []string
}

var cacheOptions = []string{
	"disk_cache", "remote_cache", "remote_executor", "remote_accept_cached", "remote_upload_local_results",
}

func (e *Evidence) options(args []string) {
	e.HasOptions = true
	if e.Options == nil {
		e.Options = map[string]string{}
	}
	for _, arg := range args {
		name, value, given := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !given {
			value = "true"
			if positive, ok := strings.CutPrefix(name, "no"); ok {
				name, value = positive, "false"
			}
		}
		if strings.HasPrefix(arg, "--") && slices.Contains(cacheOptions, name) {
			e.Options[name] = value
		}
	}
}

// without tells that none of the options has a value, as far as is known.
func (e *Evidence) without(names ...string) bool {
	for _, name := range names {
		if e.Options[name] != "" {
			return false
		}
	}
	return true
}

func (e *Evidence) off(name string) bool {
	value := e.Options[name]
	return value == "false" || value == "0" || value == "no"
}

// value puts an option's value into a text, or gives nothing where the option
// has none.
func (e *Evidence) value(name, format string) string {
	if e.Options[name] == "" {
		return ""
	}
	return fmt.Sprintf(format, e.Options[name])
}

var (
	aboutCache  = regexp.MustCompile(`(?i)remote cache|disk cache|remote execution|remote executor`)
	denied      = regexp.MustCompile(`PERMISSION_DENIED|UNAUTHENTICATED|(?i:permission denied|read-only file system|403 forbidden|401 unauthorized)`)
	unreachable = regexp.MustCompile(`UNAVAILABLE|DEADLINE_EXCEEDED|(?i:connection refused|timed out|io exception|unknown ?host|service unavailable)`)
	// What --announce_rc prints.
	announced = regexp.MustCompile(`(?:' options|^INFO: Found applicable config definition .* in file [^:]+): (--.*)$`)
	// What terminals colour lines with.
	colour = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
)

// line takes in one line that Bazel printed.
func (e *Evidence) line(text string) {
	text = strings.TrimRight(colour.ReplaceAllString(text, ""), " \r")
	if m := announced.FindStringSubmatch(text); m != nil {
		e.options(strings.Fields(m[1]))
		return
	}
	if !aboutCache.MatchString(text) {
		return
	}
	switch text = strings.TrimSpace(text); {
	case denied.MatchString(text):
		e.Denied = append(e.Denied, text)
	case unreachable.MatchString(text):
		e.Unreachable = append(e.Unreachable, text)
	}
}

// open opens a file that the user named; what says what it should be.
func open(what, path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("opening %s: %w", what, err))
	} else if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening %s: %w", what, err))
	}
	return f, nil
}

// ReadBuildLog takes in what Bazel printed to stderr. Options are in it where
// Bazel ran with --announce_rc.
func (e *Evidence) ReadBuildLog(path string) error {
	f, err := open("what Bazel said", path)
	if err != nil {
		return err
	}
	defer f.Close()
	e.Given = true
	for in := bufio.NewReader(f); ; {
		text, err := in.ReadString('\n')
		e.line(strings.TrimSuffix(text, "\n"))
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("reading %s: %w", path, err))
		}
	}
}

// ReadEvents takes in what --build_event_json_file wrote.
func (e *Evidence) ReadEvents(path string) error {
	f, err := open("what Bazel said", path)
	if err != nil {
		return err
	}
	defer f.Close()
	e.Given = true
	decoder := json.NewDecoder(f)
	for entry := 1; ; entry++ {
		var event struct {
			ID            map[string]any `json:"id"`
			OptionsParsed *struct {
				CmdLine []string `json:"cmdLine"`
			} `json:"optionsParsed"`
			Progress struct {
				Stderr string `json:"stderr"`
			} `json:"progress"`
		}
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s, event %d: %w: give what --build_event_json_file wrote", path, entry, err))
		}
		if event.ID == nil {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s, event %d: it has no id: give what --build_event_json_file wrote", path, entry))
		}
		if event.OptionsParsed != nil {
			e.options(event.OptionsParsed.CmdLine)
		}
		for text := range strings.Lines(event.Progress.Stderr) {
			e.line(strings.TrimSuffix(text, "\n"))
		}
	}
}
