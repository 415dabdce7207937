package humanize_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/humanize"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0:          "0 B",
		1023:       "1023 B",
		1024:       "1.0 KiB",
		10866722:   "10.4 MiB",
		3 << 30:    "3.0 GiB",
		5 << 40:    "5.0 TiB",
		2048 << 40: "2048.0 TiB",
	} {
		require.Equal(t, want, humanize.Bytes(n))
	}
}
