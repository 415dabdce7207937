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
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/exitcode"
)

type publishFlags struct {
	program     string
	bundles     []string
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
		Use:   "publish --bundle=FILE...",
		Short: "Publish a payload and write its receipt",
		Long: `Publish a payload: upload what the registry lacks, make it findable by digest,
and write the receipt. Publishing again uploads nothing; a broken publication
goes on where it stopped.

Several bundles are a platform's payloads for several architectures. Each is
published, and then an index of all.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.bundles, "bundle", nil, "a payload's bundle.json, absolute or a runfile")
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
	var bundles []*bundle.Bundle
	var indexes [][]byte
	for _, path := range f.bundles {
		b, err := bundle.Open(path)
		if err != nil {
			return err
		}
		if err := publish.CheckChannel(publish.Channel(f.channel), b.Receipt); err != nil {
			return err
		}
		index, err := b.Index().RawManifest()
		if err != nil {
			return fmt.Errorf("reading the payload's index: %w", err)
		}
		bundles, indexes = append(bundles, b), append(indexes, index)
	}
	var joined []byte
	if len(indexes) > 1 {
		var err error
		if joined, err = image.Join(indexes...); err != nil {
			return err
		}
	}
	log := newProgress(cmd.ErrOrStderr())
	results, uploaded, err := f.publish(ctx, bundles, joined, log)
	if err != nil {
		return err
	}
	var summaries []*summary
	for i, b := range bundles {
		s, err := f.record(b, results[i])
		if err != nil {
			return err
		}
		summaries = append(summaries, s)
	}
	if joined == nil {
		return summaries[0].print(cmd.OutOrStdout(), f.output)
	}
	return newJoinedSummary(joined, uploaded, summaries).print(cmd.OutOrStdout(), f.output)
}

// record writes the receipt of what is published, which is true from here on.
func (f *publishFlags) record(b *bundle.Bundle, res *publish.Result) (*summary, error) {
	path := filepath.Join(f.receiptsDir, receiptName(b.Receipt))
	if err := os.MkdirAll(f.receiptsDir, 0o755); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("making the directory for the receipt: %w", err))
	}
	if err := receipt.WriteFile(path, b.Receipt); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("the payload is published, but its receipt is not written: %w", err))
	}
	s, err := summarize(b, f.program)
	if err != nil {
		return nil, err
	}
	s.addResult(res, path)
	if b.Receipt.Registry == receipt.Embedded {
		s.RegistryDir = f.registryDir
	}
	return s, nil
}

// receiptName is the name of a receipt's file: the platform's, with the architecture
// where that is another than people have.
func receiptName(r *receipt.Receipt) string {
	if arch := r.Manifests[0].Arch; arch != "amd64" {
		return r.Platform + "-" + arch + ".json"
	}
	return r.Platform + ".json"
}

// publish publishes payloads, and the index of all if there is one.
func (f *publishFlags) publish(ctx context.Context, bundles []*bundle.Bundle, joined []byte, log *progress) (results []*publish.Result, uploaded bool, err error) {
	first := bundles[0].Receipt
	host := first.Registry
	where := "registry " + host
	if host == receipt.Embedded {
		address, stop, err := embedded(ctx, f.registryDir, log)
		if err != nil {
			return nil, false, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		host = address
		where = "the embedded registry in " + f.registryDir
	}
	repo, err := first.RepositoryAt(host)
	if err != nil {
		return nil, false, err
	}
	options := publish.Options{Repository: repo, Transport: publish.NewTransport(f.idle), Jobs: f.jobs, Progress: log.event}
	if joined == nil {
		options.Tag = f.tag
	}
	for _, b := range bundles {
		log.printf("publishing payload %s for %s to %s", b.Receipt.Platform, b.Receipt.Manifests[0].Arch, where)
		res, err := publish.Publish(ctx, b, options)
		if err != nil {
			return nil, false, err
		}
		results = append(results, res)
	}
	if joined != nil {
		options.Tag = f.tag
		uploaded, err = publish.Index(ctx, joined, options)
	}
	return results, uploaded, err
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
