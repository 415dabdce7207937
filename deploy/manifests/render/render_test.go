package render_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/manifests/render"
)

const digest = "@sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestTry(t *testing.T) {
	c, err := render.Load("../../chart")
	require.NoError(t, err)
	docs, err := c.Documents(render.Release{"r", "kube-system"}, map[string]any{"image": map[string]any{"reference": "a.b/c", "tag": digest}})
	require.NoError(t, err)
	for _, d := range docs {
		os.Stdout.Write(append(d, "\n---\n"...))
	}
	_, err = c.Documents(render.Release{"r", "kube-system"}, map[string]any{"devkit": true, "monitor": map[string]any{"enabled": true, "x": 1}, "job":map[string]any{"x":1}, "defaultShim": map[string]any{"amd64": "clh"}})
	require.NoError(t, err)
}
