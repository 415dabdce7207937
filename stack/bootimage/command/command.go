// Package command is the command line of seimage.
package command

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/bootimage/hostkey"
	"github.com/kiln-build/kiln/stack/bootimage/seimage"
	"github.com/kiln-build/kiln/stack/bootimage/testkey"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// New gives the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "seimage",
		Short:         "Make boot images for IBM Secure Execution, and say what is in them",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	cmd.AddCommand(createCommand(), inspectCommand(), testkeyCommand())
	return cmd
}

type createFlags struct {
	kernel, initrd, commandLine, stage3a, stage3b string
	documents, certificates                       []string
	noVerify                                      bool
	output, header                                string
}

func createCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an image that only some hosts can start",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return f.create(time.Now()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.kernel, "image", "", "the kernel, a bzImage for s390x")
	flags.StringVar(&f.initrd, "ramdisk", "", "the initrd")
	flags.StringVar(&f.commandLine, "parmfile", "", "the kernel's command line")
	flags.StringVar(&f.stage3a, "stage3a", "", "the loader that the host starts, stage3a.bin of s390-tools")
	flags.StringVar(&f.stage3b, "stage3b", "", "the loader that the ultravisor starts, stage3b_reloc.bin of s390-tools")
	flags.StringArrayVar(&f.documents, "host-key-document", nil, "a host key document (repeatable)")
	flags.StringArrayVar(&f.certificates, "cert", nil, "certificates or revocation lists that the documents are verified with, the root's among them (repeatable)")
	flags.BoolVar(&f.noVerify, "no-verify", false, "take documents that nobody vouches for")
	flags.StringVar(&f.output, "output", "", "the image to write")
	flags.StringVar(&f.header, "header", "", "the image's header to write, which attestation compares")
	return cmd
}

// check tells which flags are missing.
func (f *createFlags) check() error {
	var missing []string
	for _, flag := range []struct {
		name  string
		given bool
	}{
		{"image", f.kernel != ""},
		{"ramdisk", f.initrd != ""},
		{"parmfile", f.commandLine != ""},
		{"stage3a", f.stage3a != ""},
		{"stage3b", f.stage3b != ""},
		{"host-key-document", len(f.documents) > 0},
		{"output", f.output != ""},
	} {
		if !flag.given {
			missing = append(missing, "--"+flag.name)
		}
	}
	if len(missing) > 0 {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("an image is not made without %s", strings.Join(missing, ", ")))
	}
	return nil
}

func (f *createFlags) create(now time.Time) error {
	if err := f.check(); err != nil {
		return err
	}
	var parts seimage.Parts
	var line []byte
	var inputs [][]byte
	for _, in := range []struct {
		name string
		into *[]byte
	}{
		{f.kernel, &parts.Kernel}, {f.initrd, &parts.Initrd}, {f.commandLine, &line},
		{f.stage3a, &parts.Stage3a}, {f.stage3b, &parts.Stage3b},
	} {
		data, err := read(in.name)
		if err != nil {
			return err
		}
		*in.into = data
		inputs = append(inputs, data)
	}
	parts.CommandLine = strings.TrimSuffix(string(line), "\n")

	documents, err := f.readDocuments()
	if err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	random := io.Reader(rand.Reader)
	switch tests := countTestKeys(documents); {
	case tests == len(documents):
		random = testkey.Random(inputs...)
	case tests > 0:
		return exitcode.With(exitcode.BadInput, errors.New("one host key document is that of Kiln's test key, whose private key everybody has: an image that machines start must not be opened by it; give the documents of the machines alone"))
	default:
		if err := f.verify(documents, now); err != nil {
			return err
		}
	}

	var hosts []*ecdh.PublicKey
	for _, d := range documents {
		hosts = append(hosts, d.Key)
	}
	img, err := seimage.Write(parts, hosts, random)
	if err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("image of %s, %s and %s: %w", f.kernel, f.initrd, f.commandLine, err))
	}
	header, err := seimage.ReadHeader(img)
	if err != nil {
		return fmt.Errorf("reading back what was made: %w", err)
	}
	if f.header != "" {
		if err := write(f.header, header.Raw); err != nil {
			return err
		}
	}
	return write(f.output, img)
}

