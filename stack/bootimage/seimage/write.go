package seimage

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Parts is what an image is made from.
type Parts struct {
	// Kernel is a bzImage for s390x.
	Kernel []byte
	Initrd []byte
	// CommandLine is the kernel's.
	CommandLine string
	// Stage3a and Stage3b are the loaders of s390-tools, stage3a.bin and
	// stage3b_reloc.bin.
	Stage3a, Stage3b []byte
}

// Facts of kernels for s390x: where a bzImage says that it is one, where it says
// how long its command line may be, and what holds of one that does not say.
const (
	kernelEntry        = 0x10000
	kernelMagicOffset  = 0x10008
	kernelMagic        = "S390EP"
	commandLineField   = 0x10430
	defaultCommandLine = 896
)

// Check tells what is wrong with the parts.
func (p *Parts) Check() error {
	switch {
	case len(p.Kernel) == 0:
		return errors.New("the kernel is empty")
	case bytes.HasPrefix(p.Kernel, []byte("\x7fELF")):
		return errors.New("the kernel is an ELF file: the ultravisor starts a bzImage, arch/s390/boot/bzImage of the kernel's build")
	case len(p.Kernel) < commandLineField+8 || !bytes.HasPrefix(p.Kernel[kernelMagicOffset:], []byte(kernelMagic)):
		return fmt.Errorf("the kernel is no bzImage for s390x: it has no %q at %#x", kernelMagic, kernelMagicOffset)
	case len(p.Initrd) == 0:
		return errors.New("the initrd is empty")
	case strings.TrimSpace(p.CommandLine) == "":
		return errors.New("the command line is empty")
	case strings.ContainsAny(p.CommandLine, "\x00\n"):
		return errors.New("the command line is not one line of text")
	case len(p.Stage3a) <= stage3aArguments || len(p.Stage3a) > headerAddress-loaderAddress:
		return fmt.Errorf("stage 3a has %d bytes, and cannot be the loader", len(p.Stage3a))
	case len(p.Stage3b) <= stage3bArguments:
		return fmt.Errorf("stage 3b has %d bytes, and cannot be the loader", len(p.Stage3b))
	}
	longest := binary.BigEndian.Uint64(p.Kernel[commandLineField:])
	if longest == 0 {
		longest = defaultCommandLine
	}
	// With the zero that ends it.
	if size := uint64(len(p.CommandLine)) + 1; size > longest {
		return fmt.Errorf("the command line takes %d bytes, and this kernel has room for %d", size, longest)
	}
	return nil
}

// secrets are what an image needs of a source of randomness.
type secrets struct {
	exchange *ecdh.PrivateKey
	// header is the key of the header, pages that of the pages, and
	// communication that of requests to a running guest.
	header, communication [32]byte
	pages                 [64]byte
	iv                    [12]byte
	tweaks                [4][6]byte
}

func newSecrets(random io.Reader) (*secrets, error) {
	var s secrets
	seed := make([]byte, KeySeed)
	read := [][]byte{seed, s.header[:], s.communication[:], s.pages[:], s.iv[:]}
	for i := range s.tweaks {
		read = append(read, s.tweaks[i][:])
	}
	for _, b := range read {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("reading random bytes: %w", err)
		}
	}
	var err error
	s.exchange, err = KeyFrom(seed)
	return &s, err
}

// digests are what the header holds of all pages.
type digests struct {
	content, addresses, tweaks hash.Hash
	pages                      uint64
}

func newDigests() *digests {
	return &digests{content: sha512.New(), addresses: sha512.New(), tweaks: sha512.New()}
}

// add takes the encrypted pages of a component in. Hashes report no errors.
func (d *digests) add(c component, encrypted []byte) {
	d.content.Write(encrypted)
	for offset := uint64(0); offset < c.size; offset += pageSize {
		tweak := c.tweakOf(offset)
		d.tweaks.Write(tweak[:])
		d.addresses.Write(binary.BigEndian.AppendUint64(nil, c.address+offset))
		d.pages++
	}
}

