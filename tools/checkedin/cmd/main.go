// Command checkedin puts what was made into the source tree, where a file with the
// same content is meant to be. `bazel run` starts it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bazelbuild/rules_go/go/runfiles"

	"github.com/kiln-build/kiln/tools/checkedin"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	err := run(os.Getenv("BUILD_WORKSPACE_DIRECTORY"), os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}

func run(root string, args []string, stdout io.Writer) error {
	if root == "" {
		return exitcode.With(exitcode.BadInput, errors.New("the source tree is not known: start this with `bazel run`"))
	}
	var files []checkedin.File
	for _, arg := range args {
		f, err := checkedin.Parse(arg, runfiles.Rlocation)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	changed, err := checkedin.Update(root, files)
	for _, name := range changed {
		if _, err := fmt.Fprintf(stdout, "renewed %s\n", name); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the result: %w", err))
		}
	}
	return err
}
