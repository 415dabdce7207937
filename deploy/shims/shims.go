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
	// variants has what runs beside a shim's own configuration, by handler.
	variants = defaults + "/custom-runtimes"

	configurationPrefix = "configuration-"
	configurationSuffix = ".toml"

	// Upstream's names for what upstream has drop-ins for. Where it changes the
	// configuration itself, these stand before its owner's, too.
	prefixDropIn      = "10-installation-prefix.toml"
	formerDebugDropIn = "20-debug.toml"
	kernelDropIn      = "30-kernel-params.toml"
	annotationsDropIn = "40-annotations.toml"
	guestPullDropIn   = "41-guest-pull.toml"
	// What a variant is for is said last.
	variantDropIn = "50-overrides.toml"

	// A payload's kernel and its debug kernel are beside each other.
	kernelSuffix      = ".container"
	debugKernelSuffix = "-debug.container"
)

// debugKernelParameters are upstream's: what the agent logs, and what each driver of
// the guest takes to start.
var debugKernelParameters = []string{"agent.log=debug", "initcall_debug"}

// Options are what a shim's configuration is made to say on a node.
type Options struct {
	// Variant is the handler of the shim's variant for debugging, which has a
	// configuration of its own; empty means the shim itself. In the variant the runtime,
	// the agent, the hypervisor and the guest's kernel say more, and the agent opens a
	// console. All of that changes what is measured, so the shim itself has none of it.
	Variant string
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

// Path gives the configuration that a shim runs with, or a variant of it if that is
// not empty.
func Path(installation, shim, variant string) string {
	dir := filepath.Join(runtimes, shim)
	if variant != "" {
		dir = filepath.Join(variants, variant)
	}
	return filepath.Join(installation, dir, configurationPrefix+shim+configurationSuffix)
}

// Program gives the program of a shim.
func Program(installation string) string {
	return filepath.Join(installation, "bin/containerd-shim-kata-v2")
}

// Configure writes what a shim, or a variant of it, runs with.
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
	config := Path(installation, shim, o.Variant)
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
	debug, err := debugging(document, installation, o)
	if err != nil {
		return err
	}
	for name, settings := range map[string]map[string]any{
		prefixDropIn: moved,
		// Installers wrote it that knew no variants.
		formerDebugDropIn: nil,
		kernelDropIn:      kernelParameters(document, o.KernelParameters),
		annotationsDropIn: annotations(document, o.Annotations),
		guestPullDropIn:   guestPull(o.ForceGuestPull),
		variantDropIn:     debug,
	} {
		if name == variantDropIn && o.Variant == "" {
			// A shim's own configuration may have one of its owner's.
			continue
		}
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
// more. A kernel for that is taken where the payload has one.
func debugging(document map[string]any, installation string, o Options) (map[string]any, error) {
	if o.Variant == "" {
		return nil, nil
	}
	hypervisors := map[string]any{}
	for kind, hypervisor := range kinds(document, "hypervisor") {
		verbose := map[string]any{"enable_debug": true}
		hypervisors[kind] = verbose
		kernel, _ := hypervisor["kernel"].(string)
		if kernel == "" {
			// The guest is not on this node.
			continue
		}
		verbose["kernel_params"] = allParameters(hypervisor, slices.Concat(o.KernelParameters, debugKernelParameters))
		debugKernel, err := debugKernelOf(kernel, installation)
		if err != nil {
			return nil, err
		}
		if debugKernel != "" {
			verbose["kernel"] = debugKernel
		}
	}
	agents := each(document, "agent", func(map[string]any) map[string]any {
		return map[string]any{"enable_debug": true, "debug_console_enabled": true}
	})
	return map[string]any{"runtime": map[string]any{"enable_debug": true}, "hypervisor": hypervisors, "agent": agents}, nil
}

// debugKernelOf gives the debug kernel of a configuration's kernel on this node, or
// nothing if the payload has none.
func debugKernelOf(kernel, installation string) (string, error) {
	name, ok := strings.CutSuffix(kernel, kernelSuffix)
	if !ok {
		return "", nil
	}
	file := name + debugKernelSuffix
	if moved, ok := move(file, builtFor, installation).(string); ok {
		file = moved
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for the debug kernel: %w", err))
	}
	return file, nil
}

// kernelParameters gives the settings by which the guest's kernel is told more: one
// text has all of it, so the payload's is repeated.
func kernelParameters(document map[string]any, more []string) map[string]any {
	if len(more) == 0 {
		return nil
	}
	return map[string]any{"hypervisor": each(document, "hypervisor", func(hypervisor map[string]any) map[string]any {
		return map[string]any{"kernel_params": allParameters(hypervisor, more)}
	})}
}

// allParameters gives the kernel's parameters of a hypervisor, and more behind them.
func allParameters(hypervisor map[string]any, more []string) string {
	all := more
	if has, _ := hypervisor["kernel_params"].(string); has != "" {
		all = append([]string{has}, more...)
	}
	return strings.Join(all, " ")
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
	all := map[string]any{}
	for kind, has := range kinds(document, part) {
		all[kind] = settings(has)
	}
	return all
}

// kinds gives what the configuration says of each kind of a part.
func kinds(document map[string]any, part string) map[string]map[string]any {
	all := map[string]map[string]any{}
	has, _ := document[part].(map[string]any)
	for kind, value := range has {
		all[kind], _ = value.(map[string]any)
	}
	return all
}

// KeepVariants removes what Configure wrote for all variants but those of the given
// handlers, and what their owner put beside it.
func KeepVariants(installation string, handlers []string) error {
	return removeBut(filepath.Join(installation, variants), handlers)
}

// Remove removes what Configure wrote for all shims and their variants, and what their
// owner put beside it.
func Remove(installation string) error {
	if err := KeepVariants(installation, nil); err != nil {
		return err
	}
	return removeBut(filepath.Join(installation, runtimes), nil)
}

// removeBut removes the directories in one but those to keep, and that itself if it
// was made here and nothing is left.
func removeBut(all string, keep []string) error {
	entries, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for configurations: %w", err))
	}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(keep, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("removing a configuration: %w", err))
		}
	}
	return nodefile.RemoveDir(all)
}
