package command_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/bootimage/command"
	"github.com/kiln-build/kiln/stack/bootimage/hostkey/hostkeytest"
	"github.com/kiln-build/kiln/stack/bootimage/seimage"
	"github.com/kiln-build/kiln/stack/bootimage/testkey"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// run runs the command in a directory of its own.
func run(t *testing.T, args ...string) (string, error) {
	cmd := command.New()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func file(t *testing.T, name string, data []byte) {
	require.NoError(t, os.WriteFile(name, data, 0o600))
}

// inputs makes all that an image needs but host keys, in a new directory.
func inputs(t *testing.T) []string {
	t.Chdir(t.TempDir())
	kernel := bytes.Repeat([]byte{0xa7}, 0x12345)
	copy(kernel[0x10008:], "S390EP")
	binary.BigEndian.PutUint64(kernel[0x10430:], 4096)
	file(t, "kernel", kernel)
	file(t, "initrd", []byte("an initrd"))
	file(t, "cmdline", []byte("panic=1\n"))
	file(t, "stage3a.bin", make([]byte, 5000))
	file(t, "stage3b.bin", make([]byte, 2000))
	document, err := testkey.Document()
	require.NoError(t, err)
	file(t, "test.crt", document)
	return []string{
		"create", "--image=kernel", "--ramdisk=initrd", "--parmfile=cmdline",
		"--stage3a=stage3a.bin", "--stage3b=stage3b.bin", "--output=image",
	}
}

func open(t *testing.T) *seimage.Parts {
	img, err := os.ReadFile("image")
	require.NoError(t, err)
	key, err := testkey.Key()
	require.NoError(t, err)
	parts, err := seimage.Open(img, key)
	require.NoError(t, err)
	return parts
}

func TestCreateForTheTestKey(t *testing.T) {
	args := append(inputs(t), "--host-key-document=test.crt", "--header=header")
	_, err := run(t, args...)
	require.NoError(t, err)
	parts := open(t)
	require.Equal(t, "an initrd", string(parts.Initrd))
	require.Equal(t, "panic=1", parts.CommandLine)

	img, err := os.ReadFile("image")
	require.NoError(t, err)
	header, err := os.ReadFile("header")
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(img[0x14000:], header))

	out, err := run(t, "inspect", "image", "--host-key-document=test.crt")
	require.NoError(t, err)
	var summary struct {
		HostKeys []string
		TestKey  bool
	}
	require.NoError(t, json.Unmarshal([]byte(out), &summary))
	require.Len(t, summary.HostKeys, 1)
	require.True(t, summary.TestKey)
}

// What is no secret anyway is made the same way twice.
func TestAnImageForTheTestKeyIsReproducible(t *testing.T) {
	args := append(inputs(t), "--host-key-document=test.crt")
	make := func() []byte {
		_, err := run(t, args...)
		require.NoError(t, err)
		img, err := os.ReadFile("image")
		require.NoError(t, err)
		return img
	}
	first := make()
	require.Equal(t, first, make())
	file(t, "cmdline", []byte("panic=2\n"))
	require.NotEqual(t, first[0x14000:0x14280], make()[0x14000:0x14280])
}

func TestCreateForMachines(t *testing.T) {
	chain := hostkeytest.New(t)
	document, key := chain.Signing.Document()
	args := append(inputs(t), "--no-verify", "--host-key-document=HKD-1.crt")
	file(t, "HKD-1.crt", document.PEM())
	var images [][]byte
	for range 2 {
		_, err := run(t, args...)
		require.NoError(t, err)
		img, err := os.ReadFile("image")
		require.NoError(t, err)
		_, err = seimage.Open(img, key)
		require.NoError(t, err)
		images = append(images, img)
	}
	require.NotEqual(t, images[0][0x14000:0x14280], images[1][0x14000:0x14280], "the keys of an image for machines are random")

	out, err := run(t, "inspect", "image", "--host-key-document=HKD-1.crt")
	require.NoError(t, err)
	require.Contains(t, out, `"testKey": false`)
	_, err = run(t, "inspect", "image", "--host-key-document=test.crt")
	require.ErrorContains(t, err, "image cannot be started with the host key of test.crt")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
}

