package kernel_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run runs a script of this folder and returns what it printed and its exit code.
func run(t *testing.T, script string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("bash", append([]string{script}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		code = exit.ExitCode()
	}
	return out.String(), errs.String(), code
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestEffectiveConfig(t *testing.T) {
	for _, tt := range []struct {
		name, in, out, err string
		code               int
	}{
		{
			name: "comments and empty lines say nothing",
			in:   "# why\n\nCONFIG_A=y\n  # indented\n# CONFIG_B is not set\n",
			out:  "CONFIG_A=y\n# CONFIG_B is not set\n",
		},
		{
			name: "the last word on an option counts",
			in:   "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_A is not set\nCONFIG_C=\"x y\"\nCONFIG_C=\"\"\n",
			out:  "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=\"\"\n",
		},
		{
			name: "what is no option is refused with its place",
			in:   "CONFIG_A=y\nCONFIG B=y\n",
			err:  "asked:2: not a kernel option: CONFIG B=y\n",
			code: 2,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := run(t, "effective-config.sh", write(t, "asked", tt.in))
			require.Equal(t, tt.code, code)
			require.Equal(t, tt.out, stdout)
			if tt.err == "" {
				require.Empty(t, stderr)
			} else {
				require.Contains(t, stderr, tt.err)
			}
		})
	}
}

func TestCheckConfig(t *testing.T) {
	const config = "CONFIG_ON=y\nCONFIG_TEXT=\"a\"\nCONFIG_NUMBER=240\n# CONFIG_OFF is not set\n"
	for _, tt := range []struct {
		name, asked string
		lost        []string
	}{
		{name: "all held", asked: "CONFIG_ON=y\nCONFIG_TEXT=\"a\"\nCONFIG_NUMBER=240\n# CONFIG_OFF is not set\n# CONFIG_ABSENT is not set\nCONFIG_ABSENT2=n\n"},
		{name: "asked on, is off", asked: "CONFIG_ON=y\nCONFIG_OFF=y\n", lost: []string{"asked CONFIG_OFF=y, got # CONFIG_OFF is not set\n"}},
		{name: "asked on, does not exist", asked: "CONFIG_GONE=y\n", lost: []string{"asked CONFIG_GONE=y, got # CONFIG_GONE is not set (no such option"}},
		{name: "asked off, is on", asked: "# CONFIG_ON is not set\n", lost: []string{"asked # CONFIG_ON is not set, got CONFIG_ON=y\n"}},
		{name: "another value", asked: "CONFIG_TEXT=\"b\"\nCONFIG_NUMBER=8\n", lost: []string{
			"asked CONFIG_TEXT=\"b\", got CONFIG_TEXT=\"a\"\n",
			"asked CONFIG_NUMBER=8, got CONFIG_NUMBER=240\n",
		}},
		{name: "every one is named", asked: "CONFIG_OFF=y\nCONFIG_GONE=y\n", lost: []string{"CONFIG_OFF=y", "CONFIG_GONE=y"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, code := run(t, "check-config.sh", write(t, "asked", tt.asked), write(t, "config", config))
			if len(tt.lost) == 0 {
				require.Zero(t, code)
				require.Empty(t, stderr)
				return
			}
			require.Equal(t, 1, code)
			for _, lost := range tt.lost {
				require.Contains(t, stderr, lost)
			}
			require.Equal(t, len(tt.lost), strings.Count(stderr, "asked "))
		})
	}
}

// TestFragments keeps the fragments free of contradictions: with each option asked in one place
// only, the order in which they are joined does not matter.
func TestFragments(t *testing.T) {
	common, err := filepath.Glob("fragments/*.config")
	require.NoError(t, err)
	require.NotEmpty(t, common)
	for arch, options := range map[string][]string{
		"arm64":   {"CONFIG_SERIAL_AMBA_PL011"},
		"powerpc": {"CONFIG_PPC_PSERIES"},
		"s390":    {"CONFIG_S390_GUEST", "CONFIG_S390_UV_UAPI"},
		"x86_64":  {"CONFIG_INTEL_TDX_GUEST", "CONFIG_SEV_GUEST"},
	} {
		t.Run(arch, func(t *testing.T) {
			own, err := filepath.Glob(filepath.Join("fragments", arch, "*.config"))
			require.NoError(t, err)
			require.NotEmpty(t, own)
			where := asked(t, append(own, common...))
			for _, name := range append(options, "CONFIG_DM_INIT", "CONFIG_VIRTIO_VSOCKETS") {
				require.Contains(t, where, name)
			}
		})
	}
}

// asked gives the fragment that asks for each option.
func asked(t *testing.T, fragments []string) map[string]string {
	t.Helper()
	where := map[string]string{}
	for _, fragment := range fragments {
		content, err := os.ReadFile(fragment)
		require.NoError(t, err)
		stdout, stderr, code := run(t, "effective-config.sh", fragment)
		require.Zero(t, code, stderr)
		require.NotEmpty(t, stdout, "%s asks for nothing", fragment)
		options := 0
		for _, line := range strings.Split(string(content), "\n") {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "# "), "=")
			name, _, _ = strings.Cut(name, " ")
			if !strings.HasPrefix(name, "CONFIG_") {
				continue
			}
			options++
			require.Empty(t, where[name], "%s is asked in %s and in %s", name, where[name], fragment)
			where[name] = fragment
		}
		require.Equal(t, options, strings.Count(stdout, "\n"))
	}
	return where
}

// TestDebug lets the debug kernel have what it is there for, and none of what every object reads.
// build.sh counts what the other options make again.
func TestDebug(t *testing.T) {
	fragments, err := filepath.Glob("debug/*.config")
	require.NoError(t, err)
	where := asked(t, fragments)
	require.Contains(t, where, "CONFIG_SOFTLOCKUP_DETECTOR")
	require.Contains(t, where, "CONFIG_MAGIC_SYSRQ")
	for _, costly := range []string{"DEBUG_INFO", "DETECT_HUNG_TASK", "FUNCTION_TRACER", "KASAN", "LOCKDEP"} {
		require.NotContains(t, where, "CONFIG_"+costly)
	}
}