// Write makes an image that only those hosts can start. Nobody can make it twice,
// unless random gives the same bytes again.
func Write(p Parts, hosts []*ecdh.PublicKey, random io.Reader) ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	headerSize := uint64(headSize + slotSize*len(hosts) + confidentialSize + tagSize)
	switch {
	case len(hosts) == 0:
		return nil, errors.New("no host can start an image without a host key")
	case headerSize > maxHeaderSize:
		return nil, fmt.Errorf("%d host keys do not fit into a header: at most %d do", len(hosts), (maxHeaderSize-headSize-confidentialSize-tagSize)/slotSize)
	}
	s, err := newSecrets(random)
	if err != nil {
		return nil, err
	}
	pages, err := newPageCipher(s.pages[:])
	if err != nil {
		return nil, err
	}

	img := make([]byte, roundUp(headerAddress+headerSize))
	sums := newDigests()
	var components []component
	add := func(kind uint16, content []byte) component {
		tweak := append(binary.BigEndian.AppendUint16(nil, kind), s.tweaks[len(components)][:]...)
		c := component{
			tweak:   binary.BigEndian.Uint64(tweak),
			address: uint64(len(img)),
			size:    roundUp(uint64(len(content))),
		}
		img = append(img, make([]byte, c.size)...)
		encrypted := img[c.address:]
		copy(encrypted, content)
		for offset := uint64(0); offset < c.size; offset += pageSize {
			pages.apply(encrypted[offset:offset+pageSize], c.tweakOf(offset), pages.data.Encrypt)
		}
		sums.add(c, encrypted)
		components = append(components, c)
		return c
	}

	commandLine := append([]byte(p.CommandLine), 0)
	kernel := add(kindKernel, p.Kernel)
	initrd := add(kindInitrd, p.Initrd)
	parameters := add(kindCommandLine, commandLine)
	stage3b := add(kindStage3b, withArguments(p.Stage3b, stage3bArguments,
		kernel.address, uint64(len(p.Kernel)),
		parameters.address, uint64(len(commandLine)),
		initrd.address, uint64(len(p.Initrd)),
		pswMask, kernelEntry))

	header, err := writeHeader(s, sums, hosts, stage3b.address)
	if err != nil {
		return nil, err
	}
	if uint64(len(header)) != headerSize {
		return nil, fmt.Errorf("the header has %d bytes, where %d are expected", len(header), headerSize)
	}
	copy(img[headerAddress:], header)

	block := uint64(len(img))
	img = append(img, parameterBlock(components, headerSize)...)

	// Stage 3a finds header and block by their distances from its arguments.
	arguments := uint64(loaderAddress + len(p.Stage3a) - stage3aArguments)
	copy(img[loaderAddress:], withArguments(p.Stage3a, stage3aArguments, headerAddress-arguments, headerSize, block-arguments))
	binary.BigEndian.PutUint64(img, pswMask|shortPSW|loaderEntry)
	copy(img[descriptionAddress:], description(block))
	return img, nil
}

// withArguments gives a loader with its last bytes replaced by numbers.
func withArguments(loader []byte, size int, numbers ...uint64) []byte {
	out := bytes.Clone(loader[:len(loader)-size])
	for _, n := range numbers {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return out
}

// writeHeader makes the header.
func writeHeader(s *secrets, d *digests, hosts []*ecdh.PublicKey, entry uint64) ([]byte, error) {
	big := binary.BigEndian
	size := headSize + slotSize*len(hosts) + confidentialSize + tagSize

	out := append(make([]byte, 0, size), headerMagic...)
	out = big.AppendUint32(out, headerVersion)
	out = big.AppendUint32(out, uint32(size))
	out = append(out, s.iv[:]...)
	out = big.AppendUint32(out, 0)
	out = big.AppendUint64(out, uint64(len(hosts)))
	out = big.AppendUint64(out, confidentialSize)
	out = big.AppendUint64(out, d.pages)
	out = big.AppendUint64(out, flags)
	out = append(out, coordinates(s.exchange.PublicKey())...)
	out = d.content.Sum(out)
	out = d.addresses.Sum(out)
	out = d.tweaks.Sum(out)
	for _, host := range hosts {
		key, err := wrappingKey(s.exchange, host)
		if err != nil {
			return nil, err
		}
		wrap, err := gcm(key)
		if err != nil {
			return nil, err
		}
		name := HashOf(host)
		out = append(out, name[:]...)
		// The wrapping key is for this one key, so that its nonce may be 0.
		out = wrap.Seal(out, make([]byte, wrap.NonceSize()), s.header[:], nil)
	}

	confidential := append([]byte(nil), s.communication[:]...)
	confidential = append(confidential, s.pages[:]...)
	confidential = big.AppendUint64(confidential, pswMask)
	confidential = big.AppendUint64(confidential, entry)
	// No secret flags, no optional items.
	confidential = append(confidential, make([]byte, 16)...)
	seal, err := gcm(s.header[:])
	if err != nil {
		return nil, err
	}
	return seal.Seal(out, s.iv[:], confidential, out), nil
}

// parameterBlock tells the ultravisor where header and components are: an IPL
// parameter block of type 5.
func parameterBlock(components []component, headerSize uint64) []byte {
	const head, fixed, each = 8, 128, 24
	big := binary.BigEndian
	list := fixed + each*len(components)

	out := big.AppendUint32(nil, uint32(head+list))
	out = append(out, 0, 0, 0, 1)
	out = big.AppendUint32(out, uint32(list))
	out = append(out, 5, 0, 0, 0)
	// Load parameters, of which there are none, and what is reserved.
	out = append(out, make([]byte, 8+84+3)...)
	out = append(out, 1)
	out = append(out, make([]byte, 4)...)
	out = big.AppendUint32(out, uint32(len(components)))
	out = big.AppendUint64(out, headerAddress)
	out = big.AppendUint64(out, headerSize)
	for _, c := range components {
		out = big.AppendUint64(out, c.tweak)
		out = big.AppendUint64(out, c.address)
		out = big.AppendUint64(out, c.size)
	}
	return out
}

// description says where header and parameter block are.
func description(block uint64) []byte {
	big := binary.BigEndian
	out := append([]byte(nil), descriptionMagic...)
	out = big.AppendUint64(out, headerAddress)
	out = big.AppendUint32(out, descriptionVersion)
	return big.AppendUint64(out, block)
}
