// Package crio makes the CRI-O of a node know the runtime handlers of an
// installation, and forget them again: by one file in the directory that CRI-O
// reads all files of. See crio.conf(5), crio.conf.d(5).
package crio

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/nodefile"
)

// runtimeRoot is where the shim keeps what it knows of sandboxes.
const runtimeRoot = "/run/vc"

// File gives the name of an installation's file below the directory of CRI-O's
// configuration, which is /etc/crio. Of two files that say the same, the later in
// the alphabet counts.
func File(directory, suffix string) string {
	name := "99-kata-deploy"
	if suffix != "" {
		name += "-" + suffix
	}
	return filepath.Join(directory, "crio.conf.d", name)
}

// DropIn makes the configuration that adds handlers to CRI-O.
func DropIn(handlers []handler.Handler) ([]byte, error) {
	runtimes := map[string]any{}
	for _, h := range handlers {
		runtime := map[string]any{
			"runtime_path":        h.Shim,
			"runtime_type":        "vm",
			"runtime_root":        runtimeRoot,
			"runtime_config_path": h.Config,
			// A privileged container in a guest gets no device of the node.
			"privileged_without_host_devices": true,
		}
		if h.GuestPull {
			runtime["runtime_pull_image"] = true
		}
		runtimes[h.Name] = runtime
	}
	var out bytes.Buffer
	out.WriteString(handler.Header)
	err := toml.NewEncoder(&out).Encode(map[string]any{"crio": map[string]any{"runtime": map[string]any{"runtimes": runtimes}}})
	if err != nil {
		return nil, fmt.Errorf("writing the configuration of %d handlers: %w", len(handlers), err)
	}
	return out.Bytes(), nil
}

// Install makes CRI-O know the handlers. It tells whether anything changed, so
// that CRI-O must be started again.
func Install(directory, suffix string, handlers []handler.Handler) (changed bool, err error) {
	content, err := DropIn(handlers)
	if err != nil {
		return false, err
	}
	name := File(directory, suffix)
	if err := nodefile.MakeDir(filepath.Dir(name)); err != nil {
		return false, err
	}
	return nodefile.Replace(name, content)
}

// Remove makes CRI-O forget what Install told it. It tells whether anything
// changed.
func Remove(directory, suffix string) (changed bool, err error) {
	name := File(directory, suffix)
	changed, err = nodefile.Remove(name)
	if err != nil {
		return false, err
	}
	return changed, nodefile.RemoveDir(filepath.Dir(name))
}
