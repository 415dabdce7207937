"""The rule that lets Bazel compile a suite's source."""

load("//tools/lint:def.bzl", "GoOriginInfo")

_CONSTRAINT = "//go:build payload\n\n"

def _impl(ctx):
    """Drops the build constraint, in an action of Bazel's own."""
    out = ctx.actions.declare_file(ctx.label.name + "_test.go")
    ctx.actions.expand_template(
        template = ctx.file.src,
        output = out,
        substitutions = {_CONSTRAINT: ""},
    )
    return [
        DefaultInfo(files = depset([out])),
        GoOriginInfo(
            file = ctx.file.src,
            tags = ["payload"],
        ),
    ]

suite_source = rule(
    implementation = _impl,
    doc = """A suite's source without its build constraint.

Suites have one, `payload`, so that plain `go test ./...` leaves them out: they need a payload. Giving the tag to Bazel
instead would build everything that a suite depends on once more, under the configuration that has the tag.""",
    attrs = {
        "src": attr.label(
            doc = "The source.",
            allow_single_file = [".go"],
            mandatory = True,
        ),
    },
)
