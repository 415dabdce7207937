//go:build tools

package lint

// The checks of staticcheck.bzl, so that go.mod knows their module.
import _ "honnef.co/go/tools/staticcheck"
