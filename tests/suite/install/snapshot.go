package install

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/kiln-build/kiln/tests/suite/install/look"
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

// snapshot makes a snapshot of what was seen.
func snapshot(seen *look.Answer) Snapshot {
	s := Snapshot{}
	for path, entry := range seen.Entries {
		s[path] = entry.What
	}
	return s
}

// record is what the installer notes before and after it changes anything.
const record = ".kata-deploy.json"

// Inodes gives the inode of each regular file of a tree of the node, but for the
// installer's own record: one that was written anew has another.
func (c *Cluster) Inodes(ctx context.Context, tree string) (map[string]uint64, error) {
	seen, err := c.Look(ctx, look.Question{Trees: []string{tree}})
	if err != nil {
		return nil, err
	}
	return inodes(seen), nil
}

func inodes(seen *look.Answer) map[string]uint64 {
	all := map[string]uint64{}
	for path, entry := range seen.Entries {
		if entry.SHA256 != "" && filepath.Base(path) != record {
			all[path] = entry.Inode
		}
	}
	return all
}
