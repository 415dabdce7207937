// Package standin makes a workspace whose components take long and weigh much,
// and need nothing else: a graph of the shape of the real one, for measuring
// how often each component is made when memory is too short for the real ones.
package standin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/atomicfile"
)

// Component is one stand-in: what it is made from, and what it costs.
type Component struct {
	Name string
	// Deps are names of other components.
	Deps []string
	// Time is how long making it takes.
	Time time.Duration
	// Bytes is the size of its layer.
	Bytes int64
}

// Components gives the stack's: names and dependencies are the real ones,
// times and sizes are the real ones scaled down, to half a minute for the
// kernel.
func Components() []Component {
	const megabyte = 1 << 20
	return []Component{
		{Name: "kernel", Time: 30 * time.Second, Bytes: 10 * megabyte},
		{Name: "qemu", Time: 20 * time.Second, Bytes: 4 * megabyte},
		{Name: "ovmf-tdx", Time: 15 * time.Second, Bytes: megabyte / 2},
		{Name: "shim-v2-go", Time: 10 * time.Second, Bytes: 27 * megabyte},
		{Name: "rootfs-image-confidential", Time: 5 * time.Second, Bytes: 20 * megabyte},
		{Name: "runtimeconfig", Deps: []string{"rootfs-image-confidential"}, Time: time.Second, Bytes: 10 << 10},
		{Name: "kata-deploy", Time: time.Second, Bytes: megabyte},
	}
}

// Make does what a stand-in's action does: it takes its time, and writes as
// many bytes as a layer has. They depend on the name and on the content of what
// it is made from, and no more compress than a layer does.
func Make(ctx context.Context, c Component, from []string, out string) error {
	sum := sha256.New()
	fmt.Fprintln(sum, c.Name)
	for _, name := range from {
		if err := hash(sum, name); err != nil {
			return fmt.Errorf("making stand-in %s: %w", c.Name, err)
		}
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(c.Time):
	}
	f, err := atomicfile.Create(out, 0o644)
	if err != nil {
		return fmt.Errorf("making stand-in %s: %w", c.Name, err)
	}
	defer f.Abort()
	random := rand.NewChaCha8([32]byte(sum.Sum(nil)))
	w := bufio.NewWriter(f)
	block := make([]byte, 4096)
	for left := c.Bytes; left > 0; left -= int64(len(block)) {
		block = block[:min(left, int64(len(block)))]
		_, _ = random.Read(block) // never fails
		if _, err := w.Write(block); err != nil {
			return fmt.Errorf("making stand-in %s: %w", c.Name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("making stand-in %s: %w", c.Name, err)
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("making stand-in %s: %w", c.Name, err)
	}
	return nil
}

// Digests does what the action of the stand-in for a payload does: it writes the
// digest and the name of each layer, a line each, as sha256sum does.
func Digests(layers []string, out string) error {
	f, err := atomicfile.Create(out, 0o644)
	if err != nil {
		return fmt.Errorf("making the stand-in of a payload: %w", err)
	}
	defer f.Abort()
	for _, layer := range layers {
		sum := sha256.New()
		if err := hash(sum, layer); err != nil {
			return fmt.Errorf("making the stand-in of a payload: %w", err)
		}
		if _, err := fmt.Fprintf(f, "%x  %s\n", sum.Sum(nil), filepath.Base(layer)); err != nil {
			return fmt.Errorf("making the stand-in of a payload: %w", err)
		}
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("making the stand-in of a payload: %w", err)
	}
	return nil
}

// ReadDigests reads what Digests wrote, which must be the one file given: the
// digests of the layers by their names.
func ReadDigests(files []string) (map[string]string, error) {
	if len(files) != 1 {
		return nil, fmt.Errorf("reading the stand-in of a payload: want one file, not %q", files)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		return nil, fmt.Errorf("reading the stand-in of a payload: %w", err)
	}
	digests := map[string]string{}
	for line := range strings.Lines(string(content)) {
		sum, name, found := strings.Cut(strings.TrimSpace(line), "  ")
		if !found {
			return nil, fmt.Errorf("reading the stand-in of a payload: %s: not a digest and a name: %q", files[0], line)
		}
		digests[name] = "sha256:" + sum
	}
	return digests, nil
}

func hash(into io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(into, f)
	return err
}

// What can be built of the workspace.
const (
	// Layers is the pattern of all components.
	Layers = "//:all"
	// Payload is made from all layers and names them by digest: a file, and no
	// layer, as is so with the payloads of this repository.
	Payload = "//payload"
)

// dependencies gives the dependencies of a MODULE.bazel, which are a line each.
func dependencies(module string) (string, error) {
	text, err := os.ReadFile(module)
	if err != nil {
		return "", err
	}
	var found strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "bazel_dep(") {
			found.WriteString(line)
		}
	}
	if found.Len() == 0 {
		return "", fmt.Errorf("%s names no dependencies", module)
	}
	return found.String(), nil
}

