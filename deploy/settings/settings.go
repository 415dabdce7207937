// Package settings reads what the installer is told by its environment. The
// variables and what they mean are upstream's. INSTALLATION_PREFIX is the default of
// a flag, so it is not read here.
package settings

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// The variables. Those with an architecture have its name behind them, as uname
// gives it in capital letters: SHIMS_X86_64.
const (
	Prefix         = "INSTALLATION_PREFIX"
	Suffix         = "MULTI_INSTALL_SUFFIX"
	Debug          = "DEBUG"
	Distribution   = "K8S_DISTRIBUTION"
	RuntimeVersion = "CONTAINER_RUNTIME_VERSION"
	Shims          = "SHIMS"
	Snapshotters   = "SNAPSHOTTER_HANDLER_MAPPING"
	PullTypes      = "PULL_TYPE_MAPPING"
)

// guestPull is the pull type of images that are pulled inside of the guest.
const guestPull = "guest-pull"

// Settings are what the environment says.
type Settings struct {
	// Suffix tells this installation from others on the node.
	Suffix         string
	Debug          bool
	Distribution   string
	RuntimeVersion string
	// Shims are the runtime classes to install, by upstream's names; nil means
	// all that the payload has.
	Shims []string
	// Snapshotters and GuestPull are by shim.
	Snapshotters map[string]string
	GuestPull    map[string]bool
}

// suffixRE is what can be part of a label, a file's name and a RuntimeClass.
var suffixRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Read reads the environment for the architecture that this runs on.
func Read(getenv func(string) string) (*Settings, error) { return read(getenv, runtime.GOARCH) }

func read(getenv func(string) string, goarch string) (*Settings, error) {
	s := &Settings{
		Suffix: getenv(Suffix), Distribution: getenv(Distribution), RuntimeVersion: getenv(RuntimeVersion),
		Snapshotters: map[string]string{}, GuestPull: map[string]bool{},
	}
	bad := func(name, format string, args ...any) error {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%s=%s: %w", name, getenv(name), fmt.Errorf(format, args...)))
	}
	if s.Suffix != "" && !suffixRE.MatchString(s.Suffix) {
		return nil, bad(Suffix, "must be lower-case letters, digits and dashes, 32 at most")
	}
	if text := getenv(Debug); text != "" {
		var err error
		if s.Debug, err = strconv.ParseBool(text); err != nil {
			return nil, bad(Debug, "must be true or false")
		}
	}
	arch, ok := map[string]string{"amd64": "X86_64", "arm64": "AARCH64", "s390x": "S390X", "ppc64le": "PPC64LE"}[goarch]
	if !ok {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("there is no payload for %s", goarch))
	}
	shims := Shims + "_" + arch
	s.Shims = strings.Fields(getenv(shims))
	for i, shim := range s.Shims {
		if slices.Contains(s.Shims[:i], shim) {
			return nil, bad(shims, "%s is there twice", shim)
		}
	}
	for variable, set := range map[string]func(shim, value string) error{
		Snapshotters: func(shim, value string) error { s.Snapshotters[shim] = value; return nil },
		PullTypes: func(shim, value string) error {
			if value != guestPull && value != "default" {
				return fmt.Errorf("%s: must be default or %s", value, guestPull)
			}
			s.GuestPull[shim] = value == guestPull
			return nil
		},
	} {
		name := variable + "_" + arch
		if err := mapping(getenv(name), s.Shims, set); err != nil {
			return nil, bad(name, "%w", err)
		}
	}
	return s, nil
}

// mapping reads "shim:value,shim:value".
func mapping(text string, shims []string, set func(shim, value string) error) error {
	if text == "" {
		return nil
	}
	for _, entry := range strings.Split(text, ",") {
		shim, value, ok := strings.Cut(strings.TrimSpace(entry), ":")
		switch {
		case !ok || shim == "" || value == "":
			return fmt.Errorf("%q is not SHIM:VALUE", entry)
		case len(shims) > 0 && !slices.Contains(shims, shim):
			return fmt.Errorf("%q is none of the shims: %s", shim, strings.Join(shims, " "))
		}
		if err := set(shim, value); err != nil {
			return err
		}
	}
	return nil
}

// Choose gives the shims to install among those that the payload has.
func (s *Settings) Choose(has []string) ([]string, error) {
	chosen := s.Shims
	if len(chosen) == 0 {
		chosen = has
	}
	var errs []error
	for _, shim := range chosen {
		if !slices.Contains(has, shim) {
			errs = append(errs, fmt.Errorf("the payload has no %s, only %s", shim, strings.Join(has, " ")))
		}
	}
	for shim := range s.Snapshotters {
		if !slices.Contains(chosen, shim) {
			errs = append(errs, fmt.Errorf("there is a snapshotter for %s, which is not installed", shim))
		}
	}
	for shim := range s.GuestPull {
		if !slices.Contains(chosen, shim) {
			errs = append(errs, fmt.Errorf("there is a pull type for %s, which is not installed", shim))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	return chosen, nil
}
