// Package nydus sets up the nydus snapshotter of an installation on a node, for guests
// that pull their images themselves, and takes it away again. It is a service of the
// node's systemd, and containerd reaches it by a socket.
package nydus

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
	"strings"

	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// UnitDirectory is where a node's own units are.
	UnitDirectory = "/etc/systemd/system"
	// Name is what shims are mapped to that use it.
	Name = "nydus"

	// service is upstream's name of the unit, and of the directories below /run and
	// /var/lib.
	service = "nydus-for-kata-tee"
	// Below an installation.
	program       = "nydus-snapshotter/containerd-nydus-grpc"
	mounter       = "nydus-snapshotter/nydus-overlayfs"
	configuration = "nydus-snapshotter/config-guest-pulling.toml"
)

// Services is the node's systemd. It is systemd.Manager.
type Services interface {
	Enable(ctx context.Context, unit string) error
	Disable(ctx context.Context, unit string) error
	Start(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Reload(ctx context.Context) error
}

// Snapshotter is that of one installation.
type Snapshotter struct {
	// Installation is the directory of the artefacts.
	Installation string
	// Suffix tells the installation from others on the node.
	Suffix string
	// UnitDirectory is that of the node.
	UnitDirectory string
	Services      Services
}

// Plugin is the snapshotter's name in containerd.
func Plugin(suffix string) string { return with(Name, suffix) }

// Socket is where it listens.
func Socket(suffix string) string {
	return filepath.Join("/run", with(service, suffix), "containerd-nydus-grpc.sock")
}

func with(name, suffix string) string {
	if suffix == "" {
		return name
	}
	return name + "-" + suffix
}

// Check says whether a directory of artefacts has it.
func Check(artifacts string) error {
	_, err := os.Stat(filepath.Join(artifacts, program))
	if errors.Is(err, fs.ErrNotExist) {
		return exitcode.With(exitcode.BadInput, errors.New("this payload has no nydus snapshotter to set up: its guests pull no images themselves"))
	} else if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for the nydus snapshotter: %w", err))
	}
	return nil
}

// Unit is the name of its unit.
func (s *Snapshotter) Unit() string { return with(service, s.Suffix) + ".service" }

func (s *Snapshotter) file() string { return filepath.Join(s.UnitDirectory, s.Unit()) }

// Install makes the node run it, now and after each start. With restart, or if there is
// another one than before, it is started again.
func (s *Snapshotter) Install(ctx context.Context, restart bool) (changed bool, err error) {
	unit, err := s.content()
	if err != nil {
		return false, err
	}
	if changed, err = nodefile.Replace(s.file(), unit); err != nil {
		return changed, err
	}
	if err := s.Services.Enable(ctx, s.Unit()); err != nil {
		return changed, err
	}
	if changed || restart {
		return changed, s.Services.Restart(ctx, s.Unit())
	}
	return false, s.Services.Start(ctx, s.Unit())
}

// Remove stops it and takes its unit away. What it stored stays, in case that pods of it
// are still there.
func (s *Snapshotter) Remove(ctx context.Context) (removed bool, err error) {
	there, err := nodefile.Read(s.file())
	if err != nil || there == nil {
		return false, err
	}
	if err := s.Services.Disable(ctx, s.Unit()); err != nil {
		return false, err
	}
	if removed, err = nodefile.Remove(s.file()); err != nil {
		return removed, err
	}
	return removed, s.Services.Reload(ctx)
}

// content is the unit. It has a digest of what it starts, so that a new payload makes a
// new unit.
func (s *Snapshotter) content() ([]byte, error) {
	sum := sha256.New()
	for _, name := range []string{program, mounter, configuration} {
		if err := add(sum, filepath.Join(s.Installation, name)); err != nil {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the nydus snapshotter: %w", err))
		}
	}
	name := with(service, s.Suffix)
	return []byte(strings.Join([]string{
		handler.Header + "[Unit]",
		"Description=Snapshotter for guests that pull their images themselves",
		"# containerd asks its snapshotters as it starts.",
		"Before=containerd.service",
		"X-Kata-Deploy=sha256:" + hex.EncodeToString(sum.Sum(nil)),
		"",
		"[Service]",
		"ExecStart=" + filepath.Join(s.Installation, program) +
			" --config " + filepath.Join(s.Installation, configuration) +
			// What containerd mounts a root with, by the node's mount.fuse, where it looks
			// into an image itself.
			" --nydus-overlayfs-path " + filepath.Join(s.Installation, mounter) +
			" --root " + filepath.Join("/var/lib", name) +
			" --address " + Socket(s.Suffix),
		"# With the socket in it, it goes when nothing runs.",
		"RuntimeDirectory=" + name,
		"RuntimeDirectoryMode=0700",
		"Restart=always",
		"RestartSec=1",
		"# Mounts of running sandboxes outlive it.",
		"KillMode=process",
		"",
		"[Install]",
		"WantedBy=multi-user.target",
		"",
	}, "\n")), nil
}

func add(sum io.Writer, name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(sum, f)
	return err
}