const rules = `"""Components that only cost time and bytes."""

def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".layer")
    args = ctx.actions.args()
    args.add("--name", ctx.label.name)
    args.add("--time", ctx.attr.time)
    args.add("--bytes", ctx.attr.bytes)
    args.add_all(ctx.files.deps, before_each = "--from")
    args.add("--out", out)
    ctx.actions.run(
        executable = ctx.file.tool,
        arguments = [args],
        inputs = depset(ctx.files.deps),
        outputs = [out],
        mnemonic = "KataComponent",
        progress_message = "Making stand-in %{label}",
    )
    return [DefaultInfo(files = depset([out]))]

stand_in = rule(
    implementation = _impl,
    doc = "One stand-in.",
    attrs = {
        "bytes": attr.int(doc = "Size of the layer."),
        "deps": attr.label_list(doc = "Other components that it is made from."),
        "time": attr.string(doc = "How long it takes, as Go writes durations."),
        "tool": attr.label(doc = "The program that makes it.", default = "//:tool", allow_single_file = True),
    },
)

def _payload_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".digests")
    args = ctx.actions.args()
    args.add("--digests")
    args.add_all(ctx.files.layers, before_each = "--from")
    args.add("--out", out)
    ctx.actions.run(
        executable = ctx.file.tool,
        arguments = [args],
        inputs = depset(ctx.files.layers),
        outputs = [out],
        mnemonic = "KataPayload",
        progress_message = "Making stand-in %{label}",
    )
    return [DefaultInfo(files = depset([out]))]

stand_in_payload = rule(
    implementation = _payload_impl,
    doc = "The stand-in for a payload.",
    attrs = {
        "layers": attr.label_list(doc = "The components."),
        "tool": attr.label(doc = "The program that makes it.", default = "//:tool", allow_single_file = True),
    },
)
`

// Write writes the workspace to dir. Tool is the program that calls Make: that
// of the folder cmd.
//
// Module is the MODULE.bazel of this repository, whose dependencies it takes over:
// where Bazel has no central registry it is given overrides for all of them, and
// an override of what nobody depends on is an error. Nothing of them is loaded.
func Write(dir, tool, module string, components []Component) error {
	dependencies, err := dependencies(module)
	if err != nil {
		return fmt.Errorf("writing the workspace of stand-ins: %w", err)
	}
	var build, payload strings.Builder
	build.WriteString("load(\":rules.bzl\", \"stand_in\")\n\npackage(default_visibility = [\"//:__subpackages__\"])\n\nexports_files([\"tool\"])\n")
	payload.WriteString("load(\"//:rules.bzl\", \"stand_in_payload\")\n\nstand_in_payload(\n    name = \"payload\",\n    layers = [\n")
	for _, c := range components {
		fmt.Fprintf(&build, "\nstand_in(\n    name = %q,\n    bytes = %d,\n    time = %q,\n", c.Name, c.Bytes, c.Time)
		if len(c.Deps) > 0 {
			build.WriteString("    deps = [\n")
			for _, dep := range c.Deps {
				fmt.Fprintf(&build, "        %q,\n", ":"+dep)
			}
			build.WriteString("    ],\n")
		}
		build.WriteString(")\n")
		fmt.Fprintf(&payload, "        %q,\n", "//:"+c.Name)
	}
	payload.WriteString("    ],\n)\n")
	program, err := os.ReadFile(tool)
	if err != nil {
		return fmt.Errorf("writing the workspace of stand-ins: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "payload"), 0o755); err != nil {
		return fmt.Errorf("writing the workspace of stand-ins: %w", err)
	}
	for _, file := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{"MODULE.bazel", []byte("module(name = \"standin\")\n\n" + dependencies), 0o644},
		{"rules.bzl", []byte(rules), 0o644},
		{"BUILD.bazel", []byte(build.String()), 0o644},
		{"payload/BUILD.bazel", []byte(payload.String()), 0o644},
		{"tool", program, 0o755},
	} {
		if err := os.WriteFile(filepath.Join(dir, file.name), file.content, file.mode); err != nil {
			return fmt.Errorf("writing the workspace of stand-ins: %w", err)
		}
	}
	return nil
}
