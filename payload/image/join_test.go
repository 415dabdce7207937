package image_test

import (
	"bytes"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/fakepayload"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func indexFor(t *testing.T, platform, arch string) []byte {
	t.Helper()
	spec := fakepayload.Spec(fakepayload.Components(t, t.TempDir())...)
	spec.Platform, spec.Arch = platform, arch
	for _, c := range spec.Components {
		c.Arch = arch
	}
	p, err := image.Build(spec)
	require.NoError(t, err)
	return p.Index
}

func TestJoin(t *testing.T) {
	amd64, s390x := indexFor(t, "remote", "amd64"), indexFor(t, "remote", "s390x")
	joined, err := image.Join(s390x, amd64)
	require.NoError(t, err)
	index, err := v1.ParseIndexManifest(bytes.NewReader(joined))
	require.NoError(t, err)
	require.Equal(t, "remote", index.Annotations[image.LabelPlatform])
	require.Len(t, index.Manifests, 2)
	require.Equal(t, "linux/amd64", index.Manifests[0].Platform.String())
	require.Equal(t, "linux/s390x", index.Manifests[1].Platform.String())
	alone, err := v1.ParseIndexManifest(bytes.NewReader(s390x))
	require.NoError(t, err)
	require.Equal(t, alone.Manifests[0], index.Manifests[1])

	again, err := image.Join(amd64, s390x)
	require.NoError(t, err)
	require.Equal(t, string(joined), string(again), "the order in which they are given does not matter")

	for want, indexes := range map[string][][]byte{
		"joining payloads: two are for amd64": {amd64, amd64},
		`joining payloads: one is for platform "remote", another for "qemu": join those of one platform`: {amd64, indexFor(t, "qemu", "s390x")},
		"joining payloads: there are none": nil,
	} {
		_, err := image.Join(indexes...)
		require.EqualError(t, err, want)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
	_, err = image.Join([]byte("no index"))
	require.ErrorContains(t, err, "joining payloads: reading an index: ")
}
