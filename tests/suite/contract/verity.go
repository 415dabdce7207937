// Package contract holds what the contract tier needs to look into what a
// payload carries: hash trees, kernels, firmware and programs.
package contract

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// HashTree is a dm-verity tree of version 1 with SHA-256, computed here and
// not by the tool that made the image.
type HashTree struct {
	// RootHash in hex, as the kernel's command line has it.
	RootHash string
	// Blocks is the tree as it lies on disk: the top level first.
	Blocks []byte
}

// ComputeHashTree hashes dataBlocks blocks of data. Salt goes in front of
// every block. Data that fits into one block has no tree and is refused.
func ComputeHashTree(data io.Reader, salt []byte, dataBlocks uint64, dataBlockSize, hashBlockSize int) (*HashTree, error) {
	if dataBlocks < 2 {
		return nil, fmt.Errorf("a tree over %d blocks", dataBlocks)
	}
	level, err := hashLevel(data, salt, dataBlocks, dataBlockSize, hashBlockSize)
	if err != nil {
		return nil, fmt.Errorf("hashing data: %w", err)
	}
	tree := level
	for len(level) > hashBlockSize {
		if level, err = hashLevel(bytes.NewReader(level), salt, uint64(len(level)/hashBlockSize), hashBlockSize, hashBlockSize); err != nil {
			return nil, fmt.Errorf("hashing a level of the tree: %w", err)
		}
		tree = append(bytes.Clone(level), tree...)
	}
	return &HashTree{RootHash: hex.EncodeToString(digest(salt, level)), Blocks: tree}, nil
}

// hashLevel hashes blocks and packs the digests into blocks, of which the
// last is filled up with zeros.
func hashLevel(r io.Reader, salt []byte, blocks uint64, blockSize, hashBlockSize int) ([]byte, error) {
	var out []byte
	block := make([]byte, blockSize)
	for n := range blocks {
		if _, err := io.ReadFull(r, block); err != nil {
			return nil, fmt.Errorf("reading block %d of %d: %w", n, blocks, err)
		}
		out = append(out, digest(salt, block)...)
	}
	if rest := len(out) % hashBlockSize; rest != 0 {
		out = append(out, make([]byte, hashBlockSize-rest)...)
	}
	return out, nil
}

func digest(salt, block []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(block)
	return h.Sum(nil)
}
