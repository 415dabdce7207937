// Package shims gives each shim of an installation the configuration that it runs
// with: a copy of the payload's, and beside it in config.d what differs on this
// node. The runtime reads the files there after the configuration, in the order
// of their names; those that the installer does not write are the owner's.
package shims

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// builtFor is where the payload's configurations expect it.
	builtFor = "/opt/kata"
	defaults = "share/defaults/kata-containers"
	runtimes = defaults + "/runtimes"

	configurationPrefix = "configuration-"
	configurationSuffix = ".toml"

	// Upstream's names for what upstream has drop-ins for. Where it changes the
	// configuration itself, these stand before its owner's, too.
	prefixDropIn      = "10-installation-prefix.toml"
	debugDropIn       = "20-debug.toml"
	kernelDropIn      = "30-kernel-params.toml"
	annotationsDropIn = "40-annotations.toml"
	guestPullDropIn   = "41-guest-pull.toml"
)

// Options are what a shim's configuration is made to say on a node.
type Options struct {
	// Debug makes runtime, agent and hypervisor say more.
	Debug bool
	// KernelParameters are told to the guest's kernel, after those of the payload.
	KernelParameters []string
	// Annotations are those that pods may have, beside those of the payload.
	Annotations []string
	// ForceGuestPull makes the guest pull images, whatever the snapshotter.
	ForceGuestPull bool
}

// Available gives the shims that the payload has configurations for, sorted.
func Available(installation string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(installation, defaults))
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for the payload's configurations: %w", err))
	}
	var shims []string
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), configurationPrefix)
		if !ok || !strings.HasSuffix(name, configurationSuffix) || !e.Type().IsRegular() {
			continue
		}
		shims = append(shims, strings.TrimSuffix(name, configurationSuffix))
	}
	slices.Sort(shims)
	return shims, nil
}

// Path gives the configuration that a shim runs with.
func Path(installation, shim string) string {
	return filepath.Join(installation, runtimes, shim, configurationPrefix+shim+configurationSuffix)
}

// Program gives the program of a shim.
func Program(installation string) string {
	return filepath.Join(installation, "bin/containerd-shim-kata-v2")
}

// Configure writes what a shim runs with.
func Configure(installation, shim string, o Options) error {
	source := filepath.Join(installation, defaults, configurationPrefix+shim+configurationSuffix)
	content, err := nodefile.Read(source)
	if err != nil {
		return err
	}
	if content == nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("the payload has no configuration of %s: %s is not there", shim, source))
	}
	var document map[string]any
	if err := toml.Unmarshal(content, &document); err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", source, err))
	}
	config := Path(installation, shim)
	dropIns := filepath.Join(filepath.Dir(config), "config.d")
	if err := nodefile.MakeDir(dropIns); err != nil {
		return err
	}
	// The drop-ins first: without them the configuration may name what is not
	// there.
	moved, _ := move(document, builtFor, installation).(map[string]any)
	if installation == builtFor {
		moved = nil
	}
	for name, settings := range map[string]map[string]any{
		prefixDropIn:      moved,
		debugDropIn:       debugging(document, o.Debug),
		kernelDropIn:      kernelParameters(document, o.KernelParameters),
		annotationsDropIn: annotations(document, o.Annotations),
		guestPullDropIn:   guestPull(o.ForceGuestPull),
	} {
		file := filepath.Join(dropIns, name)
		if len(settings) == 0 {
			if _, err := nodefile.Remove(file); err != nil {
				return err
			}
			continue
		}
		var out bytes.Buffer
		out.WriteString(handler.Header)
		if err := toml.NewEncoder(&out).Encode(settings); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
		if _, err := nodefile.Replace(file, out.Bytes()); err != nil {
			return err
		}
	}
	_, err = nodefile.Replace(config, content)
	return err
}

// move gives the settings that name something below one directory, with another
// one in its place. It gives nil for what names nothing there.
func move(value any, from, to string) any {
	switch value := value.(type) {
	case string:
		if value == from || strings.HasPrefix(value, from+"/") {
			return to + strings.TrimPrefix(value, from)
		}
	case []any:
		// A list is given as a whole.
		moved, changed := slices.Clone(value), false
		for i, element := range value {
			// Of a table, move gives a part.
			if text, ok := element.(string); ok {
				if m := move(text, from, to); m != nil {
					moved[i], changed = m, true
				}
			}
		}
		if changed {
			return moved
		}
	case map[string]any:
		moved := map[string]any{}
		for key, element := range value {
			if m := move(element, from, to); m != nil {
				moved[key] = m
			}
		}
		if len(moved) > 0 {
			return moved
		}
	}
	return nil
}

// debugging gives the settings by which each part that the configuration has says
// more.
func debugging(document map[string]any, debug bool) map[string]any {
	if !debug {
		return nil
	}
	settings := map[string]any{"runtime": map[string]any{"enable_debug": true}}
	for _, part := range []string{"hypervisor", "agent"} {
		verbose := each(document, part, func(map[string]any) map[string]any { return map[string]any{"enable_debug": true} })
		if len(verbose) > 0 {
			settings[part] = verbose
		}
	}
	return settings
}

// kernelParameters gives the settings by which the guest's kernel is told more: one
// text has all of it, so the payload's is repeated.
func kernelParameters(document map[string]any, more []string) map[string]any {
	if len(more) == 0 {
		return nil
	}
	return map[string]any{"hypervisor": each(document, "hypervisor", func(hypervisor map[string]any) map[string]any {
		all := more
		if has, _ := hypervisor["kernel_params"].(string); has != "" {
			all = append([]string{has}, more...)
		}
		return map[string]any{"kernel_params": strings.Join(all, " ")}
	})}
}

// annotations gives the settings by which pods may have more annotations: one list has
// all, so the payload's are repeated.
func annotations(document map[string]any, more []string) map[string]any {
	if len(more) == 0 {
		return nil
	}
	return map[string]any{"hypervisor": each(document, "hypervisor", func(hypervisor map[string]any) map[string]any {
		all := slices.Clone(more)
		has, _ := hypervisor["enable_annotations"].([]any)
		for _, annotation := range has {
			if text, ok := annotation.(string); ok {
				all = append(all, text)
			}
		}
		slices.Sort(all)
		return map[string]any{"enable_annotations": slices.Compact(all)}
	})}
}

func guestPull(force bool) map[string]any {
	if !force {
		return nil
	}
	return map[string]any{"runtime": map[string]any{"experimental_force_guest_pull": true}}
}

// each gives settings for each kind of a part that the configuration has, such as
// hypervisor.qemu.
func each(document map[string]any, part string, settings func(map[string]any) map[string]any) map[string]any {
	kinds, _ := document[part].(map[string]any)
	all := map[string]any{}
	for kind, value := range kinds {
		has, _ := value.(map[string]any)
		all[kind] = settings(has)
	}
	return all
}

// Remove removes what Configure wrote for all shims, and what their owner put
// beside it.
func Remove(installation string) error {
	all := filepath.Join(installation, runtimes)
	entries, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for configurations: %w", err))
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("removing a configuration: %w", err))
		}
	}
	return nodefile.RemoveDir(all)
}
