// Package seimage makes and reads boot images for IBM Secure Execution.
//
// Such an image is loaded at address 0, so an offset in it is an address. A
// small loader, stage 3a, stands in the clear and asks the ultravisor to unpack
// the rest: the kernel, the initrd, the command line, and stage 3b, which puts
// them where the kernel expects them. Those are encrypted page by page. The
// header says so to the ultravisor: the key of the pages, and digests of all
// pages, of their addresses and of their tweaks, encrypted under a key that only
// the hosts can unwrap whose host keys the image was made for.
//
// The format is version 1, as s390-tools writes it (genprotimg, and pvimg after
// it) and the ultravisor reads it. Numbers are big-endian.
package seimage

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
)

// Where things stand in an image.
const (
	pageSize = 4096

	// descriptionAddress is where an image says where its header is. Tools
	// for attestation look there.
	descriptionAddress = 0xc000
	loaderAddress      = 0x10000
	loaderEntry        = 0x11000
	// headerAddress is the first address at which tools look for a header
	// that know no description.
	headerAddress = 0x14000
)

// What the loaders find at their ends.
const (
	stage3aArguments = 24
	stage3bArguments = 64
)

// pswMask is the mask of all program status words: 64-bit addresses.
const pswMask = 1<<32 | 1<<31

// shortPSW marks a program status word of eight bytes.
const shortPSW = 1 << 51

// flags lets a guest make protected keys (PCKMO) for DEA, AES and ECC, which is
// the default of s390-tools. Above all it does not let a host dump the guest.
const flags = 1<<7 | 1<<6 | 1<<5

const (
	headerMagic      = "IBMSecEx"
	headerVersion    = 0x100
	headSize         = 416
	slotSize         = 80
	confidentialSize = 128
	tagSize          = 16
	maxHeaderSize    = 2 * pageSize

	descriptionMagic   = "SeImgLnx"
	descriptionVersion = 1
	descriptionSize    = 28
)

// The kinds of components, in their order in memory. A kind is the beginning of
// the tweaks of its pages, so that no two pages of an image have the same.
const (
	kindKernel      = 40
	kindInitrd      = 50
	kindCommandLine = 60
	kindStage3b     = 70
)

var kindNames = map[uint16]string{
	kindKernel:      "kernel",
	kindInitrd:      "initrd",
	kindCommandLine: "command line",
	kindStage3b:     "stage 3b",
}

// component is an encrypted part of an image.
type component struct {
	// tweak is the first half of the tweak of each page. The other half is
	// the page's offset in the component.
	tweak   uint64
	address uint64
	// size is a multiple of a page.
	size uint64
}

func (c component) kind() uint16 { return uint16(c.tweak >> 48) }

// KeyHash names a host key in a header.
type KeyHash [sha256.Size]byte

// HashOf gives the name that a host key has in a header.
func HashOf(key *ecdh.PublicKey) KeyHash { return sha256.Sum256(coordinates(key)) }

// coordinates writes a public key as the ultravisor reads it: both coordinates,
// of 66 bytes each, padded to 80.
func coordinates(key *ecdh.PublicKey) []byte {
	const size, padded = 66, 80
	point := key.Bytes()[1:]
	out := make([]byte, 2*padded)
	copy(out[padded-size:], point[:size])
	copy(out[2*padded-size:], point[size:])
	return out
}

// publicKey reads what coordinates wrote.
func publicKey(b []byte) (*ecdh.PublicKey, error) {
	const size, padded = 66, 80
	point := append([]byte{4}, b[padded-size:padded]...)
	return ecdh.P521().NewPublicKey(append(point, b[2*padded-size:2*padded]...))
}

// wrappingKey is what the maker of an image and a host have in common.
func wrappingKey(mine *ecdh.PrivateKey, theirs *ecdh.PublicKey) ([]byte, error) {
	shared, err := mine.ECDH(theirs)
	if err != nil {
		return nil, fmt.Errorf("agreeing on a key: %w", err)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(shared, 1))
	return sum[:], nil
}

// gcm is the cipher of keys and of headers.
func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// pageCipher is AES-256-XTS with tweaks of 16 bytes that count addresses: the
// ultravisor's choice. Packages for disks number their sectors instead.
type pageCipher struct {
	data, tweak cipher.Block
}

func newPageCipher(key []byte) (*pageCipher, error) {
	half := len(key) / 2
	data, err := aes.NewCipher(key[:half])
	if err != nil {
		return nil, err
	}
	tweak, err := aes.NewCipher(key[half:])
	if err != nil {
		return nil, err
	}
	return &pageCipher{data: data, tweak: tweak}, nil
}

// apply encrypts or decrypts a page in place.
func (p *pageCipher) apply(page []byte, tweak [aes.BlockSize]byte, do func(dst, src []byte)) {
	p.tweak.Encrypt(tweak[:], tweak[:])
	for ; len(page) > 0; page = page[aes.BlockSize:] {
		block := page[:aes.BlockSize]
		xor(block, &tweak)
		do(block, block)
		xor(block, &tweak)
		double(&tweak)
	}
}

func xor(block []byte, tweak *[aes.BlockSize]byte) {
	for i := range tweak {
		block[i] ^= tweak[i]
	}
}

// double multiplies by x in the field of XTS, which is little-endian.
func double(tweak *[aes.BlockSize]byte) {
	carry := byte(0)
	for i := range tweak {
		next := tweak[i] >> 7
		tweak[i] = tweak[i]<<1 | carry
		carry = next
	}
	if carry != 0 {
		tweak[0] ^= 0x87
	}
}

// tweakOf gives the tweak of the page at an offset in a component.
func (c component) tweakOf(offset uint64) [aes.BlockSize]byte {
	var t [aes.BlockSize]byte
	binary.BigEndian.PutUint64(t[:8], c.tweak)
	binary.BigEndian.PutUint64(t[8:], offset)
	return t
}

// roundUp gives the next multiple of a page.
func roundUp(n uint64) uint64 { return (n + pageSize - 1) / pageSize * pageSize }

// KeySeed is how many bytes KeyFrom takes: twice as many as a scalar has, so that
// all keys are as likely.
const KeySeed = 132

// KeyFrom makes a key of random bytes.
func KeyFrom(random []byte) (*ecdh.PrivateKey, error) {
	if len(random) != KeySeed {
		return nil, fmt.Errorf("a key is made of %d bytes, not of %d", KeySeed, len(random))
	}
	one := big.NewInt(1)
	below := new(big.Int).Sub(elliptic.P521().Params().N, one)
	scalar := new(big.Int).SetBytes(random)
	scalar.Mod(scalar, below).Add(scalar, one)
	return ecdh.P521().NewPrivateKey(scalar.FillBytes(make([]byte, 66)))
}
