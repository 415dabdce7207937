// Command seimage makes boot images for IBM Secure Execution, and says what is in
// them. Where it has an option that genprotimg of s390-tools has, it is called the
// same and means the same.
package main

import (
	"fmt"
	"os"

	"github.com/kiln-build/kiln/stack/bootimage/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	if err := command.New().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "seimage:", err)
		os.Exit(exitcode.Of(err))
	}
}
