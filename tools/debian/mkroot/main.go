// Command mkroot makes one archive of a file system tree out of Debian
// packages; see package root.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/root"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "mkroot: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}

func newCommand() *cobra.Command {
	var (
		config            root.Config
		debs              string
		symlinks, compose []string
		epoch             int64
	)
	cmd := &cobra.Command{
		Use:           "mkroot",
		Short:         "Make a root file system archive out of Debian packages",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 || debs == "" || config.Output == "" || config.Packages == "" {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("want --debs, --out and --packages, and no arguments"))
			}
			var err error
			if config.Debs, err = readLines(debs); err != nil {
				return err
			}
			if config.Symlinks, err = pairs("--symlink", symlinks); err != nil {
				return err
			}
			if config.Compose, err = pairs("--compose", compose); err != nil {
				return err
			}
			config.Time = time.Unix(epoch, 0)
			return root.Build(cmd.Context(), config)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	f := cmd.Flags()
	f.StringVar(&debs, "debs", "", "a file with the names of the packages' files, one a line")
	f.StringArrayVar(&config.Exclude, "exclude", nil, "pattern of paths to leave out; with ! before it, to keep after all")
	f.StringArrayVar(&symlinks, "symlink", nil, "path=target: a link to add")
	f.StringArrayVar(&compose, "compose", nil, "path=pattern: a file to put together from all files that match")
	f.BoolVar(&config.Status, "status", false, "add the list of packages for dpkg")
	f.Int64Var(&epoch, "epoch", 0, "modification time of everything, in seconds")
	f.StringVar(&config.Output, "out", "", "the archive to write (.tar.zst)")
	f.StringVar(&config.Packages, "packages", "", "the list of packages to write (.json)")
	return cmd
}

func readLines(file string) ([]string, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the list of packages: %w", err))
	}
	defer in.Close()
	var lines []string
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the list of packages: %w", err))
	}
	return lines, nil
}

func pairs(flag string, values []string) (map[string]string, error) {
	m := map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" || value == "" {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s=%s: want path=value", flag, v))
		}
		if _, twice := m[key]; twice {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %s is given twice", flag, key))
		}
		m[key] = value
	}
	return m, nil
}
