package verdicts_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/plan/verdicts"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestRead(t *testing.T) {
	v, err := verdicts.Read("testdata/events.json")
	require.NoError(t, err)
	require.Equal(t, &verdicts.Verdicts{
		Passed: 2,
		Missing: map[string][]string{
			"snp": {"//tests/snp:boot", "//tests/snp:contract"},
			"tdx": {"//tests/tdx:boot"},
		},
		Skipped: []string{"//tests/tdx:hardware"},
	}, v)
}

func TestReadRefuses(t *testing.T) {
	torn := filepath.Join(t.TempDir(), "torn.json")
	require.NoError(t, os.WriteFile(torn, []byte(`{"id":{"started":{}}}`+"\n"+`{"id":{"test`), 0o600))
	_, err := verdicts.Read(torn)
	require.ErrorContains(t, err, torn)
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))

	crashed := filepath.Join(t.TempDir(), "crashed.json")
	for _, events := range []string{`{"id":{"started":{}}}`, `{"id":{"buildFinished":{}},"finished":{"exitCode":{"name":"CRASH","code":37}}}`} {
		require.NoError(t, os.WriteFile(crashed, []byte(events), 0o600))
		_, err = verdicts.Read(crashed)
		require.ErrorContains(t, err, "Bazel did not get to the end")
		require.Equal(t, exitcode.Failed, exitcode.Of(err))
	}

	_, err = verdicts.Read(filepath.Join(t.TempDir(), "absent.json"))
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}
