package configuration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/runtimeconfig/configuration"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// TestRender runs every directory of testdata: template.toml.in, the values of
// set.txt, and the image of image.txt or the initrd of initrd.txt, must give want.toml, or an error that begins
// as error.txt says.
func TestRender(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/template.toml.in")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, template := range cases {
		dir := filepath.Dir(template)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(template)
			require.NoError(t, err)
			set := map[string]string{}
			if lines, err := os.ReadFile(filepath.Join(dir, "set.txt")); err == nil {
				for _, line := range strings.Split(strings.TrimSpace(string(lines)), "\n") {
					name, value, ok := strings.Cut(line, "=")
					require.True(t, ok, line)
					set[name] = value
				}
			}
			optional := func(name string) string {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					require.ErrorIs(t, err, fs.ErrNotExist)
				}
				return strings.TrimSpace(string(text))
			}
			got, err := configuration.Render(configuration.Spec{
				Name:     filepath.Base(dir) + "/template.toml.in",
				Template: string(text),
				Defaults: defaults(t, "/opt/kata", "amd64"),
				Set:      set,
				Image:    optional("image.txt"),
				Initrd:   optional("initrd.txt"),
			})
			if wantErr, readErr := os.ReadFile(filepath.Join(dir, "error.txt")); readErr == nil {
				require.Error(t, err)
				require.True(t, strings.HasPrefix(err.Error(), string(wantErr)), "%q does not begin with %q", err, wantErr)
				require.Equal(t, exitcode.BadInput, exitcode.Of(err))
				return
			}
			require.NoError(t, err)
			want, err := os.ReadFile(filepath.Join(dir, "want.toml"))
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

func defaults(t *testing.T, prefix, arch string) map[string]string {
	t.Helper()
	values, err := configuration.Defaults(prefix, arch)
	require.NoError(t, err)
	return values
}

// The default of a variable that stands without quotes in a template must be
// TOML by itself, and one that stands between quotes must not end them.
func TestDefaultsAreTOML(t *testing.T) {
	for _, arch := range configuration.Architectures() {
		for name, value := range defaults(t, "/opt/kata", arch) {
			var document map[string]any
			_, bare := toml.Decode("a = "+value+"\n", &document)
			_, quoted := toml.Decode("a = \""+value+"\"\n", &document)
			require.True(t, bare == nil || quoted == nil, "%s: %s=%s", arch, name, value)
		}
	}
}

func TestDefaultsFollowPrefix(t *testing.T) {
	for _, arch := range configuration.Architectures() {
		for name, value := range defaults(t, "/somewhere", arch) {
			require.NotContains(t, value, "/opt/kata", name)
		}
	}
	require.Equal(t, "/somewhere/share/kata-containers/vmlinuz.container", defaults(t, "/somewhere", "amd64")["KERNELCONFIDENTIALPATH"])
}

func TestDefaultsFollowTheArchitecture(t *testing.T) {
	s390x := defaults(t, "/opt/kata", "s390x")
	require.Equal(t, "/opt/kata/bin/qemu-system-s390x", s390x["QEMUPATH"])
	require.Equal(t, "s390-ccw-virtio", s390x["MACHINETYPE"])
	require.Empty(t, s390x["FIRMWAREPATH"])
	require.Equal(t, "/opt/kata/share/aavmf/AAVMF_CODE.fd", defaults(t, "/opt/kata", "arm64")["FIRMWAREPATH"])

	_, err := configuration.Defaults("/opt/kata", "x86_64")
	require.EqualError(t, err, `unknown architecture "x86_64": it is one of amd64, arm64, ppc64le, s390x`)
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestQuote(t *testing.T) {
	const value = `dm-mod.create="a b" c\d`
	var document map[string]any
	_, err := toml.Decode("a = \""+configuration.Quote(value)+"\"\n", &document)
	require.NoError(t, err)
	require.Equal(t, value, document["a"])
}
