package configuration_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/runtimeconfig/configuration"
	"github.com/kiln-build/kiln/tools/exitcode"
)

var (
	rootHash = strings.Repeat("a1", 32)
	salt     = strings.Repeat("5e", 32)
	line     = "root_hash=" + rootHash + ",salt=" + salt + ",data_blocks=25600,data_block_size=4096,hash_block_size=1024\n"
)

func TestVerityKernelParams(t *testing.T) {
	verity, err := configuration.ParseVerity("root_hash.txt", line)
	require.NoError(t, err)
	require.Equal(t, `dm-mod.create="dm-verity,,,ro,0 204800 verity 1 /dev/vda1 /dev/vda2 4096 1024 25600 0 sha256 `+rootHash+" "+salt+`" root=/dev/dm-0`, verity.KernelParams())

	// dm-verity writes an absent salt as a dash.
	verity.Salt = ""
	require.Contains(t, verity.KernelParams(), rootHash+` -" root=`)
}

func TestParseVerityRefuses(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"empty":             {line, "", "root_hash.txt: want exactly one line"},
		"two lines":         {"\n", "\nroot_hash=1\n", "root_hash.txt: want exactly one line"},
		"no value":          {"salt=" + salt, "salt", `root_hash.txt:1: "salt" is not key=value`},
		"missing key":       {",salt=" + salt, "", "root_hash.txt:1: salt is missing"},
		"unknown key":       {"salt=", "pepper=", `root_hash.txt:1: unknown key "pepper"`},
		"key there twice":   {"salt=", "root_hash=", "root_hash.txt:1: root_hash is there twice"},
		"short root hash":   {rootHash, "a1", "root_hash.txt:1: root_hash=a1 is not 64 hex digits"},
		"salt not hex":      {salt, "xyz", "root_hash.txt:1: salt=xyz is not hex"},
		"not a number":      {"=25600", "=many", "root_hash.txt:1: data_blocks=many is not a number"},
		"no blocks":         {"=25600", "=0", "root_hash.txt:1: data_blocks=0"},
		"odd block size":    {"=4096", "=4095", "root_hash.txt:1: data_block_size=4095 is not a power of two from 512 to 65536"},
		"small block size":  {"=1024", "=256", "root_hash.txt:1: hash_block_size=256 is not a power of two from 512 to 65536"},
		"smuggles settings": {salt, salt + `" init=/bin/sh`, "root_hash.txt:1: salt="},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(line, test.old, test.new, 1)
			require.NotEqual(t, line, text)
			_, err := configuration.ParseVerity("root_hash.txt", text)
			require.ErrorContains(t, err, test.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}
