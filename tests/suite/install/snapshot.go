package install

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Snapshot says what a directory tree of the node is: for each path, below the root,
// its kind, mode, owner and content. It is empty for a tree that is not there.
type Snapshot map[string]string

// dropEmpty forgets a directory in which nothing is.
func (s Snapshot) dropEmpty(dir string) {
	for path := range s {
		if strings.HasPrefix(path, dir+"/") {
			return
		}
	}
	delete(s, dir)
}

// Snapshot looks at trees of the node.
func (c *Cluster) Snapshot(trees ...string) (Snapshot, error) {
	s := Snapshot{}
	for _, tree := range trees {
		root := c.Path(tree)
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				if name == root && errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			below, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			s[filepath.Join(tree, below)], err = describe(name)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("looking at %s of the node: %w", tree, err)
		}
	}
	return s, nil
}

// describe says what a file is, without its times and its inode.
func describe(name string) (string, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return "", err
	}
	what := info.Mode().String()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		what += fmt.Sprintf(" %d:%d", stat.Uid, stat.Gid)
	}
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		what += fmt.Sprintf(" sha256:%x", sha256.Sum256(data))
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		if err != nil {
			return "", err
		}
		what += " -> " + target
	}
	return what, nil
}

// record is what the installer notes before and after it changes anything.
const record = ".kata-deploy.json"

// Inodes gives the inode of each regular file of a tree of the node, but for the
// installer's own record: one that was written anew has another.
func (c *Cluster) Inodes(tree string) (map[string]uint64, error) {
	inodes := map[string]uint64{}
	root := c.Path(tree)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == record {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			inodes[filepath.Join(tree, below)] = stat.Ino
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking at %s of the node: %w", tree, err)
	}
	return inodes, nil
}
