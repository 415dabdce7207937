// Package archive packs Helm charts. Equal charts have equal bytes.
package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// chartFile is what every chart has.
const chartFile = "Chart.yaml"

// Pack packs a chart, whose files are given by their paths in it. As Helm has it,
// they are below a directory of the chart's name.
func Pack(files map[string][]byte) ([]byte, error) {
	about, ok := files[chartFile]
	if !ok {
		return nil, exitcode.With(exitcode.BadInput, errors.New("packing a chart: it has no "+chartFile))
	}
	var chart struct {
		Name string `json:"name"`
	}
	if err := yaml.Unmarshal(about, &chart); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("packing a chart: reading its %s: %w", chartFile, err))
	}
	if chart.Name == "" || chart.Name != path.Base(chart.Name) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("packing a chart: its %s says that its name is %q", chartFile, chart.Name))
	}
	var out bytes.Buffer
	// Neither has a time in its header.
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !fs.ValidPath(name) || name == "." {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("packing a chart: %q is not a path in it", name))
		}
		header := tar.Header{Name: path.Join(chart.Name, name), Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&header); err != nil {
			return nil, fmt.Errorf("packing %s: %w", name, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, fmt.Errorf("packing %s: %w", name, err)
		}
	}
	if err := errors.Join(w.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("packing a chart: %w", err)
	}
	return out.Bytes(), nil
}
