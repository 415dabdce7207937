// Package settings reads what the installer is told by its environment. The
// variables and what they mean are upstream's. INSTALLATION_PREFIX, NODE_NAME and
// HANDLER_DIGEST are defaults of flags, so they are not read here.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
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
	NodeName       = "NODE_NAME"
	HandlerDigest  = "HANDLER_DIGEST"
	Suffix         = "MULTI_INSTALL_SUFFIX"
	DaemonSet      = "DAEMONSET_NAME"
	Debug          = "DEBUG"
	Distribution   = "K8S_DISTRIBUTION"
	RuntimeVersion = "CONTAINER_RUNTIME_VERSION"
	ConfigFile     = "CONTAINERD_CONFIG_FILE_NAME"
	MachineID      = "NODE_MACHINE_ID"
	StartupTaints  = "STARTUP_TAINTS"
	PostDeleteHook = "HELM_POST_DELETE_HOOK"
	HealthPort     = "HEALTH_PORT"
	HTTPSProxy     = "AGENT_HTTPS_PROXY"
	NoProxy        = "AGENT_NO_PROXY"
	Shims          = "SHIMS"
	DefaultShim    = "DEFAULT_SHIM"
	Annotations    = "ALLOWED_HYPERVISOR_ANNOTATIONS"
	Snapshotters   = "SNAPSHOTTER_HANDLER_MAPPING"
	PullTypes      = "PULL_TYPE_MAPPING"
	ForceGuestPull = "EXPERIMENTAL_FORCE_GUEST_PULL"
	SetUp          = "EXPERIMENTAL_SETUP_SNAPSHOTTER"
)

// unsupported are upstream's variables that nothing here does yet, with the values
// that ask for nothing.
var unsupported = map[string][]string{
	"DEVKIT":                              {"false"},
	"CUSTOM_RUNTIMES_ENABLED":             {"false"},
	"CONTAINERD_USER_DROP_IN_SOURCE_FILE": nil,
	"EROFS_MERGE_MODE":                    {"false"},
	"EROFS_SNAPSHOTTER_MODE":              nil,
	"EROFS_DMVERITY":                      {"false"},
	"HOST_OS":                             nil,
}

// guestPull is the pull type of images that are pulled inside of the guest.
const guestPull = "guest-pull"

// allShims stands for each shim in what is said by shim.
const allShims = ""

// Settings are what the environment says.
type Settings struct {
	// Suffix tells this installation from others on the node.
	Suffix string
	// DaemonSet is the name of the one that this is a pod of.
	DaemonSet string
	// Debug adds a variant of each shim that says more.
	Debug          bool
	Distribution   string
	RuntimeVersion string
	// ConfigFile is the name of containerd's configuration; empty means that of the
	// distribution.
	ConfigFile string
	// MachineID is what the machine's /etc/machine-id must say; empty means what the
	// cluster knows.
	MachineID string
	// StartupTaints are those to remove from the node once it is ready: KEY or
	// KEY:EFFECT.
	StartupTaints []string
	// PostDeleteHook says that Helm has deleted the DaemonSet already.
	PostDeleteHook bool
	// Nydus says that the payload's nydus snapshotter is to be set up on the node.
	Nydus bool
	// HealthPort is where to tell whether the node is ready.
	HealthPort int
	// Shims are the runtime classes to install, by upstream's names; nil means
	// all that the payload has.
	Shims []string
	// DefaultShim is the one that the RuntimeClass `kata` uses, if there is one.
	DefaultShim string
	// Snapshotters, GuestPull and ForceGuestPull are by shim.
	Snapshotters   map[string]string
	GuestPull      map[string]bool
	ForceGuestPull map[string]bool

	annotations         map[string][]string
	httpsProxy, noProxy map[string]string
	// elsewhere are the shims of nodes of other architectures, which the same
	// proxies may be said for.
	elsewhere map[string]bool
}

var (
	// suffixRE is what can be part of a label, a file's name and a RuntimeClass.
	suffixRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	taintRE  = regexp.MustCompile(`^[A-Za-z0-9._/-]+(:(NoSchedule|PreferNoSchedule|NoExecute))?$`)
	// annotationRE is a pattern, by which the runtime compares.
	annotationRE = regexp.MustCompile(`^[A-Za-z0-9_.*?+^$|()\[\]\\-]+$`)
	// proxyRE is what a kernel's command line takes without quotes.
	proxyRE = regexp.MustCompile(`^[!#-~]+$`)
)

// arches are the names that variables end with, by Go's.
var arches = map[string]string{"amd64": "X86_64", "arm64": "AARCH64", "s390x": "S390X", "ppc64le": "PPC64LE"}

