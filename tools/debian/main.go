// Command debian keeps debian.lock: it renews it, checks it against the
// mirror, and replaces what a mirror has dropped by a local lock.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/renew"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "debian: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}

// options are the flags that all commands share.
type options struct {
	workspace string
	sets      string
	lock      string
	output    string
	cache     string
}

func newCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "debian",
		Short:         "Keep the lock of the Debian packages that Kiln builds from",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			return o.complete()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	f := root.PersistentFlags()
	f.StringVar(&o.workspace, "workspace", "", "root of the Kiln workspace (default: $BUILD_WORKSPACE_DIRECTORY, or the current directory)")
	f.StringVar(&o.sets, "sets", "", "the package sets (default: tools/debian/sets.json of the workspace)")
	f.StringVar(&o.lock, "lock", "", "the lock (default: tools/debian/debian.lock of the workspace)")
	f.StringVar(&o.output, "output", "text", "text or json")
	f.StringVar(&o.cache, "cache", "", "where package indexes are kept between calls (default: in the user's cache directory)")
	root.AddCommand(newUpdate(o), newCheck(o), newRelock(o))
	return root
}

func (o *options) complete() error {
	if o.output != "text" && o.output != "json" {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: want text or json", o.output))
	}
	if o.workspace == "" {
		o.workspace = os.Getenv("BUILD_WORKSPACE_DIRECTORY")
	}
	if o.workspace == "" {
		o.workspace = "."
	}
	if o.sets == "" {
		o.sets = filepath.Join(o.workspace, "tools/debian/sets.json")
	}
	if o.lock == "" {
		o.lock = filepath.Join(o.workspace, "tools/debian/debian.lock")
	}
	if o.cache == "" {
		// Without a home there is nowhere to keep indexes, and no need.
		if dir, err := os.UserCacheDir(); err == nil {
			o.cache = filepath.Join(dir, "kiln", "debian-index")
		}
	}
	return nil
}

// source gives the mirrors of this machine. now is the state of the
// snapshot archive that stands in when the machine has no mirror.
func (o *options) source(progress io.Writer, now time.Time) *renew.Source {
	mirrors := archive.Mirrors(os.Getenv(archive.MirrorsVariable), "/")
	if len(mirrors) == 0 {
		mirrors = []string{archive.SnapshotBase + now.UTC().Format("20060102T150405Z")}
	}
	return &renew.Source{
		Reader: &archive.Reader{
			Client:   archive.NewClient(time.Second, 4*time.Second),
			Mirrors:  mirrors,
			Keyring:  archive.FindKeyring(os.Getenv(archive.KeyringVariable), "/"),
			CacheDir: o.cache,
			Progress: func(line string) { fmt.Fprintln(progress, "debian: "+line) },
		},
		Snapshot:       archive.SnapshotBase,
		SnapshotClient: archive.NewClient(),
	}
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exitcode.With(exitcode.BadInput, errors.New(cmd.Name()+" takes no arguments, only flags"))
	}
	return nil
}
