package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/exitcode"
)

type publishFlags struct {
	program     string
	bundle      string
	channel     string
	tag         string
	registryDir string
	receiptsDir string
	output      outputFormat
	idle        time.Duration
	jobs        int
}

func newPublish(program string) *cobra.Command {
	f := publishFlags{program: program, output: textOutput}
	cmd := &cobra.Command{
		Use:   "publish --bundle=FILE",
		Short: "Publish a payload and write its receipt",
		Long: `Publish a payload: upload what the registry lacks, make it findable by digest,
and write the receipt. Publishing again uploads nothing; a broken publication
goes on where it stopped.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.bundle, "bundle", "", "the payload's bundle.json, absolute or a runfile")
	flags.StringVar(&f.channel, "channel", string(publish.Development), `what it is published for: "development", or "release", which refuses a bringup agent and relocked inputs`)
	flags.StringVar(&f.tag, "tag", "", "a tag to move to the payload when all of it is there")
	flags.StringVar(&f.registryDir, "registry-dir", "", "directory of the embedded registry (default ~/.cache/kiln/registry)")
	flags.StringVar(&f.receiptsDir, "receipts-dir", "", "directory for the receipt (default ~/.cache/kiln/receipts)")
	flags.Var(&f.output, "output", "how to print the result")
	flags.DurationVar(&f.idle, "idle-timeout", publish.DefaultIdle, "how long a registry may be silent")
	flags.IntVar(&f.jobs, "jobs", publish.DefaultJobs, "how many blobs to send at the same time")
	if err := cmd.MarkFlagRequired("bundle"); err != nil {
		panic(err) // The flag is not defined above.
	}
	return cmd
}

func (f *publishFlags) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if f.idle <= 0 || f.jobs <= 0 {
		return exitcode.With(exitcode.BadInput, errors.New("--idle-timeout and --jobs must be greater than zero"))
	}
	if f.registryDir == "" {
		dir, err := cacheDir("registry")
		if err != nil {
			return err
		}
		f.registryDir = dir
	}
	if f.receiptsDir == "" {
		dir, err := cacheDir("receipts")
		if err != nil {
			return err
		}
		f.receiptsDir = dir
	}
	b, err := bundle.Open(f.bundle)
	if err != nil {
		return err
	}
	if err := publish.CheckChannel(publish.Channel(f.channel), b.Receipt); err != nil {
		return err
	}
	log := newProgress(cmd.ErrOrStderr())
	res, err := f.publish(ctx, b, log)
	if err != nil {
		return err
	}
	// The receipt is true from here on.
	path := filepath.Join(f.receiptsDir, b.Receipt.Platform+".json")
	if err := os.MkdirAll(f.receiptsDir, 0o755); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("making the directory for the receipt: %w", err))
	}
	if err := receipt.WriteFile(path, b.Receipt); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("the payload is published, but its receipt is not written: %w", err))
	}
	s, err := summarize(b, f.program)
	if err != nil {
		return err
	}
	s.addResult(res, path)
	if b.Receipt.Registry == receipt.Embedded {
		s.RegistryDir = f.registryDir
	}
	return s.print(cmd.OutOrStdout(), f.output)
}

func (f *publishFlags) publish(ctx context.Context, b *bundle.Bundle, log *progress) (_ *publish.Result, err error) {
	host := b.Receipt.Registry
	where := "registry " + host
	if host == receipt.Embedded {
		address, stop, err := embedded(ctx, f.registryDir, log)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		host = address
		where = "the embedded registry in " + f.registryDir
	}
	log.printf("publishing payload %s to %s", b.Receipt.Platform, where)
	repo, err := b.Receipt.RepositoryAt(host)
	if err != nil {
		return nil, err
	}
	return publish.Publish(ctx, b, publish.Options{
		Repository: repo,
		Tag:        f.tag,
		Transport:  publish.NewTransport(f.idle),
		Jobs:       f.jobs,
		Progress:   log.event,
	})
}

// embedded gives the address of the embedded registry: that of a process
// that serves it already, or of one started here until stop is called.
func embedded(ctx context.Context, dir string, log *progress) (address string, stop func() error, err error) {
	r, err := registry.OpenWait(ctx, dir, func(*registry.LockedError) {
		log.printf("waiting for another process that publishes to %s", dir)
	})
	locked := &registry.LockedError{}
	if errors.As(err, &locked) && locked.Address != "" {
		if !receipt.Loopback(locked.Address) {
			return "", nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%w, which is not a loopback address", err))
		}
		return locked.Address, func() error { return nil }, nil
	} else if err != nil {
		return "", nil, err
	}
	s, err := registry.Serve(r, "127.0.0.1:0")
	if err != nil {
		return "", nil, errors.Join(err, r.Close())
	}
	return s.Address(), func() error {
		// The context may have ended; what is written must still settle.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return s.Close(ctx)
	}, nil
}
