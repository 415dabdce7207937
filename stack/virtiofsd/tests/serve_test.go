//go:build bazel

// The test of this package starts the built program as Kata's runtime does, and
// asks it what a hypervisor asks first.
package tests_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/layer"
)

// layerVariable names the component's layer, a runfile.
const layerVariable = "KILN_LAYER"

// program unpacks the component, and gives the program that a node would run.
func program(t *testing.T) string {
	t.Helper()
	name, err := runfiles.Rlocation(os.Getenv(layerVariable))
	require.NoError(t, err)
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	root := t.TempDir()
	require.NoError(t, layer.Extract(t.Context(), file, root))
	return filepath.Join(root, "opt/kata-artifacts/opt/kata/libexec/virtiofsd")
}

// A request or reply of the protocol vhost-user: this header, then size bytes.
type header struct {
	Request, Flags, Size uint32
}

const (
	// getFeatures is VHOST_USER_GET_FEATURES, which has no content and is answered by
	// 64 bits.
	getFeatures = 1
	// Flags: the version of the protocol, and that of a reply.
	protocolVersion = 0x1
	isReply         = 0x4
	// Bits of the answer: VHOST_USER_F_PROTOCOL_FEATURES, without which QEMU takes no
	// device for a file system, and VIRTIO_F_VERSION_1.
	protocolFeatures = 1 << 30
	version1         = 1 << 32
)

func TestServe(t *testing.T) {
	virtiofsd := program(t)
	dir := t.TempDir()
	// The socket's path would be too long where Bazel makes directories.
	t.Chdir(dir)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: "vhost-fs.sock", Net: "unix"})
	require.NoError(t, err)
	defer listener.Close()
	inherited, err := listener.File()
	require.NoError(t, err)
	defer inherited.Close()

	// The runtime's arguments with its defaults, but for two: a test has no syslog, and may
	// have no right to namespaces of its own.
	cmd := exec.CommandContext(t.Context(), virtiofsd, "--cache=auto", "--shared-dir="+dir, "--fd=3", "--thread-pool-size=1", "--announce-submounts", "--sandbox=none")
	cmd.ExtraFiles = []*os.File{inherited}
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("virtiofsd: %s", &log)
		}
	})

	conn, err := net.Dial("unix", "vhost-fs.sock")
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	require.NoError(t, binary.Write(conn, binary.LittleEndian, header{Request: getFeatures, Flags: protocolVersion}))
	var reply struct {
		Header   header
		Features uint64
	}
	require.NoError(t, binary.Read(conn, binary.LittleEndian, &reply))
	require.Equal(t, header{Request: getFeatures, Flags: protocolVersion | isReply, Size: 8}, reply.Header)
	require.Equal(t, uint64(protocolFeatures|version1), reply.Features&(protocolFeatures|version1))

	// It serves one hypervisor, and goes with it.
	require.NoError(t, conn.Close())
	select {
	case err := <-ended:
		require.NoError(t, err, log.String())
	case <-time.After(time.Minute):
		require.Fail(t, "virtiofsd outlives the hypervisor")
	}
}