func (f *createFlags) readDocuments() ([]*hostkey.Document, error) {
	var out []*hostkey.Document
	for _, name := range f.documents {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		d, err := hostkey.Parse(name, data)
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if other.Key.Equal(d.Key) {
				return nil, fmt.Errorf("host key documents %s and %s are for the same key: give one", other.Name, d.Name)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func countTestKeys(documents []*hostkey.Document) int {
	n := 0
	for _, d := range documents {
		if testkey.Is(d.Key) {
			n++
		}
	}
	return n
}

// verify verifies documents of machines.
func (f *createFlags) verify(documents []*hostkey.Document, now time.Time) error {
	switch {
	case f.noVerify && len(f.certificates) > 0:
		return exitcode.With(exitcode.BadInput, errors.New("--no-verify is given together with certificates to verify with: give one of both"))
	case f.noVerify:
		return nil
	case len(f.certificates) == 0:
		return exitcode.With(exitcode.BadInput, errors.New("nothing vouches for the host key documents: give the certificates and revocation lists that they are verified with, or say --no-verify"))
	}
	var chain hostkey.Chain
	for _, name := range f.certificates {
		data, err := read(name)
		if err != nil {
			return err
		}
		if err := chain.Add(name, data); err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
	}
	for _, d := range documents {
		if err := chain.Verify(d, now); err != nil {
			return exitcode.With(exitcode.Unverified, err)
		}
	}
	return nil
}

// summary is what inspect prints.
type summary struct {
	Hosts   []string `json:"hostKeys"`
	Pages   uint64   `json:"pages"`
	Flags   string   `json:"flags"`
	Content string   `json:"contentDigest"`
	Address string   `json:"addressDigest"`
	Tweaks  string   `json:"tweakDigest"`
	Tag     string   `json:"tag"`
	TestKey bool     `json:"testKey"`
}

func inspectCommand() *cobra.Command {
	var documents []string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Say what an image says of itself, as JSON",
		Args: func(cmd *cobra.Command, args []string) error {
			return exitcode.With(exitcode.BadInput, cobra.ExactArgs(1)(cmd, args))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect(cmd.OutOrStdout(), args[0], documents)
		},
	}
	cmd.Flags().StringArrayVar(&documents, "host-key-document", nil, "a host key document that the image must be for (repeatable); fails when it is not for all, or for others")
	return cmd
}

func inspect(out io.Writer, name string, documents []string) error {
	img, err := read(name)
	if err != nil {
		return err
	}
	h, err := seimage.ReadHeader(img)
	if err != nil {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("%s: %w", name, err))
	}
	f := createFlags{documents: documents}
	parsed, err := f.readDocuments()
	if err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	for _, d := range parsed {
		if !h.Startable(d.Key) {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("%s cannot be started with the host key of %s", name, d.Name))
		}
	}
	if len(parsed) > 0 && len(parsed) != len(h.Hosts) {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("%s can be started with %d host keys, where there are documents for %d", name, len(h.Hosts), len(parsed)))
	}
	s := summary{
		Pages:   h.Pages,
		Flags:   fmt.Sprintf("%016x", h.Flags),
		Content: fmt.Sprintf("%x", h.Content),
		Address: fmt.Sprintf("%x", h.Addresses),
		Tweaks:  fmt.Sprintf("%x", h.Tweaks),
		Tag:     fmt.Sprintf("%x", h.Tag),
	}
	test, err := testkey.Key()
	if err != nil {
		return err
	}
	s.TestKey = h.Startable(test.PublicKey())
	for _, host := range h.Hosts {
		s.Hosts = append(s.Hosts, fmt.Sprintf("%x", host))
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

func testkeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "testkey FILE",
		Short: "Write the host key document of a key that everybody has",
		Args: func(cmd *cobra.Command, args []string) error {
			return exitcode.With(exitcode.BadInput, cobra.ExactArgs(1)(cmd, args))
		},
		RunE: func(_ *cobra.Command, args []string) error {
			document, err := testkey.Document()
			if err != nil {
				return err
			}
			return write(args[0], document)
		},
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	return exitcode.With(exitcode.BadInput, cobra.NoArgs(cmd, args))
}

func read(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading an input: %w", err))
	}
	return data, nil
}

func write(name string, data []byte) error {
	f, err := atomicfile.Create(name, 0o644)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing %s: %w", name, err))
	}
	return exitcode.With(exitcode.LocalIO, f.Commit())
}
