// Package cli holds the commands that keep debian.lock.
package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/renew"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// options are the flags that all commands share.
type options struct {
	environment Environment

	workspace string
	sets      string
	lock      string
	output    string
	cache     string
}

// Environment is what the commands find around them.
type Environment struct {
	// Mirrors are the bases to fetch from, in order.
	Mirrors []string
	// Keyring is a file of keys to check signatures with, "" for none.
	Keyring string
	// Snapshot is the base of the snapshot archive, "" for none.
	Snapshot string
	// Workspace is the root of the Kiln workspace.
	Workspace string
	// Cache is where indexes are kept between calls, "" for nowhere.
	Cache string
	// Pauses are the waits before each new attempt at a busy mirror.
	Pauses []time.Duration
}

// Machine gives the environment of this machine. now is the state of the
// snapshot archive that stands in when no mirror is configured.
func Machine(now time.Time) Environment {
	e := Environment{
		Mirrors:   archive.Mirrors(os.Getenv(archive.MirrorsVariable), "/"),
		Keyring:   archive.FindKeyring(os.Getenv(archive.KeyringVariable), "/"),
		Snapshot:  archive.SnapshotBase,
		Workspace: cmp.Or(os.Getenv("BUILD_WORKSPACE_DIRECTORY"), "."),
		Pauses:    []time.Duration{time.Second, 4 * time.Second},
	}
	if len(e.Mirrors) == 0 {
		e.Mirrors = []string{archive.SnapshotBase + now.UTC().Format("20060102T150405Z")}
	}
	// Without a home there is nowhere to keep indexes, and no need.
	if dir, err := os.UserCacheDir(); err == nil {
		e.Cache = filepath.Join(dir, "kiln", "debian-index")
	}
	return e
}

// New makes the command.
func New(e Environment) *cobra.Command {
	o := &options{environment: e}
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
	f.StringVar(&o.workspace, "workspace", e.Workspace, "root of the Kiln workspace")
	f.StringVar(&o.sets, "sets", "", "the package sets (default: tools/debian/sets.json of the workspace)")
	f.StringVar(&o.lock, "lock", "", "the lock (default: tools/debian/debian.lock of the workspace)")
	f.StringVar(&o.output, "output", "text", "text or json")
	f.StringVar(&o.cache, "cache", e.Cache, "where package indexes are kept between calls")
	root.AddCommand(newUpdate(o), newCheck(o), newRelock(o))
	return root
}

func (o *options) complete() error {
	if o.output != "text" && o.output != "json" {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: want text or json", o.output))
	}
	if o.sets == "" {
		o.sets = filepath.Join(o.workspace, "tools/debian/sets.json")
	}
	if o.lock == "" {
		o.lock = filepath.Join(o.workspace, "tools/debian/debian.lock")
	}
	return nil
}

// source gives where packages come from; progress is told what is being done.
func (o *options) source(progress io.Writer) *renew.Source {
	return &renew.Source{
		Reader: &archive.Reader{
			Client:   archive.NewClient(o.environment.Pauses...),
			Mirrors:  o.environment.Mirrors,
			Keyring:  o.environment.Keyring,
			CacheDir: o.cache,
			Progress: func(line string) { fmt.Fprintln(progress, "debian: "+line) },
		},
		Snapshot:       o.environment.Snapshot,
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
