// Package containerd makes the containerd of a node know the runtime handlers of
// an installation, and forget them again. It writes one file, which containerd
// imports; only where nothing makes it do so is containerd's own configuration
// changed, by one entry of one list. All else in there stays as it is, to the byte.
//
// What was there is written down before it is changed, so that after an
// interruption at any moment the same call goes on, and removal gives back what
// was there.
package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// record is what an installation changed.
type record struct {
	SchemaVersion int `json:"schemaVersion"`
	// DropIn is the file that was written. The node may have changed since, so
	// that today it would be another one.
	DropIn string `json:"dropIn"`
	// Config is containerd's configuration, if it is one that was changed.
	Config string `json:"config,omitempty"`
	// Created says that there was none.
	Created bool `json:"created,omitempty"`
	// Before is what it held, After what it was made to hold.
	Before []byte `json:"before,omitempty"`
	After  []byte `json:"after,omitempty"`
}

// Install makes containerd know the handlers, and the sockets of snapshotters by their
// names. It tells whether anything changed, so that containerd must be started again.
func (l *Layout) Install(ctx context.Context, handlers []handler.Handler, snapshotters map[string]string) (changed bool, err error) {
	dropIn, err := DropIn(l.Schema, handlers, snapshotters)
	if err != nil {
		return false, err
	}
	old, err := l.read()
	if err != nil {
		return false, err
	}
	if old != nil && old.DropIn != l.DropIn {
		// Before the new one, which may have another place for the same handlers.
		if changed, err = l.Remove(ctx); err != nil {
			return changed, err
		}
		old = nil
	}
	if old == nil {
		old = &record{}
	}
	r := &record{SchemaVersion: 1, DropIn: l.DropIn, Config: l.Config}
	var current []byte
	if l.Config != "" {
		current, err = nodefile.Read(l.Config)
		if err != nil {
			return false, err
		}
		r.Created, r.Before = current == nil, current
		switch {
		case old.Config == l.Config && current != nil && bytes.Equal(current, old.After):
			// What is there is ours.
			r.Created, r.Before = old.Created, old.Before
		case current != nil:
			// Somebody changed it since, or never had this import.
			if r.Before, err = removeImport(current, l.DropIn); err != nil {
				return false, broken(l.Config, err)
			}
		}
		base := current
		if base == nil {
			base = created(l.Schema)
		}
		if r.After, err = addImport(base, l.DropIn); err != nil {
			return false, broken(l.Config, err)
		}
	}
	if err := nodefile.MakeDir(filepath.Dir(l.record)); err != nil {
		return false, err
	}
	if err := l.write(r); err != nil {
		return false, err
	}
	for _, dir := range r.directories() {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		if err := nodefile.MakeDir(dir); err != nil {
			return false, err
		}
	}
	// The file first: an import of what is not there stops containerd.
	for _, file := range []struct {
		name    string
		content []byte
	}{{l.DropIn, dropIn}, {l.Config, r.After}} {
		if file.name == "" {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return changed, err
		}
		did, err := nodefile.Replace(file.name, file.content)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

// Remove makes containerd forget what Install told it, and gives back what was
// there. It tells whether anything changed.
func (l *Layout) Remove(ctx context.Context) (changed bool, err error) {
	r, err := l.read()
	if err != nil {
		return false, err
	}
	if r == nil {
		r = &record{DropIn: l.DropIn}
	}
	if r.Config != "" {
		if changed, err = l.restore(r); err != nil {
			return changed, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return changed, err
	}
	removed, err := nodefile.Remove(r.DropIn)
	if err != nil {
		return changed, err
	}
	// The record goes last, but for the directories, which tell by themselves
	// whether they are ours.
	if _, err := nodefile.Remove(l.record); err != nil {
		return changed, err
	}
	for _, dir := range append(r.directories(), filepath.Dir(l.record)) {
		if err := nodefile.RemoveDir(dir); err != nil {
			return changed, err
		}
	}
	return changed || removed, nil
}

// directories are those that files are put into.
func (r *record) directories() []string {
	dirs := []string{filepath.Dir(r.DropIn)}
	if r.Config != "" {
		dirs = append(dirs, filepath.Dir(r.Config))
	}
	return dirs
}

// restore gives containerd's configuration back.
func (l *Layout) restore(r *record) (changed bool, err error) {
	current, err := nodefile.Read(r.Config)
	if err != nil || current == nil {
		return false, err
	}
	if bytes.Equal(current, r.After) {
		if r.Created {
			return nodefile.Remove(r.Config)
		}
		return nodefile.Replace(r.Config, r.Before)
	}
	// Somebody changed it since, or Install did not get that far.
	without, err := removeImport(current, r.DropIn)
	if err != nil {
		return false, broken(r.Config, err)
	}
	if bytes.Equal(without, created(l.Schema)) {
		// Another installation, which is gone, made it.
		return nodefile.Remove(r.Config)
	}
	return nodefile.Replace(r.Config, without)
}

// created is the configuration that is made where there is none, without its
// import.
func created(schema int) []byte {
	return fmt.Appendf(nil, "# Made by kata-deploy, since there was none. It goes when the last import does.\nversion = %d\n", schema)
}

// broken says where a configuration cannot be read.
func broken(config string, err error) error {
	where := config
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		where = fmt.Sprintf("%s:%d:%d", config, line, column)
	}
	return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w: mend it, nothing was changed", where, err))
}

func (l *Layout) read() (*record, error) {
	data, err := nodefile.Read(l.record)
	if err != nil || data == nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", l.record, err))
	}
	if r.SchemaVersion != 1 {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: schemaVersion is %d, this kata-deploy reads 1: clean up with the version that installed", l.record, r.SchemaVersion))
	}
	return r, nil
}

func (l *Layout) write(r *record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing down what is changed: %w", err)
	}
	_, err = nodefile.Replace(l.record, append(data, '\n'))
	return err
}
