// Package look looks at a node's files and asks its container runtime: in the test's own
// process where the node's root directory is at hand, and in a pod of the node where it
// is not.
package look

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/deploy/criclient"
)

// pause is how often a file that is held is compared with what its path names.
const pause = 200 * time.Millisecond

// Question is what is asked of a node. Paths are the node's.
type Question struct {
	// Trees are directories to describe. One that is not there is empty.
	Trees []string `json:"trees,omitempty"`
	// Read are files to read.
	Read []string `json:"read,omitempty"`
	// Exist are paths of which to tell those where nothing is.
	Exist []string `json:"exist,omitempty"`
	// Socket is where to ask the container runtime for its handlers.
	Socket string `json:"socket,omitempty"`
}

// Answer is what a node says to a question.
type Answer struct {
	Entries  map[string]Entry  `json:"entries,omitempty"`
	Contents map[string][]byte `json:"contents,omitempty"`
	Missing  []string          `json:"missing,omitempty"`
	Handlers []string          `json:"handlers,omitempty"`
}

// Entry is a file of a tree.
type Entry struct {
	// What says all of it but its times and its inode: kind, mode, owner, content.
	What string `json:"what"`
	// Inode is another one when a file was written anew.
	Inode uint64 `json:"inode"`
	// SHA256 is of a regular file's content, in hexadecimal digits.
	SHA256 string `json:"sha256,omitempty"`
	// Target is a symbolic link's.
	Target string `json:"target,omitempty"`
}

// Ask answers a question about the node whose root directory is at root.
func Ask(ctx context.Context, root string, q Question) (*Answer, error) {
	a := &Answer{Entries: map[string]Entry{}, Contents: map[string][]byte{}}
	for _, tree := range q.Trees {
		if err := a.walk(ctx, root, tree); err != nil {
			return nil, fmt.Errorf("looking at %s of the node: %w", tree, err)
		}
	}
	for _, path := range q.Read {
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, fmt.Errorf("reading %s of the node: %w", path, err)
		}
		a.Contents[path] = content
	}
	for _, path := range q.Exist {
		_, err := os.Lstat(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) {
			a.Missing = append(a.Missing, path)
		} else if err != nil {
			return nil, fmt.Errorf("looking for %s on the node: %w", path, err)
		}
	}
	if q.Socket != "" {
		client := criclient.Client{Socket: filepath.Join(root, q.Socket)}
		status, err := client.Status(ctx)
		if err != nil {
			return nil, err
		}
		a.Handlers = status.Handlers
	}
	return a, nil
}

// walk describes a tree.
func (a *Answer) walk(ctx context.Context, root, tree string) error {
	top := filepath.Join(root, tree)
	return filepath.WalkDir(top, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			if name == top && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		below, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		a.Entries[filepath.Join(tree, below)], err = describe(name)
		return err
	})
}

// describe says what a file is.
func describe(name string) (Entry, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{What: info.Mode().String()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		e.What += fmt.Sprintf(" %d:%d", stat.Uid, stat.Gid)
		e.Inode = stat.Ino
	}
	switch {
	case info.Mode().IsRegular():
		f, err := os.Open(name)
		if err != nil {
			return Entry{}, err
		}
		defer f.Close()
		if e.SHA256, err = sum(f); err != nil {
			return Entry{}, err
		}
		e.What += " sha256:" + e.SHA256
	case info.Mode()&fs.ModeSymlink != 0:
		if e.Target, err = os.Readlink(name); err != nil {
			return Entry{}, err
		}
		e.What += " -> " + e.Target
	}
	return e, nil
}

func sum(r io.Reader) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Held is a file that is held open, whatever becomes of its path.
type Held struct {
	file *os.File
	path string
}

// Hold opens a file of the node whose root directory is at root.
func Hold(root, path string) (*Held, error) {
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return nil, fmt.Errorf("holding %s of the node: %w", path, err)
	}
	return &Held{file: f, path: path}, nil
}

// SHA256 gives the digest of what the open file has now, in hexadecimal digits, and
// closes it.
func (h *Held) SHA256() (string, error) {
	defer h.file.Close()
	digest, err := sum(h.file)
	if err != nil {
		return "", fmt.Errorf("reading what was %s of the node: %w", h.path, err)
	}
	return digest, nil
}

// WaitReplaced waits until the path names another file than the one that is open.
func (h *Held) WaitReplaced(ctx context.Context) error {
	held, err := h.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s of the node: %w", h.path, err)
	}
	for {
		now, err := os.Stat(h.file.Name())
		if err == nil && !os.SameFile(held, now) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking at %s of the node: %w", h.path, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
