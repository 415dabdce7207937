package command

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func newServe() *cobra.Command {
	var dir, address string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the embedded registry until interrupted",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if dir == "" {
				if dir, err = cacheDir("registry"); err != nil {
					return err
				}
			}
			var opts []registry.Option
			if verbose {
				opts = append(opts, registry.WithLog(log.New(cmd.ErrOrStderr(), "", log.LstdFlags)))
			}
			r, err := registry.Open(dir, opts...)
			locked := &registry.LockedError{}
			if errors.As(err, &locked) {
				return exitcode.With(exitcode.BadInput, err)
			} else if err != nil {
				return err
			}
			s, err := registry.Serve(r, address)
			if err != nil {
				return errors.Join(err, r.Close())
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				err = errors.Join(err, s.Close(ctx))
			}()
			if err := r.Announce(s.Address()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "serving %s at %s\n", dir, s.Address())
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "registry-dir", "", "directory of the embedded registry (default ~/.cache/kiln/registry)")
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:5000", "loopback address to serve on; port 0 takes a free one")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log requests to stderr")
	return cmd
}