// defaultHealthPort is upstream's.
const defaultHealthPort = 8090

// Read reads the environment for the architecture that this runs on.
func Read(getenv func(string) string) (*Settings, error) { return read(getenv, runtime.GOARCH) }

// port reads a port.
func port(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, errors.New("must be a port, 1 to 65535")
	}
	return n, nil
}

func read(getenv func(string) string, goarch string) (*Settings, error) {
	arch, ok := arches[goarch]
	if !ok {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("there is no payload for %s", goarch))
	}
	s := &Settings{
		Suffix: getenv(Suffix), DaemonSet: getenv(DaemonSet), Distribution: getenv(Distribution), RuntimeVersion: getenv(RuntimeVersion),
		ConfigFile: getenv(ConfigFile), MachineID: getenv(MachineID), DefaultShim: getenv(DefaultShim + "_" + arch),
		HealthPort:   defaultHealthPort,
		Snapshotters: map[string]string{}, GuestPull: map[string]bool{}, ForceGuestPull: map[string]bool{},
		annotations: map[string][]string{}, httpsProxy: map[string]string{}, noProxy: map[string]string{}, elsewhere: map[string]bool{},
	}
	for _, other := range arches {
		for _, shim := range strings.Fields(getenv(Shims + "_" + other)) {
			s.elsewhere[shim] = true
		}
	}
	bad := func(name, format string, args ...any) error {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%s=%s: %w", name, getenv(name), fmt.Errorf(format, args...)))
	}
	for _, name := range slices.Sorted(maps.Keys(unsupported)) {
		if value := getenv(name); value != "" && !slices.Contains(unsupported[name], value) {
			return nil, bad(name, "this kata-deploy cannot do that; unset it")
		}
	}
	for _, variable := range []struct {
		name  string
		parse func(text string) error
	}{
		{Suffix, func(text string) error {
			// The label of the installation without one says "default".
			if !suffixRE.MatchString(text) || text == "default" {
				return errors.New("must be lower-case letters, digits and dashes, 32 at most, and not `default`")
			}
			// It would have the handlers of another installation's debug variants.
			if text == "debug" || strings.HasSuffix(text, "-debug") {
				return errors.New("must not end with `debug`, as the handlers do that DEBUG=true adds")
			}
			return nil
		}},
		{Debug, boolean(&s.Debug)},
		{PostDeleteHook, boolean(&s.PostDeleteHook)},
		{HealthPort, func(text string) (err error) { s.HealthPort, err = port(text); return err }},
		{ConfigFile, func(text string) error {
			if text != filepath.Base(text) || text == "." || text == ".." {
				return errors.New("must be a file's name without directories")
			}
			return nil
		}},
		{StartupTaints, func(text string) error {
			s.StartupTaints = strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\n", r) })
			for _, taint := range s.StartupTaints {
				if !taintRE.MatchString(taint) {
					return fmt.Errorf("%q is neither KEY nor KEY:EFFECT", taint)
				}
			}
			return nil
		}},
		{Shims + "_" + arch, func(text string) error {
			s.Shims = strings.Fields(text)
			for i, shim := range s.Shims {
				if slices.Contains(s.Shims[:i], shim) {
					return fmt.Errorf("%s is there twice", shim)
				}
			}
			return nil
		}},
		{DefaultShim + "_" + arch, func(text string) error { return s.known(text) }},
		{Snapshotters + "_" + arch, s.mapping(",", ":", s.known, func(shim, value string) error { s.Snapshotters[shim] = value; return nil })},
		{PullTypes + "_" + arch, s.mapping(",", ":", s.known, func(shim, value string) error {
			if value != guestPull && value != "default" {
				return fmt.Errorf("%s: must be default or %s", value, guestPull)
			}
			s.GuestPull[shim] = value == guestPull
			return nil
		})},
		{ForceGuestPull + "_" + arch, func(text string) error {
			for _, shim := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\n", r) }) {
				if err := s.known(shim); err != nil {
					return err
				}
				s.ForceGuestPull[shim] = true
			}
			return nil
		}},
		{SetUp, func(text string) error {
			for _, name := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\n", r) }) {
				if name != "nydus" {
					return fmt.Errorf("%s: kata-deploy sets up nydus, and no other snapshotter", name)
				}
				s.Nydus = true
			}
			return nil
		}},
		{Annotations + "_" + arch, s.readAnnotations},
		{HTTPSProxy, s.proxy(s.httpsProxy)},
		{NoProxy, s.proxy(s.noProxy)},
	} {
		if text := getenv(variable.name); text != "" {
			if err := variable.parse(text); err != nil {
				return nil, bad(variable.name, "%w", err)
			}
		}
	}
	return s, nil
}

