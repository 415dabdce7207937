package command

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/humanize"
)

// summary is what publish and inspect print.
type summary struct {
	Receipt        *receipt.Receipt `json:"receipt"`
	RuntimeClasses []string         `json:"runtimeClasses"`
	Lacks          []string         `json:"lacks,omitempty"`
	Components     []component      `json:"components"`
	Size           int64            `json:"size"`
	Files          int              `json:"files"`
	Symlinks       int              `json:"symlinks"`
	// ReceiptPath, Published and RegistryDir are there after publishing.
	ReceiptPath string          `json:"receiptPath,omitempty"`
	RegistryDir string          `json:"registryDir,omitempty"`
	Published   *publish.Result `json:"published,omitempty"`
	Paths       []listedPath    `json:"paths,omitempty"`
}

type component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	License string `json:"license"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	Files   int    `json:"files"`
	// Build is "built" or "reused", or empty where that is not known.
	Build string `json:"build,omitempty"`
	// Registry is "uploaded" or "reused" after publishing.
	Registry string `json:"registry,omitempty"`
}

type listedPath struct {
	Component string `json:"component"`
	metadata.File
}

func summarize(b *bundle.Bundle, program string) (*summary, error) {
	s := &summary{Receipt: b.Receipt, RuntimeClasses: []string{}}
	if classes := b.Labels[image.LabelRuntimeClasses]; classes != "" {
		s.RuntimeClasses = strings.Split(classes, ",")
	}
	if lacks := b.Labels[image.LabelLacks]; lacks != "" {
		s.Lacks = strings.Split(lacks, ",")
	}
	started, known, err := buildStart(program)
	if err != nil {
		return nil, err
	}
	for _, c := range b.Components {
		out := component{Name: c.Name, Version: c.Version, License: c.License, Digest: c.Layer.Digest, Size: c.Layer.Size}
		for _, f := range c.Files {
			switch f.Type {
			case metadata.TypeFile:
				out.Files++
				s.Files++
			case metadata.TypeSymlink:
				s.Symlinks++
			}
		}
		if known {
			out.Build = buildOf(b, c, started)
		}
		s.Size += c.Layer.Size
		s.Components = append(s.Components, out)
	}
	return s, nil
}

// buildOf tells whether the build that began at started made a layer. A
// layer that nothing needed is not on this machine, and then nobody knows.
func buildOf(b *bundle.Bundle, c *metadata.Component, started time.Time) string {
	path, err := b.LayerPath(c)
	if err != nil {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if info.ModTime().Before(started) {
		return "reused"
	}
	return "built"
}

// buildStart finds when the build that made this program began, which Bazel
// notes beside its outputs. What is younger came out of that build.
func buildStart(program string) (start time.Time, known bool, err error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("finding the build: %w", err)
	}
	const out = "/bazel-out/"
	i := strings.LastIndex(path, out)
	if i < 0 {
		return time.Time{}, false, nil
	}
	data, err := os.ReadFile(path[:i] + out + "volatile-status.txt")
	if errors.Is(err, os.ErrNotExist) {
		return time.Time{}, false, nil
	} else if err != nil {
		return time.Time{}, false, exitcode.With(exitcode.LocalIO, fmt.Errorf("finding the build: %w", err))
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "BUILD_TIMESTAMP "); ok {
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return time.Time{}, false, nil
			}
			return time.Unix(seconds, 0), true, nil
		}
	}
	return time.Time{}, false, nil
}

func (s *summary) addResult(r *publish.Result, receiptPath string) {
	s.Published = r
	s.ReceiptPath = receiptPath
	for i, c := range r.Components {
		s.Components[i].Registry = "reused"
		if c.Uploaded {
			s.Components[i].Registry = "uploaded"
		}
	}
}

func (s *summary) addFiles(b *bundle.Bundle) {
	for _, c := range b.Components {
		for _, f := range c.Files {
			s.Paths = append(s.Paths, listedPath{Component: c.Name, File: f})
		}
	}
}

// joinedSummary is what publish prints of a platform's payloads for several
// architectures.
type joinedSummary struct {
	// Payload is the index of all, by digest.
	Payload  string `json:"payload"`
	Uploaded bool   `json:"uploaded"`
	// Payloads are those of the architectures, in the order of the index.
	Payloads []*summary `json:"payloads"`
}

func newJoinedSummary(index []byte, uploaded bool, payloads []*summary) *joinedSummary {
	slices.SortFunc(payloads, func(x, y *summary) int {
		return strings.Compare(x.Receipt.Manifests[0].Arch, y.Receipt.Manifests[0].Arch)
	})
	all := *payloads[0].Receipt
	all.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(index))
	return &joinedSummary{Payload: all.Reference(), Uploaded: uploaded, Payloads: payloads}
}

func (s *joinedSummary) print(w io.Writer, format outputFormat) error {
	return printResult(w, format, s)
}

func (s *joinedSummary) text(out io.Writer) error {
	for _, p := range s.Payloads {
		if err := p.text(out); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	index := "uploaded"
	if !s.Uploaded {
		index = "reused"
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "all\t%s\nindex\t%s\n", s.Payload, index)
	return w.Flush()
}

func (s *summary) print(w io.Writer, format outputFormat) error { return printResult(w, format, s) }

// printResult prints a result for programs or for people, all of it or nothing.
func printResult(w io.Writer, format outputFormat, s interface{ text(io.Writer) error }) error {
	var out bytes.Buffer
	if format == jsonOutput {
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(s); err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
	} else if err := s.text(&out); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the result: %w", err))
	}
	return nil
}

func (s *summary) text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	header := []string{"COMPONENT", "VERSION", "SIZE"}
	hasBuild := false
	for _, c := range s.Components {
		hasBuild = hasBuild || c.Build != ""
	}
	if hasBuild {
		header = append(header, "BUILD")
	}
	if s.Published != nil {
		header = append(header, "REGISTRY")
	} else {
		header = append(header, "DIGEST", "LICENSE")
	}
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	row(header...)
	for _, c := range s.Components {
		cells := []string{c.Name, c.Version, humanize.Bytes(c.Size)}
		if hasBuild {
			cells = append(cells, c.Build)
		}
		if s.Published != nil {
			cells = append(cells, c.Registry)
		} else {
			cells = append(cells, c.Digest, c.License)
		}
		row(cells...)
	}
	if err := w.Flush(); err != nil {
		return err
	}

	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row("platform", fmt.Sprintf("%s, %s", s.Receipt.Platform, strings.Join(s.arches(), " ")))
	row("payload", s.Receipt.Reference())
	if s.RegistryDir != "" {
		row("registry", s.RegistryDir)
	}
	if s.ReceiptPath != "" {
		row("receipt", s.ReceiptPath)
	}
	row("inside", fmt.Sprintf("%d components, %d files, %d symlinks, %s packed", len(s.Components), s.Files, s.Symlinks, humanize.Bytes(s.Size)))
	row("runtime class", strings.Join(s.RuntimeClasses, " "))
	if len(s.Lacks) > 0 {
		row("without", strings.Join(s.Lacks, " "))
	}
	row("agent", s.Receipt.Agent)
	row("inputs", s.Receipt.Inputs)
	if r := s.Published; r != nil {
		if r.Nothing() {
			row("uploaded", "nothing: the registry has all of it")
		} else {
			row("uploaded", fmt.Sprintf("%d blobs, %s; %d manifests", r.UploadedBlobs, humanize.Bytes(r.UploadedBytes), r.UploadedManifests))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Paths) > 0 {
		fmt.Fprintln(out)
		w = tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		for _, p := range s.Paths {
			target := ""
			if p.Target != "" {
				target = " -> " + p.Target
			}
			row(p.Mode, p.Type, p.Component, "/"+p.Path+target)
		}
		return w.Flush()
	}
	return nil
}

func (s *summary) arches() []string {
	var out []string
	for _, m := range s.Receipt.Manifests {
		out = append(out, "linux/"+m.Arch)
	}
	return out
}
