package measure

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Generate fills dir with about size bytes of what components are made of:
// program code, text, data that is compressed already, and zeroes, in large
// files and small. The same size gives the same bytes everywhere.
func Generate(dir string, size int64) error {
	g := &generator{random: rand.New(rand.NewChaCha8([32]byte{'k', 'i', 'l', 'n'}))}
	g.makeTables()
	parts := []struct {
		name    string
		percent int64
		files   int64
		fill    func(io.Writer, int64) error
	}{
		{"bin/program", 45, 4, g.code},
		{"lib/library.so", 15, 200, g.code},
		{"share/text", 15, 400, g.text},
		{"share/image", 5, 1, g.sparse},
		{"share/compressed", 20, 3, g.noise},
	}
	for _, p := range parts {
		each := size * p.percent / 100 / p.files
		for i := range p.files {
			name := filepath.Join(dir, fmt.Sprintf("%s-%03d", p.name, i))
			if err := writeFile(name, func(w io.Writer) error { return p.fill(w, each) }); err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("generating data: %w", err))
			}
		}
	}
	return nil
}

func writeFile(name string, fill func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

type generator struct {
	random *rand.Rand
	idioms [][]byte // short runs of instructions that come again and again
	words  [][]byte
}

func (g *generator) makeTables() {
	for range 1 << 15 {
		idiom := make([]byte, 3+g.random.IntN(22))
		for i := range idiom {
			// Opcodes are far from evenly spread.
			idiom[i] = byte(g.random.NormFloat64()*24 + 72)
		}
		g.idioms = append(g.idioms, idiom)
	}
	for range 20000 {
		word := make([]byte, 2+g.random.IntN(9))
		for i := range word {
			word[i] = "etaoinshrdlcumwfgypbvkjxqz_"[min(26, int(g.random.ExpFloat64()*7))]
		}
		g.words = append(g.words, append(word, ' '))
	}
}

// zipf picks an index, low ones far more often.
func (g *generator) zipf(n int) int {
	u := g.random.Float64()
	return int(float64(n) * u * u * u)
}

func (g *generator) code(w io.Writer, size int64) error {
	var operand [4]byte
	for written := int64(0); written < size; {
		n, err := w.Write(g.idioms[g.zipf(len(g.idioms))])
		if err != nil {
			return err
		}
		written += int64(n)
		if g.random.IntN(3) == 0 {
			// An address: a few low bytes of it differ.
			binary.LittleEndian.PutUint32(operand[:], g.random.Uint32()>>(8+g.random.IntN(16)))
			if _, err := w.Write(operand[:]); err != nil {
				return err
			}
			written += 4
		}
	}
	return nil
}

func (g *generator) text(w io.Writer, size int64) error {
	for written := int64(0); written < size; {
		word := g.words[g.zipf(len(g.words))]
		if g.random.IntN(12) == 0 {
			word = []byte("\n")
		}
		n, err := w.Write(word)
		if err != nil {
			return err
		}
		written += int64(n)
	}
	return nil
}

// sparse is a file system that is mostly empty.
func (g *generator) sparse(w io.Writer, size int64) error {
	block := make([]byte, 4096)
	for written := int64(0); written < size; written += int64(len(block)) {
		if g.random.IntN(8) == 0 {
			if err := g.text(w, 4096); err != nil {
				return err
			}
			continue
		}
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) noise(w io.Writer, size int64) error {
	var b [8]byte
	for written := int64(0); written < size; written += 8 {
		binary.LittleEndian.PutUint64(b[:], g.random.Uint64())
		if _, err := w.Write(b[:]); err != nil {
			return err
		}
	}
	return nil
}
