// Package repro builds targets twice, in different folders and with nothing
// cached, and compares what comes out.
package repro

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/kiln-build/kiln/tools/nested"
)

// Digests maps what was built to its digest: the name of a component to the
// digest of its layer, "payload <platform>" to the digest of its index.
type Digests map[string]string

// A Difference is one thing that two builds did not agree on. A digest is empty
// where the build did not make the thing.
type Difference struct {
	Name          string `json:"name"`
	First, Second string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s in the first build, %s in the second", d.Name, orNothing(d.First), orNothing(d.Second))
}

func orNothing(digest string) string {
	if digest == "" {
		return "nothing"
	}
	return digest
}

// Compare gives the differences between two builds, sorted by name.
func Compare(first, second Digests) []Difference {
	var differences []Difference
	for name, digest := range first {
		if second[name] != digest {
			differences = append(differences, Difference{name, digest, second[name]})
		}
	}
	for name, digest := range second {
		if _, ok := first[name]; !ok {
			differences = append(differences, Difference{name, "", digest})
		}
	}
	sort.Slice(differences, func(i, j int) bool { return differences[i].Name < differences[j].Name })
	return differences
}

// Read gives the digests that the files name: *.component.json of components and
// *.receipt.json of payloads. Other files are ignored.
func Read(files []string) (Digests, error) {
	digests := Digests{}
	for _, file := range files {
		var content struct {
			Name     string `json:"name"`
			Platform string `json:"platform"`
			Digest   string `json:"digest"`
			Layer    struct {
				Digest string `json:"digest"`
			} `json:"layer"`
		}
		component, receipt := strings.HasSuffix(file, ".component.json"), strings.HasSuffix(file, "receipt.json")
		if !component && !receipt {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a digest: %w", err)
		}
		if err := json.Unmarshal(data, &content); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		name, digest := content.Name, content.Layer.Digest
		if receipt {
			name, digest = "payload "+content.Platform, content.Digest
		}
		if name == "" || digest == "" {
			return nil, fmt.Errorf("%s: it names no digest", file)
		}
		digests[name] = digest
	}
	return digests, nil
}

// Everything is built from nothing, without a disk cache and without a remote one.
// Only what is fetched by checksum may come from a cache.
func Everything() []string { return []string{"--disk_cache=", "--remote_cache="} }

// Components is for a build in which all that describes or makes a component is
// done again, with programs that may come from the cache.
func Components() []string {
	return []string{"--modify_execution_info=^(KataComponent|RuntimeConfiguration|DebianRoot|PayloadManifest)$=+no-cache"}
}

// Build copies the workspace to dir and builds the targets there, with an output
// base of its own. Options say what is built again: Everything or Components.
func Build(ctx context.Context, workspace, dir string, options, targets []string, log io.Writer) (Digests, error) {
	copied := filepath.Join(dir, "workspace")
	if err := nested.CopyWorkspace(ctx, workspace, copied); err != nil {
		return nil, err
	}
	bazel := &nested.Bazel{Workspace: copied, OutputBase: filepath.Join(dir, "output_base"), Log: log}
	defer func() { _ = bazel.Shutdown(context.WithoutCancel(ctx)) }()
	events := filepath.Join(dir, "events.json")
	args := slices.Concat(options, []string{"--build_event_json_file=" + events}, targets)
	if err := bazel.Run(ctx, "build", args...); err != nil {
		return nil, err
	}
	files, err := nested.OutputFiles(events)
	if err != nil {
		return nil, err
	}
	return Read(files)
}
