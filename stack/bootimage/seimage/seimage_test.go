package seimage_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/bootimage/seimage"
)

// bzImage is all of a kernel that can be seen from outside.
func bzImage(size int) []byte {
	b := bytes.Repeat([]byte{0xa7}, size)
	copy(b[0x10008:], "S390EP")
	binary.BigEndian.PutUint64(b[0x10430:], 4096)
	return b
}

func parts() seimage.Parts {
	return seimage.Parts{
		Kernel:      bzImage(0x12345),
		Initrd:      bytes.Repeat([]byte("initrd"), 3000),
		CommandLine: "panic=1 quiet",
		Stage3a:     bytes.Repeat([]byte{0x3a}, 11224),
		Stage3b:     bytes.Repeat([]byte{0x3b}, 5588),
	}
}

func host(t *testing.T) *ecdh.PrivateKey {
	key, err := ecdh.P521().GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

func public(keys ...*ecdh.PrivateKey) []*ecdh.PublicKey {
	var out []*ecdh.PublicKey
	for _, key := range keys {
		out = append(out, key.PublicKey())
	}
	return out
}

func write(t *testing.T, keys ...*ecdh.PrivateKey) []byte {
	img, err := seimage.Write(parts(), public(keys...), rand.Reader)
	require.NoError(t, err)
	return img
}

func TestOnlyHostsOfAnImageOpenIt(t *testing.T) {
	first, second, other := host(t), host(t), host(t)
	img := write(t, first, second)
	h, err := seimage.ReadHeader(img)
	require.NoError(t, err)
	require.Equal(t, []seimage.KeyHash{seimage.HashOf(first.PublicKey()), seimage.HashOf(second.PublicKey())}, h.Hosts)
	for _, key := range []*ecdh.PrivateKey{first, second} {
		require.True(t, h.Startable(key.PublicKey()))
		got, err := seimage.Open(img, key)
		require.NoError(t, err)
		want := parts()
		require.Equal(t, want.Kernel, got.Kernel)
		require.Equal(t, want.Initrd, got.Initrd)
		require.Equal(t, want.CommandLine, got.CommandLine)
	}
	require.False(t, h.Startable(other.PublicKey()))
	_, err = seimage.Open(img, other)
	require.ErrorContains(t, err, "cannot be started with the host key")
}

func TestAnImageShowsNothingOfWhatIsInIt(t *testing.T) {
	img := write(t, host(t))
	p := parts()
	require.Greater(t, len(img), len(p.Kernel)+len(p.Initrd))
	for _, secret := range [][]byte{p.Kernel[:64], p.Initrd[:64], []byte(p.CommandLine), p.Stage3b[:64]} {
		require.NotContains(t, string(img), string(secret))
	}
}

func TestNoTwoImagesAreAlike(t *testing.T) {
	key := host(t)
	first, second := write(t, key), write(t, key)
	require.Len(t, second, len(first))
	for page := 0x14000; page < len(first); page += 4096 {
		end := min(page+4096, len(first))
		require.NotEqual(t, first[page:end], second[page:end], "page %#x", page)
	}
}

// What a host, and tools that know images of s390-tools, find without any key.
func TestWhatHostsFind(t *testing.T) {
	img := write(t, host(t))
	h, err := seimage.ReadHeader(img)
	require.NoError(t, err)
	require.Equal(t, "0008000180011000", hex.EncodeToString(img[:8]), "the program status word that starts stage 3a")
	require.Equal(t, "SeImgLnx"+"\x00\x00\x00\x00\x00\x01\x40\x00"+"\x00\x00\x00\x01", string(img[0xc000:0xc014]))
	require.Equal(t, "IBMSecEx\x00\x00\x01\x00\x00\x00\x02\x80", string(img[0x14000:0x14010]))
	require.Len(t, h.Raw, 640)
	require.Equal(t, uint64(0xe0), h.Flags, "no dump of the guest, protected keys")

	// Stage 3a adds to the address of its arguments what they say.
	at := 0x10000 + len(parts().Stage3a) - 24
	number := func(i int) int { return int(binary.BigEndian.Uint64(img[at+8*i:])) }
	require.Equal(t, 0x14000, at+number(0))
	require.Equal(t, 640, number(1))
	block := img[at+number(2):]
	require.Equal(t, "000000e8"+"00000001"+"000000e0"+"05000000", hex.EncodeToString(block[:16]))
	require.Len(t, block, 0xe8)
	require.Equal(t, parts().Stage3a[:11200], img[0x10000:at])
}

func TestWhatUltravisorsRefuse(t *testing.T) {
	key := host(t)
	img := write(t, key)
	block := int(binary.BigEndian.Uint64(img[0xc014:]))
	for name, tt := range map[string]struct {
		at  int
		err string
	}{
		"another page":       {0x15000, "the pages are not those of the header"},
		"another header":     {0x14010, "opening the header"},
		"another digest":     {0x14000 + 300, "opening the header"},
		"another wrapping":   {0x14000 + 416 + 40, "unwrapping the header's key"},
		"another host":       {0x14000 + 416, "cannot be started"},
		"another tweak":      {block + 136 + 7, "the tweaks of the pages"},
		"another version":    {0x14009, "version"},
		"no header":          {0x14000, "not a boot image"},
		"no description":     {0xc000, "not a boot image"},
		"more components":    {block + 119, "components"},
		"a component beyond": {block + 136 + 8, "component 0"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.Clone(img)
			changed[tt.at] ^= 1
			_, err := seimage.Open(changed, key)
			require.ErrorContains(t, err, tt.err)
		})
	}
	for _, size := range []int{0, 100, 0xc01c, 0x14000, 0x14100, 0x15000, block, block + 150, len(img) - 1} {
		_, err := seimage.Open(img[:size], key)
		require.Error(t, err, "%#x bytes", size)
	}
}

