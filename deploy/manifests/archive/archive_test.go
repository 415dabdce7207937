package archive_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"

	"github.com/kiln-build/kiln/deploy/manifests/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const about = "apiVersion: v2\nname: fake\nversion: 1.2.3\n"

func TestHelmReadsIt(t *testing.T) {
	files := map[string][]byte{
		"Chart.yaml":            []byte(about),
		"values.yaml":           []byte("a: 1\n"),
		"templates/_helper.tpl": []byte("{{- /* */ -}}"),
	}
	packed, err := archive.Pack(files)
	require.NoError(t, err)
	again, err := archive.Pack(files)
	require.NoError(t, err)
	require.Equal(t, packed, again)

	c, err := loader.LoadArchive(bytes.NewReader(packed))
	require.NoError(t, err)
	require.Equal(t, "fake", c.Name())
	found := map[string][]byte{}
	for _, f := range c.Raw {
		found[f.Name] = f.Data
	}
	require.Equal(t, files, found)
}

func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"no chart":         {map[string][]byte{"values.yaml": nil}, "it has no Chart.yaml"},
		"no YAML":          {map[string][]byte{"Chart.yaml": []byte("{")}, "reading its Chart.yaml"},
		"no name":          {map[string][]byte{"Chart.yaml": []byte("version: 1.2.3\n")}, `its name is ""`},
		"the name is more": {map[string][]byte{"Chart.yaml": []byte("name: ../fake\n")}, `its name is "../fake"`},
		"out of the chart": {map[string][]byte{"Chart.yaml": []byte(about), "../values.yaml": nil}, `"../values.yaml" is not a path in it`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := archive.Pack(tc.files)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}