func TestCreateForMachinesThatIBMVouchesFor(t *testing.T) {
	chain := hostkeytest.New(t)
	document, key := chain.Signing.Document()
	args := append(inputs(t), "--host-key-document=HKD-1.crt")
	file(t, "HKD-1.crt", document.PEM())
	for name, data := range chain.Files() {
		file(t, name, data)
		args = append(args, "--cert="+name)
	}
	_, err := run(t, args...)
	require.NoError(t, err)
	img, err := os.ReadFile("image")
	require.NoError(t, err)
	_, err = seimage.Open(img, key)
	require.NoError(t, err)
}

func TestCreateRefuses(t *testing.T) {
	chain := hostkeytest.New(t)
	document, _ := chain.Signing.Document()
	for name, tt := range map[string]struct {
		change func()
		args   []string
		err    string
		code   int
	}{
		"an empty document": {
			change: func() { file(t, "HKD-1.crt", nil) },
			args:   []string{"--host-key-document=HKD-1.crt"},
			err:    "HKD-1.crt is empty: it must be a certificate or a revocation list, in PEM or DER",
			code:   exitcode.BadInput,
		},
		"no document": {
			err:  "an image is not made without --host-key-document",
			code: exitcode.BadInput,
		},
		"a document that is not there": {
			args: []string{"--host-key-document=gone.crt"},
			err:  "gone.crt",
			code: exitcode.BadInput,
		},
		"a kernel for another machine": {
			change: func() { file(t, "kernel", make([]byte, 0x20000)) },
			args:   []string{"--host-key-document=test.crt"},
			err:    "image of kernel, initrd and cmdline: the kernel is no bzImage for s390x",
			code:   exitcode.BadInput,
		},
		"an empty initrd": {
			change: func() { file(t, "initrd", nil) },
			args:   []string{"--host-key-document=test.crt"},
			err:    "the initrd is empty",
			code:   exitcode.BadInput,
		},
		"a machine's document that nobody vouches for": {
			args: []string{"--host-key-document=HKD-1.crt"},
			err:  "nothing vouches for the host key documents",
			code: exitcode.BadInput,
		},
		"certificates that are not used": {
			args: []string{"--host-key-document=HKD-1.crt", "--no-verify", "--cert=signing.crt"},
			err:  "give one of both",
			code: exitcode.BadInput,
		},
		"certificates that do not vouch": {
			change: func() { file(t, "signing.crt", chain.Signing.PEM()) },
			args:   []string{"--host-key-document=HKD-1.crt", "--cert=signing.crt"},
			err:    "host key document HKD-1.crt: no certificate is that of a root authority",
			code:   exitcode.Unverified,
		},
		"the test key beside a machine's": {
			args: []string{"--host-key-document=HKD-1.crt", "--host-key-document=test.crt", "--no-verify"},
			err:  "whose private key everybody has",
			code: exitcode.BadInput,
		},
		"a machine twice": {
			args: []string{"--host-key-document=HKD-1.crt", "--host-key-document=HKD-1.crt", "--no-verify"},
			err:  "are for the same key",
			code: exitcode.BadInput,
		},
		"a flag that there is not": {
			args: []string{"--offline"},
			err:  "unknown flag",
			code: exitcode.BadInput,
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(inputs(t), tt.args...)
			file(t, "HKD-1.crt", document.PEM())
			if tt.change != nil {
				tt.change()
			}
			_, err := run(t, args...)
			require.ErrorContains(t, err, tt.err)
			require.Equal(t, tt.code, exitcode.Of(err))
			left, err := filepath.Glob("*image*")
			require.NoError(t, err)
			require.Empty(t, left, "nothing is left of an image")
		})
	}
}

func TestInspectRefusesWhatIsNoImage(t *testing.T) {
	inputs(t)
	for _, name := range []string{"kernel", "initrd", "test.crt"} {
		_, err := run(t, "inspect", name)
		require.ErrorContains(t, err, name+": not a boot image for Secure Execution")
		require.Equal(t, exitcode.Unverified, exitcode.Of(err))
	}
}

func TestTestkey(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := run(t, "testkey", "out.crt")
	require.NoError(t, err)
	got, err := os.ReadFile("out.crt")
	require.NoError(t, err)
	want, err := testkey.Document()
	require.NoError(t, err)
	require.Equal(t, want, got)
}