func TestWhatBecomesNoImage(t *testing.T) {
	keys := public(host(t))
	for name, tt := range map[string]struct {
		change func(*seimage.Parts)
		err    string
	}{
		"no kernel":             {func(p *seimage.Parts) { p.Kernel = nil }, "the kernel is empty"},
		"an ELF file":           {func(p *seimage.Parts) { copy(p.Kernel, "\x7fELF") }, "the kernel is an ELF file"},
		"a kernel for a PC":     {func(p *seimage.Parts) { copy(p.Kernel[0x10008:], "HdrS\x00\x00") }, "no bzImage for s390x"},
		"a cut kernel":          {func(p *seimage.Parts) { p.Kernel = p.Kernel[:0x10010] }, "no bzImage for s390x"},
		"no initrd":             {func(p *seimage.Parts) { p.Initrd = []byte{} }, "the initrd is empty"},
		"no command line":       {func(p *seimage.Parts) { p.CommandLine = " " }, "the command line is empty"},
		"two command lines":     {func(p *seimage.Parts) { p.CommandLine = "a\nb" }, "not one line"},
		"a long command line":   {func(p *seimage.Parts) { p.CommandLine = strings.Repeat("x", 4096) }, "takes 4097 bytes, and this kernel has room for 4096"},
		"a kernel without room": {func(p *seimage.Parts) { clear(p.Kernel[0x10430:0x10438]); p.CommandLine = strings.Repeat("x", 896) }, "room for 896"},
		"no stage 3a":           {func(p *seimage.Parts) { p.Stage3a = nil }, "stage 3a"},
		"a large stage 3a":      {func(p *seimage.Parts) { p.Stage3a = make([]byte, 0x4001) }, "stage 3a"},
		"no stage 3b":           {func(p *seimage.Parts) { p.Stage3b = make([]byte, 64) }, "stage 3b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := parts()
			tt.change(&p)
			img, err := seimage.Write(p, keys, rand.Reader)
			require.ErrorContains(t, err, tt.err)
			require.Nil(t, img)
		})
	}
	_, err := seimage.Write(parts(), nil, rand.Reader)
	require.ErrorContains(t, err, "without a host key")
	_, err = seimage.Write(parts(), keys, strings.NewReader("few"))
	require.ErrorContains(t, err, "reading random bytes")
}

func TestHowManyHosts(t *testing.T) {
	key := host(t)
	var keys []*ecdh.PublicKey
	for range 95 {
		keys = append(keys, key.PublicKey())
	}
	img, err := seimage.Write(parts(), keys, rand.Reader)
	require.NoError(t, err)
	h, err := seimage.ReadHeader(img)
	require.NoError(t, err)
	require.Len(t, h.Raw, 8160)
	_, err = seimage.Open(img, key)
	require.NoError(t, err)

	_, err = seimage.Write(parts(), append(keys, key.PublicKey()), rand.Reader)
	require.ErrorContains(t, err, "96 host keys do not fit into a header: at most 95 do")
}
