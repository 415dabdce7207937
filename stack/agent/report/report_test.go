package report_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/report"
)

func TestWriteThenFind(t *testing.T) {
	want := &report.Report{
		SchemaVersion: report.SchemaVersion,
		OK:            true,
		Kernel:        report.Kernel{CommandLine: `dm-mod.create="dm-verity,,,ro,0 8 verity"`},
		Checks:        []report.Check{{Name: report.CheckVerity, OK: true, Detail: "verified"}},
	}
	var console bytes.Buffer
	console.WriteString("[    0.1] a message without its end")
	require.NoError(t, report.Write(&console, want))
	console.WriteString("[    0.2] later\r\n")

	got, err := report.Find(&console)
	require.NoError(t, err)
	require.Equal(t, want, got)
	check, found := got.Check(report.CheckVerity)
	require.True(t, found)
	require.Equal(t, "verified", check.Detail)
	_, found = got.Check("no-such-check")
	require.False(t, found)
}

func TestFindFails(t *testing.T) {
	for _, test := range []struct {
		name, console, wantErr string
	}{
		{"nothing", "Linux version 6.12\nKernel panic\n", "no agent report"},
		{"cut in the middle", report.Marker + `{"schemaVersion":1,`, "decoding the agent report"},
		{"another schema", report.Marker + `{"schemaVersion":99}`, "schema version 99, want 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := report.Find(strings.NewReader(test.console))
			require.ErrorContains(t, err, test.wantErr)
		})
	}
}

// The serial console ends its lines with a carriage return.
func TestParseTakesCarriageReturns(t *testing.T) {
	r, ok, err := report.Parse(report.Marker + `{"schemaVersion":1,"ok":true}` + "\r")
	require.NoError(t, err)
	require.True(t, ok)
	require.True(t, r.OK)
}
