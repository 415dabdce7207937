"""Unit tests of what is said about the go command's errors."""

load("@bazel_skylib//lib:unittest.bzl", "asserts", "unittest")
load("//tools/gomod/private:goerrors.bzl", "explain")

_GO_SUM = """\
example.com/a/b v1.0.0 h1:aaa=
example.com/a/b v1.0.0/go.mod h1:bbb=
example.com/c v1.2.3 h1:ccc=
"""

_MISMATCH = """\
go: downloading example.com/c v1.2.3
verifying example.com/c@v1.2.3: checksum mismatch
\tdownloaded: h1:xxx=
\tgo.sum:     h1:ccc=

SECURITY ERROR
This download does NOT match an earlier download recorded in go.sum.
"""

_MISMATCH_GO_MOD = """\
verifying example.com/a/b@v1.0.0/go.mod: checksum mismatch
\tdownloaded: h1:yyy=
\tgo.sum:     h1:bbb=
"""

_REFUSED = """\
go: downloading example.com/a/b v1.0.0
go: example.com/a/b/cmd/x: example.com/a/b@v1.0.0: Get "http://proxy.test/example.com/a/b/@v/v1.0.0.zip": dial tcp: connection refused
go: example.com/a/b/cmd/y: example.com/a/b@v1.0.0: Get "http://proxy.test/example.com/a/b/@v/v1.0.0.zip": dial tcp: connection refused
"""

_MISSING = """\
go: example.com/a/b/cmd/x imports
\texample.com/d: missing go.sum entry for module providing package example.com/d (imported by example.com/a/b/cmd/x); to add:
\tgo get example.com/a/b/cmd/x@v1.0.0
"""

def _explain_impl(ctx):
    env = unittest.begin(ctx)
    for stderr, want in {
        "go: example.com/a/b@v1.0.0: reading https://proxy.test/x: 404 Not Found": "cannot fetch example.com/a/b@v1.0.0: the module proxy (GOPROXY, as `go env` shows it) did not answer or refused: go: example.com",
        "go: example.com/a/b/cmd/x: module lookup disabled by GOPROXY=off": "cannot fetch a module: the module proxy",
        "go: something new": "the go command failed:\ngo: something new",
        "go: updates to go.mod needed; to update it:\n\tgo mod tidy": "x/go.sum: go.mod beside it is not complete; run `go mod tidy` there: go: updates",
        "write /a/b: no space left on device": "no space left on the disk: write /a/b",
        _MISMATCH: "x/go.sum:3: wrong checksum: example.com/c@v1.2.3 has h1:xxx=, but go.sum asks for h1:ccc=.",
        _MISMATCH_GO_MOD: "x/go.sum:2: wrong checksum: example.com/a/b@v1.0.0/go.mod has h1:yyy=, but go.sum asks for h1:bbb=.",
        _MISSING: "x/go.sum: a checksum is missing; run `go mod tidy` beside it: example.com/d: missing go.sum entry",
        _REFUSED: "cannot fetch example.com/a/b@v1.0.0: the module proxy (GOPROXY, as `go env` shows it) did not answer or refused: go: example.com/a/b/cmd/x: ",
    }.items():
        asserts.equals(env, want, explain(stderr, _GO_SUM, "x/go.sum")[:len(want)])
    return unittest.end(env)

explain_test = unittest.make(_explain_impl)

def goerrors_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    unittest.suite(name, explain_test)
