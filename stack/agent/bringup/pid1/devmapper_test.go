package pid1_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/stack/agent/bringup/pid1"
)

// answer writes what the kernel would: a header whose target count and data
// start are set, and one target specification followed by its text.
func answer(request []byte, targets uint32, kind, text string) {
	const start = 312
	binary.NativeEndian.PutUint32(request[16:], start)
	binary.NativeEndian.PutUint32(request[20:], targets)
	copy(request[start+24:], kind)
	copy(request[start+40:], text+"\x00")
}

func TestVerityStatus(t *testing.T) {
	const table = "1 254:1 254:2 4096 4096 100 0 sha256 aa bb"
	dm := pid1.DeviceMapper{Control: func(request []byte) error {
		require.Equal(t, "dm-verity\x00", string(request[48:58]))
		require.EqualValues(t, len(request), binary.NativeEndian.Uint32(request[12:]))
		if binary.NativeEndian.Uint32(request[28:])&(1<<4) != 0 {
			answer(request, 1, "verity", table)
		} else {
			answer(request, 1, "verity", "V")
		}
		return nil
	}}
	status, got, err := dm.VerityStatus("dm-verity")
	require.NoError(t, err)
	require.Equal(t, "V", status)
	require.Equal(t, table, got)
}

func TestVerityStatusFails(t *testing.T) {
	for _, test := range []struct {
		name    string
		control pid1.ControlFunc
		wantErr string
	}{
		{"no such device", func([]byte) error { return unix.ENXIO }, "no such device or address"},
		{"linear", func(b []byte) error { answer(b, 1, "linear", "x"); return nil }, `its target is "linear"`},
		{"no target", func(b []byte) error { answer(b, 0, "", ""); return nil }, "it has 0 targets"},
		{"too long", func(b []byte) error { binary.NativeEndian.PutUint32(b[28:], 1<<8); return nil }, "too long"},
		{"start beyond the buffer", func(b []byte) error {
			answer(b, 1, "verity", "V")
			binary.NativeEndian.PutUint32(b[16:], uint32(len(b)))
			return nil
		}, "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := pid1.DeviceMapper{Control: test.control}.VerityStatus("root")
			require.ErrorContains(t, err, test.wantErr)
			require.ErrorContains(t, err, "root")
		})
	}
}
