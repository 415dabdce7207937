package containerd

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"github.com/kiln-build/kiln/deploy/handler"
)

// The names of the CRI plugin by schema of the configuration. From 3 on what
// pulls images is a plugin of its own.
func criPlugin(schema int) string {
	switch schema {
	case 1:
		return "cri"
	case 2:
		return "io.containerd.grpc.v1.cri"
	default:
		return "io.containerd.cri.v1.runtime"
	}
}

const imagesPlugin = "io.containerd.cri.v1.images"

// DropIn makes the configuration that adds handlers to containerd, and snapshotters that
// listen at a socket, by their names, in the given schema (`version`): 1, 2 or 3. See
// docs/cri/config.md and docs/PLUGINS.md of containerd.
func DropIn(schema int, handlers []handler.Handler, snapshotters map[string]string) ([]byte, error) {
	if schema < 1 || schema > 3 {
		return nil, fmt.Errorf("configuration of schema %d: kata-deploy writes 1, 2 and 3", schema)
	}
	runtimes, platforms := map[string]any{}, map[string]any{}
	for _, h := range handlers {
		runtime := map[string]any{
			"runtime_type": "io.containerd." + h.Name + ".v2",
			"runtime_path": h.Shim,
			// A privileged container in a guest gets no device of the node.
			"privileged_without_host_devices": true,
			"pod_annotations":                 []string{"io.katacontainers.*"},
			"container_annotations":           []string{"io.katacontainers.*"},
			"options":                         map[string]any{"ConfigPath": h.Config},
		}
		if h.Snapshotter != "" {
			// Since schema 3 the plugin that pulls images wants to know, too.
			runtime["snapshotter"] = h.Snapshotter
			platforms[h.Name] = map[string]any{"snapshotter": h.Snapshotter}
		}
		runtimes[h.Name] = runtime
	}
	containerd := map[string]any{"runtimes": runtimes}
	images := map[string]any{}
	if schema >= 3 && len(platforms) > 0 {
		images["runtime_platforms"] = platforms
	}
	content := map[string]any{}
	if len(snapshotters) > 0 {
		proxies := map[string]any{}
		for name, socket := range snapshotters {
			proxies[name] = map[string]any{"type": "snapshot", "address": socket}
		}
		content["proxy_plugins"] = proxies
		// One that does not unpack must be told which image a layer is of.
		const annotations = "disable_snapshot_annotations"
		if schema >= 3 {
			images[annotations] = false
		} else {
			containerd[annotations] = false
		}
	}
	plugins := map[string]any{criPlugin(schema): map[string]any{"containerd": containerd}}
	if len(images) > 0 {
		plugins[imagesPlugin] = images
	}
	content["plugins"] = plugins
	if schema > 1 {
		content["version"] = schema
	}
	var out bytes.Buffer
	out.WriteString(handler.Header)
	if err := toml.NewEncoder(&out).Encode(content); err != nil {
		return nil, fmt.Errorf("writing the configuration of %d handlers: %w", len(handlers), err)
	}
	return out.Bytes(), nil
}
