package seimage

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// What s390-tools has for the same pages: two components of known content under
// a known key.
func TestDigestsOfPages(t *testing.T) {
	pages, err := newPageCipher(append(bytes.Repeat([]byte{0x42}, 32), bytes.Repeat([]byte{0x43}, 32)...))
	require.NoError(t, err)
	sums := newDigests()
	for _, in := range []struct {
		address uint64
		content []byte
	}{
		{0x10000, bytes.Repeat([]byte{1}, 0x3400)},
		{0x20000, bytes.Repeat([]byte{2}, 0x3000)},
	} {
		c := component{tweak: 0x42, address: in.address, size: roundUp(uint64(len(in.content)))}
		encrypted := make([]byte, c.size)
		copy(encrypted, in.content)
		for offset := uint64(0); offset < c.size; offset += pageSize {
			pages.apply(encrypted[offset:offset+pageSize], c.tweakOf(offset), pages.data.Encrypt)
		}
		sums.add(c, encrypted)
	}
	require.Equal(t, uint64(7), sums.pages)
	require.Equal(t, "a24ff30a8af1295888dedfe9369eb509290309a90159ebc32ca26a53f9d4364a"+
		"781857e259058753"+"6c3e767355c7b7603f2b0c6a407f16330d82128d0964fad2", hex.EncodeToString(sums.content.Sum(nil)))
	require.Equal(t, "c391de5727a08212ea2fea9c37f9cf090be51f93c6d521b8906332ce720c5f38"+
		"ada0e73e69663e5211d015fef41dc62606f5135e619904d4f450ab889f49caad", hex.EncodeToString(sums.addresses.Sum(nil)))
	require.Equal(t, "424fe3cf04a6f64a7aef185c3b4ef607c0e4f54bb7e14620b574a3d31eef31c7"+
		"d462eb040d45ee6918e6b80968ba4454f9e2edc26f6929ed624d0055f2355659", hex.EncodeToString(sums.tweaks.Sum(nil)))
}
