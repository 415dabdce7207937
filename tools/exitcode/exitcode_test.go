package exitcode_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestOf(t *testing.T) {
	cause := errors.New("registry said no")
	for name, tc := range map[string]struct {
		err  error
		want int
	}{
		"nil":                        {nil, exitcode.OK},
		"plain error":                {cause, exitcode.Failed},
		"coded":                      {exitcode.With(exitcode.Unreachable, cause), exitcode.Unreachable},
		"coded, then wrapped":        {fmt.Errorf("publishing: %w", exitcode.With(exitcode.Unreachable, cause)), exitcode.Unreachable},
		"innermost code wins":        {exitcode.With(exitcode.Failed, exitcode.With(exitcode.BadInput, cause)), exitcode.BadInput},
		"a full disk names itself":   {exitcode.With(exitcode.Failed, fmt.Errorf("writing: %w", syscall.ENOSPC)), exitcode.LocalIO},
		"a coded nil stays no error": {exitcode.With(exitcode.BadInput, nil), exitcode.OK},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, exitcode.Of(tc.err))
		})
	}
}

func TestWithKeepsTheCause(t *testing.T) {
	cause := errors.New("registry said no")
	require.ErrorIs(t, exitcode.With(exitcode.Unreachable, cause), cause)
	require.EqualError(t, exitcode.With(exitcode.Unreachable, cause), "registry said no")
}
