package containerd

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const ours = "/opt/kata/containerd/config.d/kata-deploy.toml"

func TestImports(t *testing.T) {
	for name, tc := range map[string]struct{ before, after string }{
		"an empty file":    {"", `imports = ["` + ours + `"]` + "\n"},
		"no list":          {"version = 2\n[plugins]\n", `imports = ["` + ours + `"]` + "\nversion = 2\n[plugins]\n"},
		"an empty list":    {"imports = [ ]\n", `imports = [ "` + ours + `"]` + "\n"},
		"one":              {"version = 3\nimports = ['/a/*.toml'] # all\n", "version = 3\nimports = ['/a/*.toml', \"" + ours + "\"] # all\n"},
		"a trailing comma": {"imports = [\n  \"/a\",\n  # mine\n]\n", "imports = [\n  \"/a\", \"" + ours + "\",\n  # mine\n]\n"},
		"odd writing": {
			"# first\nroot=\"/x\"\n\"imports\"=[\"\\u002fa\"]\r\n[ 'plugins' . a ]\nimports = 1",
			"# first\nroot=\"/x\"\n\"imports\"=[\"\\u002fa\", \"" + ours + "\"]\r\n[ 'plugins' . a ]\nimports = 1",
		},
		"dotted keys": {"a.imports = [1]\nimports.b = 2\n", ""},
		"a table's":   {"[plugins]\nimports = []\n", `imports = ["` + ours + `"]` + "\n[plugins]\nimports = []\n"},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := addImport([]byte(tc.before), ours)
			if tc.after == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.after, string(after))
			d, err := parse(after)
			require.NoError(t, err)
			require.Contains(t, d.Imports, ours)
			again, err := addImport(after, ours)
			require.NoError(t, err)
			require.Equal(t, tc.after, string(again))
			without, err := removeImport(after, ours)
			require.NoError(t, err)
			d, err = parse(without)
			require.NoError(t, err)
			require.NotContains(t, d.Imports, ours)
			if name != "an empty list" {
				require.Equal(t, tc.before, string(without))
			}
		})
	}
}

func TestRemoveImport(t *testing.T) {
	for name, tc := range map[string]struct{ before, after string }{
		"not there":            {"imports = ['/a']\n", "imports = ['/a']\n"},
		"no list":              {"version = 2\n", "version = 2\n"},
		"the first of two":     {"imports = ['" + ours + "' , '/a']\n", "imports = ['/a']\n"},
		"between two":          {"imports = ['/a', '" + ours + "', '/b']\n", "imports = ['/a', '/b']\n"},
		"a comment before it":  {"imports = ['/a', # a\n '" + ours + "', '/b']\n", "imports = ['/a', # a\n '/b']\n"},
		"comments around it":   {"imports = ['/a', # a\n '" + ours + "' , # b\n '/b']\n", "imports = ['/a', # a\n  # b\n '/b']\n"},
		"the only one, theirs": {"version = 2\nimports = ['" + ours + "']\n", "version = 2\nimports = []\n"},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := removeImport([]byte(tc.before), ours)
			require.NoError(t, err)
			require.Equal(t, tc.after, string(after))
		})
	}
}

func TestParse(t *testing.T) {
	d, err := parse([]byte("[plugins.cri]\n"))
	require.NoError(t, err)
	require.Equal(t, 1, d.Version, "without a version it is of the first schema")
	for config, want := range map[string]string{
		"version = 2\nimports = [\n":  "config.toml:2:12: ",
		"version = \"two\"\n":         "config.toml:1:11: ",
		"version = 0\n":               "version = 0: there is no such configuration",
		"imports = 'a'\n":             "config.toml:1:",
		"imports = ['a']\nimports=[]": "config.toml:2:",
	} {
		_, err := parse([]byte(config))
		require.ErrorContains(t, broken("config.toml", err), want, config)
	}
	_, err = addImport([]byte("imports = [\n"), ours)
	require.Error(t, err)
	_, err = addImport([]byte("imports = [1]\n"), ours)
	require.ErrorContains(t, err, "not a list of strings")
}
