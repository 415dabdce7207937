// Command look is the one program of an image that a test runs on a node of a cluster: it
// answers a question of package look about the node whose root is mounted, on
// standard output. There is neither a server nor a shell: who may read a pod's log
// may read the answer, and nobody else.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/kiln-build/kiln/tests/suite/install/look"
)

const usage = "usage: look ask ROOT QUESTION | look hold ROOT PATH"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%d arguments: %s", len(args), usage)
	}
	out := json.NewEncoder(os.Stdout)
	switch args[0] {
	case "ask":
		var q look.Question
		if err := json.Unmarshal([]byte(args[2]), &q); err != nil {
			return fmt.Errorf("reading the question: %w", err)
		}
		answer, err := look.Ask(ctx, args[1], q)
		if err != nil {
			return err
		}
		return out.Encode(answer)
	case "hold":
		held, err := look.Hold(args[1], args[2])
		if err != nil {
			return err
		}
		// Whoever reads this knows that the file is open.
		if err := out.Encode("held"); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
		if err := held.WaitReplaced(ctx); err != nil {
			return err
		}
		digest, err := held.SHA256()
		if err != nil {
			return err
		}
		return out.Encode(digest)
	default:
		return fmt.Errorf("%q: %s", args[0], usage)
	}
}
