package syncbuffer_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/syncbuffer"
)

func TestBuffer(t *testing.T) {
	var b syncbuffer.Buffer
	require.Empty(t, b.String())
	const writers, lines = 4, 100
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range lines {
				_, err := b.Write([]byte("line\n"))
				require.NoError(t, err)
				require.True(t, strings.HasSuffix(b.String(), "line\n"))
			}
		})
	}
	group.Wait()
	require.Equal(t, strings.Repeat("line\n", writers*lines), b.String())
}
