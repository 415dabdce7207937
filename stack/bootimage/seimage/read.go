package seimage

import (
	"bytes"
	"crypto/ecdh"
	"encoding/binary"
	"errors"
	"fmt"
)

// Header is what an image says of itself in the clear.
type Header struct {
	// Hosts are the host keys that the image can be started with.
	Hosts []KeyHash
	// Pages is how many encrypted pages there are.
	Pages uint64
	// Flags are what the guest may do, and what its host.
	Flags uint64
	// Content, Addresses and Tweaks are digests over all pages.
	Content, Addresses, Tweaks []byte
	// Tag authenticates the header. With the digests it tells an image from
	// all others, which is what attestation compares.
	Tag []byte
	// Raw is all of the header.
	Raw []byte

	iv       []byte
	exchange []byte
	slots    []byte
	sealed   []byte
	aad      []byte
}

// ErrNoImage is that of a file without a header.
var ErrNoImage = errors.New("not a boot image for Secure Execution")

// ReadHeader reads an image's header.
func ReadHeader(img []byte) (*Header, error) {
	address, _, err := readDescription(img)
	if err != nil {
		return nil, err
	}
	if address > uint64(len(img)) || uint64(len(img))-address < headSize {
		return nil, fmt.Errorf("%w: it ends before its header at %#x", ErrNoImage, address)
	}
	b := img[address:]
	if string(b[:8]) != headerMagic {
		return nil, fmt.Errorf("%w: no %q at %#x", ErrNoImage, headerMagic, address)
	}
	big := binary.BigEndian
	version, size := big.Uint32(b[8:]), uint64(big.Uint32(b[12:]))
	slots, sealed := big.Uint64(b[32:]), big.Uint64(b[40:])
	switch {
	case version != headerVersion:
		return nil, fmt.Errorf("the header is of version %#x, not %#x", version, headerVersion)
	case size > maxHeaderSize || size > uint64(len(b)):
		return nil, fmt.Errorf("the header says that it has %d bytes", size)
	case slots > maxHeaderSize || sealed > maxHeaderSize || size != headSize+slotSize*slots+sealed+tagSize:
		return nil, fmt.Errorf("the header of %d bytes says that it has %d host keys and %d confidential bytes", size, slots, sealed)
	}
	h := &Header{
		Pages:     big.Uint64(b[48:]),
		Flags:     big.Uint64(b[56:]),
		Content:   b[224:288],
		Addresses: b[288:352],
		Tweaks:    b[352:416],
		Tag:       b[size-tagSize : size],
		Raw:       b[:size],
		iv:        b[16:28],
		exchange:  b[64:224],
		slots:     b[headSize : headSize+slotSize*slots],
		aad:       b[:headSize+slotSize*slots],
		sealed:    b[headSize+slotSize*slots : size],
	}
	for i := range slots {
		h.Hosts = append(h.Hosts, KeyHash(h.slots[slotSize*i:]))
	}
	return h, nil
}

// Startable tells whether a host with that key can start the image.
func (h *Header) Startable(key *ecdh.PublicKey) bool {
	name := HashOf(key)
	for _, host := range h.Hosts {
		if host == name {
			return true
		}
	}
	return false
}

func readDescription(img []byte) (header, block uint64, err error) {
	if len(img) < descriptionAddress+descriptionSize {
		return 0, 0, fmt.Errorf("%w: it has %d bytes", ErrNoImage, len(img))
	}
	d := img[descriptionAddress:]
	if string(d[:8]) != descriptionMagic {
		return 0, 0, fmt.Errorf("%w: no %q at %#x", ErrNoImage, descriptionMagic, descriptionAddress)
	}
	return binary.BigEndian.Uint64(d[8:]), binary.BigEndian.Uint64(d[20:]), nil
}

// unseal opens the header with a host's private key.
func (h *Header) unseal(host *ecdh.PrivateKey) ([]byte, error) {
	exchange, err := publicKey(h.exchange)
	if err != nil {
		return nil, fmt.Errorf("reading the header's public key: %w", err)
	}
	name := HashOf(host.PublicKey())
	for i, other := range h.Hosts {
		if other != name {
			continue
		}
		key, err := wrappingKey(host, exchange)
		if err != nil {
			return nil, err
		}
		unwrap, err := gcm(key)
		if err != nil {
			return nil, err
		}
		slot := h.slots[slotSize*i : slotSize*(i+1)]
		headerKey, err := unwrap.Open(nil, make([]byte, unwrap.NonceSize()), slot[len(name):], nil)
		if err != nil {
			return nil, fmt.Errorf("unwrapping the header's key: %w", err)
		}
		open, err := gcm(headerKey)
		if err != nil {
			return nil, err
		}
		confidential, err := open.Open(nil, h.iv, h.sealed, h.aad)
		if err != nil {
			return nil, fmt.Errorf("opening the header: %w", err)
		}
		if len(confidential) < confidentialSize {
			return nil, fmt.Errorf("the header keeps %d bytes confidential, not %d", len(confidential), confidentialSize)
		}
		return confidential, nil
	}
	return nil, fmt.Errorf("the image cannot be started with the host key %x", name)
}

