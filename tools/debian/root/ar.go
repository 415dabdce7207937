package root

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// arReader reads the members of an ar archive one after the other, which is
// all that a .deb needs: short names, no symbol table.
type arReader struct {
	in *bufio.Reader
	// left is what of the current member was not read, with its padding.
	left int64
	pad  int64
}

func newArReader(r io.Reader) (*arReader, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("not a Debian package: no ar archive")
	}
	return &arReader{in: in}, nil
}

// next advances to the next member, and gives its name. The error at the end
// is io.EOF.
func (a *arReader) next() (string, error) {
	if _, err := io.CopyN(io.Discard, a.in, a.left+a.pad); err != nil {
		return "", fmt.Errorf("truncated ar archive: %w", noEOF(err))
	}
	a.left, a.pad = 0, 0
	header := make([]byte, 60)
	if n, err := io.ReadFull(a.in, header); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		return "", fmt.Errorf("truncated ar archive: %w", noEOF(err))
	}
	if string(header[58:]) != "`\n" {
		return "", errors.New("malformed ar archive: bad member header")
	}
	size, err := strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
	if err != nil || size < 0 {
		return "", errors.New("malformed ar archive: bad member size")
	}
	a.left, a.pad = size, size%2
	return strings.TrimSuffix(strings.TrimSpace(string(header[:16])), "/"), nil
}

// Read reads the current member.
func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > a.left {
		p = p[:a.left]
	}
	n, err := a.in.Read(p)
	a.left -= int64(n)
	return n, noEOF(err)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
