package image

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Join makes the index of a platform's images for several architectures out of the
// index of each, in the order of the architectures' names. What it is made of
// decides its bytes, and nothing else.
func Join(indexes ...[]byte) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("joining payloads: "+format, args...))
	}
	joined := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	seen := map[string]bool{}
	for _, data := range indexes {
		index, err := v1.ParseIndexManifest(bytes.NewReader(data))
		if err != nil {
			return fail("reading an index: %w", err)
		}
		platform := index.Annotations[LabelPlatform]
		if joined.Annotations == nil {
			joined.Annotations = map[string]string{labelTitle: Repository + " " + platform, LabelPlatform: platform}
		}
		if want := joined.Annotations[LabelPlatform]; platform != want {
			return fail("one is for platform %q, another for %q: join those of one platform", want, platform)
		}
		for _, m := range index.Manifests {
			if m.Platform == nil {
				return fail("manifest %s is for no architecture", m.Digest)
			}
			if seen[m.Platform.Architecture] {
				return fail("two are for %s", m.Platform.Architecture)
			}
			seen[m.Platform.Architecture] = true
			joined.Manifests = append(joined.Manifests, m)
		}
	}
	if len(joined.Manifests) == 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.New("joining payloads: there are none"))
	}
	slices.SortFunc(joined.Manifests, func(x, y v1.Descriptor) int {
		return strings.Compare(x.Platform.Architecture, y.Platform.Architecture)
	})
	return canonical(joined)
}