// Open does with an image what the ultravisor of a host does and the loaders do
// after it, and gives what the kernel would find. It fails wherever they would
// stop. The loaders themselves are not compared.
func Open(img []byte, host *ecdh.PrivateKey) (*Parts, error) {
	h, err := ReadHeader(img)
	if err != nil {
		return nil, err
	}
	confidential, err := h.unseal(host)
	if err != nil {
		return nil, err
	}
	pages, err := newPageCipher(confidential[32:96])
	if err != nil {
		return nil, err
	}
	components, err := readComponents(img)
	if err != nil {
		return nil, err
	}

	sums := newDigests()
	content := map[uint16][]byte{}
	address := map[uint16]uint64{}
	for _, c := range components {
		encrypted := img[c.address : c.address+c.size]
		sums.add(c, encrypted)
		plain := bytes.Clone(encrypted)
		for offset := uint64(0); offset < c.size; offset += pageSize {
			pages.apply(plain[offset:offset+pageSize], c.tweakOf(offset), pages.data.Decrypt)
		}
		content[c.kind()], address[c.kind()] = plain, c.address
	}
	switch {
	case sums.pages != h.Pages:
		return nil, fmt.Errorf("there are %d pages, and the header says %d", sums.pages, h.Pages)
	case !bytes.Equal(sums.addresses.Sum(nil), h.Addresses):
		return nil, errors.New("the pages are not where the header says")
	case !bytes.Equal(sums.tweaks.Sum(nil), h.Tweaks):
		return nil, errors.New("the tweaks of the pages are not those of the header")
	case !bytes.Equal(sums.content.Sum(nil), h.Content):
		return nil, errors.New("the pages are not those of the header")
	}
	for kind, name := range kindNames {
		if content[kind] == nil {
			return nil, fmt.Errorf("the image has no %s", name)
		}
	}
	if got, want := binary.BigEndian.Uint64(confidential[104:]), address[kindStage3b]; got != want {
		return nil, fmt.Errorf("the guest is started at %#x, but stage 3b is at %#x", got, want)
	}
	return sized(content, address)
}

// readComponents reads the parameter block, and checks that all is in the image.
func readComponents(img []byte) ([]component, error) {
	const head, count, list, each = 8, 116, 136, 24
	_, block, err := readDescription(img)
	if err != nil {
		return nil, err
	}
	if block > uint64(len(img)) || uint64(len(img))-block < list {
		return nil, fmt.Errorf("the image ends before its parameter block at %#x", block)
	}
	b := img[block:]
	big := binary.BigEndian
	n := uint64(big.Uint32(b[count:]))
	if n > pageSize/each || uint64(len(b)) < list+each*n || uint64(big.Uint32(b)) != list+each*n || uint64(big.Uint32(b[head:])) != list-head+each*n {
		return nil, fmt.Errorf("the parameter block of %d bytes says that it has %d components", big.Uint32(b), n)
	}
	var out []component
	for i := range n {
		e := b[list+each*i:]
		c := component{tweak: big.Uint64(e), address: big.Uint64(e[8:]), size: big.Uint64(e[16:])}
		if c.size == 0 || c.size%pageSize != 0 || c.size > uint64(len(img)) || c.address > uint64(len(img))-c.size {
			return nil, fmt.Errorf("component %d has %#x bytes at %#x of an image of %#x", i, c.size, c.address, len(img))
		}
		out = append(out, c)
	}
	return out, nil
}

// sized cuts off what fills the last pages, as stage 3b does by its arguments.
func sized(content map[uint16][]byte, address map[uint16]uint64) (*Parts, error) {
	// They stand at its end, but where that is in its last page only they tell.
	begin := binary.BigEndian.AppendUint64(nil, address[kindKernel])
	stage3b := content[kindStage3b]
	at := bytes.LastIndex(stage3b, begin)
	if at < 0 || len(stage3b)-at < stage3bArguments {
		return nil, errors.New("stage 3b does not know where the kernel is")
	}
	arguments := stage3b[at:]
	number := func(i int) uint64 { return binary.BigEndian.Uint64(arguments[8*i:]) }
	var err error
	cut := func(kind uint16, i int) []byte {
		b := content[kind]
		if number(i) != address[kind] || number(i+1) > uint64(len(b)) || roundUp(number(i+1)) != uint64(len(b)) {
			err = errors.Join(err, fmt.Errorf("stage 3b takes %#x bytes at %#x for the %s, which is %#x bytes at %#x",
				number(i+1), number(i), kindNames[kind], len(b), address[kind]))
			return nil
		}
		return b[:number(i+1)]
	}
	p := &Parts{Kernel: cut(kindKernel, 0), Initrd: cut(kindInitrd, 4)}
	line := cut(kindCommandLine, 2)
	if err != nil {
		return nil, err
	}
	if line[len(line)-1] != 0 {
		return nil, errors.New("the command line does not end in a zero")
	}
	if number(6) != pswMask || number(7) != kernelEntry {
		return nil, fmt.Errorf("stage 3b starts the kernel at %#x, not at %#x", number(7), kernelEntry)
	}
	p.CommandLine = string(line[:len(line)-1])
	return p, nil
}