func boolean(value *bool) func(string) error {
	return func(text string) (err error) {
		if *value, err = strconv.ParseBool(text); err != nil {
			return errors.New("must be true or false")
		}
		return nil
	}
}

// known refuses what is none of the shims. Where those are not said, Choose does.
func (s *Settings) known(shim string) error {
	if len(s.Shims) > 0 && !slices.Contains(s.Shims, shim) {
		return fmt.Errorf("%q is none of the shims: %s", shim, strings.Join(s.Shims, " "))
	}
	return nil
}

// mapping reads "shim:value,shim:value", with other separators where upstream has
// others.
func (s *Settings) mapping(between, within string, known func(shim string) error, set func(shim, value string) error) func(string) error {
	return func(text string) error {
		for _, entry := range strings.Split(strings.TrimRight(text, between), between) {
			shim, value, ok := strings.Cut(strings.TrimSpace(entry), within)
			if !ok || shim == "" || value == "" {
				return fmt.Errorf("%q is not SHIM%sVALUE", entry, within)
			}
			if err := known(shim); err != nil {
				return err
			}
			if err := set(shim, value); err != nil {
				return err
			}
		}
		return nil
	}
}

// readAnnotations reads "annotation shim:annotation,annotation".
func (s *Settings) readAnnotations(text string) error {
	for _, entry := range strings.Fields(text) {
		shim, list, ok := strings.Cut(entry, ":")
		if !ok {
			shim, list = allShims, entry
		} else if err := s.known(shim); err != nil {
			return err
		}
		for _, annotation := range strings.Split(list, ",") {
			if !annotationRE.MatchString(annotation) {
				return fmt.Errorf("%q is no annotation", annotation)
			}
			s.annotations[shim] = append(s.annotations[shim], annotation)
		}
	}
	return nil
}

// proxy reads "value" for all shims, or "shim=value;shim=value".
func (s *Settings) proxy(values map[string]string) func(string) error {
	set := func(shim, value string) error {
		if !proxyRE.MatchString(value) {
			return fmt.Errorf("%q: must have neither blanks nor quotes, since it becomes one of the guest's kernel parameters", value)
		}
		values[shim] = value
		return nil
	}
	// The variable is the same on nodes of all architectures.
	known := func(shim string) error {
		if s.elsewhere[shim] {
			return nil
		}
		return s.known(shim)
	}
	return func(text string) error {
		// An URL may have = in it, but not before its scheme.
		if name, _, ok := strings.Cut(text, "="); !ok || strings.ContainsAny(name, ":/,") {
			return set(allShims, text)
		}
		return s.mapping(";", "=", known, set)(text)
	}
}

// AnnotationsOf gives the annotations of pods that a shim takes, beside those of its
// own configuration.
func (s *Settings) AnnotationsOf(shim string) []string {
	return slices.Concat(s.annotations[allShims], s.annotations[shim])
}

// KernelParameters gives what the kernel of a shim's guest is told, beside what its
// own configuration says.
func (s *Settings) KernelParameters(shim string) []string {
	var parameters []string
	for _, p := range []struct {
		name   string
		values map[string]string
	}{{"agent.https_proxy", s.httpsProxy}, {"agent.no_proxy", s.noProxy}} {
		value, ok := p.values[shim]
		if !ok {
			value = p.values[allShims]
		}
		if value != "" {
			parameters = append(parameters, p.name+"="+value)
		}
	}
	return parameters
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
	if s.DefaultShim != "" && !slices.Contains(chosen, s.DefaultShim) {
		errs = append(errs, fmt.Errorf("the default is %s, which is not installed", s.DefaultShim))
	}
	for _, said := range []struct {
		what  string
		shims []string
		// everywhere says that nodes of all architectures are told the same.
		everywhere bool
	}{
		{"a snapshotter", slices.Sorted(maps.Keys(s.Snapshotters)), false},
		{"a pull type", slices.Sorted(maps.Keys(s.GuestPull)), false},
		{"a forced pull in the guest", slices.Sorted(maps.Keys(s.ForceGuestPull)), false},
		{"an annotation", slices.Sorted(maps.Keys(s.annotations)), false},
		{"a proxy", slices.Sorted(maps.Keys(s.httpsProxy)), true},
		{"a way around a proxy", slices.Sorted(maps.Keys(s.noProxy)), true},
	} {
		for _, shim := range said.shims {
			if shim != allShims && !slices.Contains(chosen, shim) && !(said.everywhere && s.elsewhere[shim]) {
				errs = append(errs, fmt.Errorf("there is %s for %s, which is not installed", said.what, shim))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	return chosen, nil
}
