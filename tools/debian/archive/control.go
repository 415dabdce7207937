package archive

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// Stanza is one paragraph of a control file.
type Stanza struct {
	fields []field
}

type field struct {
	name, value string
}

// Get gives the value of a field, whose name is compared without regard to
// case; the lines of a longer value are joined by newlines.
func (s *Stanza) Get(name string) string {
	for _, f := range s.fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// Scanner reads the paragraphs of a control file one by one, and of each the
// fields that are asked for. The index of a release is 56 MB of text, most of
// it descriptions: not to keep what nobody reads is what makes this fast.
type Scanner struct {
	scanner *bufio.Scanner
	names   []string
	stanza  Stanza
}

// NewScanner reads control paragraphs from r, keeping the named fields.
func NewScanner(r io.Reader, names ...string) *Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 16<<20)
	return &Scanner{scanner: s, names: names}
}

// Scan advances to the next paragraph.
func (s *Scanner) Scan() bool {
	s.stanza.fields = s.stanza.fields[:0]
	inside, keep := false, false
	for s.scanner.Scan() {
		line := s.scanner.Bytes()
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			if inside {
				return true
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if keep {
				s.stanza.fields[len(s.stanza.fields)-1].value += "\n" + string(bytes.TrimSpace(line))
			}
		default:
			inside = true
			name, value, _ := bytes.Cut(line, []byte(":"))
			var wanted string
			wanted, keep = s.wanted(name)
			if keep {
				s.stanza.fields = append(s.stanza.fields, field{wanted, string(bytes.TrimSpace(value))})
			}
		}
	}
	return inside
}

func (s *Scanner) wanted(name []byte) (string, bool) {
	for _, n := range s.names {
		if len(n) == len(name) && strings.EqualFold(n, string(name)) {
			return n, true
		}
	}
	return "", false
}

// Stanza gives the current paragraph; it is valid until the next Scan.
func (s *Scanner) Stanza() *Stanza { return &s.stanza }

// Err gives the error that ended the scan, if any.
func (s *Scanner) Err() error { return s.scanner.Err() }
