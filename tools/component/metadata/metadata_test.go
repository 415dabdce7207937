package metadata_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func sample() *metadata.Component {
	return &metadata.Component{
		Name:    "kernel",
		Version: "6.12.117-1",
		License: "GPL-2.0-only WITH Linux-syscall-note",
		Arch:    "amd64",
		Layer:   metadata.Layer{MediaType: metadata.MediaType, Digest: "sha256:" + hex64, Size: 7, DiffID: "sha256:" + hex64},
		Files: []metadata.File{
			{Path: "opt", Type: metadata.TypeDir, Mode: "0755"},
			{Path: "opt/vmlinuz", Type: metadata.TypeFile, Mode: "0644", Size: 3, SHA256: hex64},
			{Path: "opt/vmlinuz.container", Type: metadata.TypeSymlink, Mode: "0777", Target: "vmlinuz"},
		},
		Sources: []metadata.Source{{Name: "linux", Version: "6.12.117-1", PURL: "pkg:deb/debian/linux@6.12.117-1", SHA256: hex64}},
	}
}

func TestWriteThenRead(t *testing.T) {
	var first, second bytes.Buffer
	require.NoError(t, metadata.Write(&first, sample()))
	got, err := metadata.Read(bytes.NewReader(first.Bytes()))
	require.NoError(t, err)
	require.Equal(t, sample(), got)
	require.NoError(t, metadata.Write(&second, got))
	require.Equal(t, first.String(), second.String())
	require.True(t, strings.HasPrefix(first.String(), "{\n  \"name\": \"kernel\",\n  \"version\""), first.String())
}

func TestEmptyListsAreNotNull(t *testing.T) {
	c := sample()
	c.Files, c.Sources = nil, nil
	var buf bytes.Buffer
	require.NoError(t, metadata.Write(&buf, c))
	require.Contains(t, buf.String(), `"files": []`)
	require.Contains(t, buf.String(), `"sources": []`)
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*metadata.Component)
		want   string
	}{
		"bad name":          {func(c *metadata.Component) { c.Name = "Kernel!" }, `name "Kernel!" is not a component name`},
		"no version":        {func(c *metadata.Component) { c.Version = "" }, "version is empty"},
		"no licence":        {func(c *metadata.Component) { c.License = "" }, "license is empty"},
		"no arch":           {func(c *metadata.Component) { c.Arch = "" }, "arch is empty"},
		"other media type":  {func(c *metadata.Component) { c.Layer.MediaType = "text/plain" }, `layer.mediaType is "text/plain"`},
		"bad digest":        {func(c *metadata.Component) { c.Layer.Digest = "sha256:12" }, `layer.digest "sha256:12"`},
		"bad diff id":       {func(c *metadata.Component) { c.Layer.DiffID = "" }, "layer.diffID"},
		"no size":           {func(c *metadata.Component) { c.Layer.Size = 0 }, "layer.size is 0"},
		"absolute path":     {func(c *metadata.Component) { c.Files[0].Path = "/opt" }, `file path "/opt"`},
		"escaping path":     {func(c *metadata.Component) { c.Files[0].Path = "../opt" }, `file path "../opt"`},
		"out of order":      {func(c *metadata.Component) { c.Files[0], c.Files[1] = c.Files[1], c.Files[0] }, `file "opt" is out of order`},
		"setuid":            {func(c *metadata.Component) { c.Files[1].Mode = "4755" }, `mode "4755"`},
		"file without hash": {func(c *metadata.Component) { c.Files[1].SHA256 = "" }, `file "opt/vmlinuz": sha256`},
		"dangling symlink":  {func(c *metadata.Component) { c.Files[2].Target = "" }, "has no target"},
		"unknown type":      {func(c *metadata.Component) { c.Files[2].Type = "fifo" }, `unknown type "fifo"`},
		"nameless source":   {func(c *metadata.Component) { c.Sources[0].Name = "" }, "source 0: name is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			c := sample()
			tc.change(c)
			require.ErrorContains(t, c.Validate(), tc.want)
			require.ErrorContains(t, metadata.Write(&bytes.Buffer{}, c), tc.want)
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"not JSON":      {"kernel", "decoding component"},
		"unknown field": {`{"name":"kernel","colour":"red"}`, "colour"},
		"invalid":       {`{"name":"kernel"}`, "version is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := metadata.Read(strings.NewReader(tc.in))
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestReadFileNamesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "kernel.component.json")
	_, err := metadata.ReadFile(name)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))

	require.NoError(t, os.WriteFile(name, []byte("{}"), 0o644))
	_, err = metadata.ReadFile(name)
	require.ErrorContains(t, err, "kernel.component.json")
}
