// Shell is the probe as a program, to be bash in a root.
package main

import (
	"os"

	"github.com/kiln-build/kiln/tools/component/probe"
)

func main() {
	os.Exit(probe.Main())
}
