package ovmf_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTrim(t *testing.T) {
	for _, tt := range []struct {
		name, list, in, out, err string
	}{
		{
			name: "a line of a flash description",
			list: "# why\nPkg/Usb/Usb.inf\n",
			in:   "INF  Pkg/Core/Core.inf\nINF  Pkg/Usb/Usb.inf\n",
			out:  "INF  Pkg/Core/Core.inf\n",
		},
		{
			name: "a module with a block of its own",
			list: "Pkg/Ui/Ui.inf\n",
			in:   "  Pkg/Ui/Ui.inf {\n    <LibraryClasses>\n      NULL|Pkg/A.inf\n  }\n  Pkg/Core/Core.inf {\n    <LibraryClasses>\n  }\n",
			out:  "  Pkg/Core/Core.inf {\n    <LibraryClasses>\n  }\n",
		},
		{
			name: "line ends are made those of this system",
			list: "Pkg/Usb/Usb.inf\n",
			in:   "INF  Pkg/Usb/Usb.inf\r\nINF  Pkg/Core/Core.inf\r\n",
			out:  "INF  Pkg/Core/Core.inf\n",
		},
		{
			name: "a name that only begins alike stays",
			list: "Pkg/Usb/Usb.inf\n",
			in:   "INF Pkg/Usb/Usb.inf\nINF Pkg/Usb/Usb.inf2\n",
			out:  "INF Pkg/Usb/Usb.inf2\n",
		},
		{
			name: "a module that is not there",
			list: "Pkg/Gone/Gone.inf\n",
			in:   "INF  Pkg/Core/Core.inf\n",
			out:  "INF  Pkg/Core/Core.inf\n",
			err:  "does not have Pkg/Gone/Gone.inf",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			list, in := filepath.Join(folder, "list"), filepath.Join(folder, "in.fdf")
			require.NoError(t, os.WriteFile(list, []byte(tt.list), 0o600))
			require.NoError(t, os.WriteFile(in, []byte(tt.in), 0o600))
			var stdout, stderr bytes.Buffer
			cmd := exec.Command("bash", "trim.sh", list, in)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			require.Equal(t, tt.out, stdout.String())
			if tt.err == "" {
				require.NoError(t, err, stderr.String())
				return
			}
			require.Error(t, err)
			require.Contains(t, stderr.String(), tt.err)
		})
	}
}
