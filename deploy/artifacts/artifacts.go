// Package artifacts puts what a payload carries onto a node and takes it away
// again. It writes a record before it touches anything else, so that after
// an interruption at any moment the same call goes on, and cleaning up takes
// away exactly what was installed.
package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// Source is where a payload's image has the artefacts.
	Source = "/opt/kata-artifacts/opt/kata"
	// Below is where they go below the installation prefix, and the path
	// that they were built for.
	Below = "opt/kata"

	recordName    = ".kata-deploy.json"
	partialPrefix = ".kata-deploy-partial-"
)

// record is what the installation consists of. While an installation is
// under way it holds what was there before and what will be there.
type record struct {
	SchemaVersion int `json:"schemaVersion"`
	// Paths below the installation, sorted.
	Files    []string `json:"files"`
	Symlinks []string `json:"symlinks"`
	// Directories are those that the installation made; others stay.
	Directories []string `json:"directories"`
	// Above is the installation's own directory, if it was made for it, as an
	// absolute path. An older kata-deploy wrote down those that lead to it, too,
	// outermost first; today these have a marker, since installations share them.
	Above []string `json:"above"`
}

// Destination is the directory of an installation with the given prefix. A suffix
// gives one beside that of another installation.
func Destination(prefix, suffix string) (string, error) {
	if prefix == "" {
		prefix = "/"
	}
	if !filepath.IsAbs(prefix) {
		return "", exitcode.With(exitcode.BadInput, fmt.Errorf("installation prefix %q is not an absolute path", prefix))
	}
	dest := filepath.Join(prefix, Below)
	if suffix != "" {
		dest += "-" + suffix
	}
	return dest, nil
}

// installation is a directory on the node that is locked and open.
type installation struct {
	dir  string
	lock *os.File
	root *os.Root
}

// open locks and opens the installation in dir. With make it makes dir and
// those that lead to it; without, an absent one gives fs.ErrNotExist.
func open(ctx context.Context, dir string, make bool) (*installation, error) {
	for {
		if make {
			if err := makeDir(dir); err != nil {
				return nil, err
			}
		}
		lock, err := os.Open(dir)
		if make && errors.Is(err, fs.ErrNotExist) {
			continue // it was cleaned up at once
		} else if err != nil {
			return nil, localIO("opening %s: %w", dir, err)
		}
		if err := flock(ctx, lock); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		// Whoever had the lock may have removed the directory.
		same, err := isAt(lock, dir)
		if err != nil {
			return nil, errors.Join(localIO("looking at %s: %w", dir, err), lock.Close())
		}
		if !same {
			if err := lock.Close(); err != nil {
				return nil, localIO("closing %s: %w", dir, err)
			}
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, errors.Join(localIO("opening %s: %w", dir, err), lock.Close())
		}
		return &installation{dir: dir, lock: lock, root: root}, nil
	}
}

// makeDir makes the directory of an installation, if it is not there. It appears
// together with a record that says so: one without was there before.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return localIO("making %s: %w", dir, syscall.ENOTDIR)
	} else if err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return localIO("looking at %s: %w", dir, err)
	}
	if err := nodefile.MakeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	coming := partial(dir)
	// What an interrupted run left is of no use.
	if err := os.RemoveAll(coming); err != nil {
		return localIO("removing what was left of %s: %w", dir, err)
	}
	if err := os.Mkdir(coming, 0o755); err != nil {
		return localIO("making %s: %w", dir, err)
	}
	root, err := os.OpenRoot(coming)
	if err != nil {
		return localIO("making %s: %w", dir, err)
	}
	if err := (&installation{dir: coming, root: root}).write(&record{Above: []string{dir}}); err != nil {
		return errors.Join(err, root.Close())
	}
	if err := root.Close(); err != nil {
		return localIO("making %s: %w", dir, err)
	}
	if err := os.Rename(coming, dir); err != nil {
		return localIO("making %s: %w", dir, err)
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}

func (i *installation) Close() error { return errors.Join(i.root.Close(), i.lock.Close()) }

func isAt(f *os.File, dir string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return os.SameFile(have, now), nil
}

// flock waits for the lock until ctx ends.
func flock(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return localIO("locking %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another kata-deploy to leave %s: %w", f.Name(), context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// read gives the record, or nil when there is no installation.
func (i *installation) read() (*record, error) {
	data, err := i.root.ReadFile(recordName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, localIO("reading the installation's record: %w", err)
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", filepath.Join(i.dir, recordName), err))
	}
	if r.SchemaVersion != 1 {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: schemaVersion is %d, this kata-deploy reads 1: clean up with the version that installed", filepath.Join(i.dir, recordName), r.SchemaVersion))
	}
	for _, p := range slices.Concat(r.Files, r.Symlinks, r.Directories) {
		if !filepath.IsLocal(p) {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %q leads out of the installation", filepath.Join(i.dir, recordName), p))
		}
	}
	for _, p := range r.Above {
		if !filepath.IsAbs(p) || !(p == i.dir || strings.HasPrefix(i.dir, p+"/")) {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %q does not lead to the installation", filepath.Join(i.dir, recordName), p))
		}
	}
	return r, nil
}

func (i *installation) write(r *record) error {
	r.SchemaVersion = 1
	for _, list := range []*[]string{&r.Files, &r.Symlinks, &r.Directories} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
		if *list == nil {
			*list = []string{}
		}
	}
	if r.Above == nil {
		r.Above = []string{}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the installation's record: %w", err)
	}
	if err := i.replace(recordName, 0o644, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	}); err != nil {
		return fmt.Errorf("writing the installation's record: %w", err)
	}
	return i.sync(".")
}

// partial is where the file at name is while it is written.
func partial(name string) string {
	return path.Join(path.Dir(name), partialPrefix+path.Base(name))
}

// replace makes name a new file: whoever has the old one open, as a running
// virtual machine does, keeps it.
func (i *installation) replace(name string, mode fs.FileMode, content func(*os.File) error) (err error) {
	tmp := partial(name)
	// What an interrupted run left is of no use.
	if err := i.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localIO("removing what was left of %s: %w", name, err)
	}
	f, err := i.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localIO("making %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreAbsent(i.root.Remove(tmp)))
		}
	}()
	if err := content(f); err != nil {
		return errors.Join(localIO("writing %s: %w", name, err), f.Close())
	}
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return errors.Join(localIO("writing %s: %w", name, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return localIO("closing %s: %w", name, err)
	}
	if err := i.root.Rename(tmp, name); err != nil {
		return localIO("putting %s in place: %w", name, err)
	}
	return nil
}

// sync makes the names in a directory survive a crash of the machine.
func (i *installation) sync(dir string) error {
	d, err := i.root.Open(dir)
	if err != nil {
		return localIO("opening %s to sync it: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(localIO("syncing %s: %w", dir, err), d.Close())
	}
	return d.Close()
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func localIO(format string, args ...any) error {
	return exitcode.With(exitcode.LocalIO, fmt.Errorf(format, args...))
}
