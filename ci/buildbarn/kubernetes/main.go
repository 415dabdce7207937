// Command update writes the manifests beside it.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kiln-build/kiln/ci/buildbarn/config/kube"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	if err := update(); err != nil {
		fmt.Fprintln(os.Stderr, "update:", err)
		os.Exit(exitcode.Of(err))
	}
}

func update() error {
	workspace := os.Getenv("BUILD_WORKSPACE_DIRECTORY")
	if workspace == "" {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("start this with `bazel run //ci/buildbarn/kubernetes:update`"))
	}
	rendered, err := kube.Default().Render()
	if err != nil {
		return err
	}
	dir := filepath.Join(workspace, "ci", "buildbarn", "kubernetes")
	old, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	for _, name := range old {
		if _, ok := rendered[filepath.Base(name)]; !ok {
			if err := os.Remove(name); err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("removing a manifest that is no more: %w", err))
			}
		}
	}
	for name, text := range rendered {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing a manifest: %w", err))
		}
	}
	return nil
}
