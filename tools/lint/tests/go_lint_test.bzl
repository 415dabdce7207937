"""Analysis tests of the aspect go_lint: which packages it has judged, and how."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//tools/lint:def.bzl", "GoLintInfo", "GoOriginInfo", "go_lint")

def _origin_source_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".go")
    ctx.actions.write(out, "")
    return [
        DefaultInfo(files = depset([out])),
        GoOriginInfo(
            file = ctx.file.src,
            tags = ["payload"],
        ),
    ]

origin_source = rule(
    implementation = _origin_source_impl,
    doc = "A Go file that says where it is from.",
    attrs = {"src": attr.label(allow_single_file = True)},
)

_RecordedInfo = provider(
    doc = "The actions that go_lint declared for a target.",
    fields = {"actions": "Maps the name of the output to the action."},
)

def _recorded_impl(target, _ctx):
    return [_RecordedInfo(actions = {
        action.outputs.to_list()[0].basename: action
        for action in target.actions
        if action.mnemonic == "GoLint"
    })]

# What skylib records is what there was before the aspect.
_recorded = aspect(
    implementation = _recorded_impl,
    requires = [go_lint],
)

def _values(argv, flag):
    """Gives the values of a flag, in order, without what a configuration adds to a path."""
    values = []
    for i, arg in enumerate(argv):
        value = argv[i + 1] if arg == flag else arg[len(flag) + 1:] if arg.startswith(flag + "=") else None
        if value != None:
            values.append(value.rpartition("/bin/")[2])
    return values

def _judged_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    package = target.label.package
    actions = target[_RecordedInfo].actions
    asserts.equals(env, sorted(ctx.attr.own), sorted(actions), "what is judged of the target itself")

    # That is what Bazel validates, together with all that it knows facts of.
    validated = [f.basename for f in target[OutputGroupInfo]._validation.to_list()]
    asserts.equals(env, ctx.attr.validated, validated, "what Bazel validates")
    asserts.equals(env, target[GoLintInfo].facts.to_list(), target[OutputGroupInfo]._validation.to_list())

    for name, action in actions.items():
        argv = action.argv
        asserts.true(env, argv[0].endswith("/tools/lint/private/lint/cmd"), "%s runs %s" % (name, argv[0]))
        asserts.equals(env, {}, action.env, "nothing of the environment goes in")
        for flag, want in {"--src": ctx.attr.srcs, "--generated": ctx.attr.generated}.items():
            asserts.equals(env, ["%s/%s" % (package, f) for f in want], _values(argv, flag), "%s of %s" % (flag, name))
        asserts.equals(env, ctx.attr.tags_of_build, _values(argv, "--tag"), "tags of %s" % name)
        inputs = [f.basename for f in action.inputs.to_list()]
        for file in _values(argv, "--src") + _values(argv, "--facts"):
            asserts.true(env, file.rpartition("/")[2] in inputs, "%s is not an input of %s" % (file, name))
    for name, want in ctx.attr.facts.items():
        got = [f.rpartition("/")[2] for f in _values(actions[name].argv, "--facts")]
        asserts.equals(env, want, got, "facts for %s" % name)
    for name, want in ctx.attr.parts.items():
        asserts.equals(env, [want], _values(actions[name].argv, "--part"), "part of %s" % name)
    return analysistest.end(env)

_judged_test = analysistest.make(
    _judged_test_impl,
    attrs = {
        "facts": attr.string_list_dict(),
        "generated": attr.string_list(),
        "own": attr.string_list(),
        "parts": attr.string_dict(),
        "srcs": attr.string_list(),
        "tags_of_build": attr.string_list(),
        "validated": attr.string_list(),
    },
    extra_target_under_test_aspects = [
        go_lint,
        _recorded,
    ],
)

def go_lint_test_suite(name):
    """Declares the tests.

    Args:
      name: name of the suite of all of them.
    """
    _judged_test(
        name = "library_test",
        facts = {"library.whole.lint": ["below.whole.lint"]},
        own = ["library.whole.lint"],
        parts = {"library.whole.lint": "whole"},
        srcs = ["library.go"],
        target_under_test = ":library",
        validated = ["below.whole.lint", "library.whole.lint"],
    )

    # The package with its own tests first: the external ones know what it is then.
    _judged_test(
        name = "test_test",
        facts = {
            "test.external.lint": ["below.whole.lint", "test.internal.lint"],
            "test.internal.lint": ["below.whole.lint"],
        },
        own = ["test.external.lint", "test.internal.lint"],
        parts = {
            "test.external.lint": "external",
            "test.internal.lint": "internal",
        },
        srcs = ["library.go", "library_test.go"],
        tags_of_build = ["bazel"],
        target_under_test = ":test",
        validated = ["below.whole.lint", "test.internal.lint", "test.external.lint"],
    )

    # Nothing of its own: the library is judged, once.
    _judged_test(
        name = "program_test",
        target_under_test = ":program",
        validated = ["below.whole.lint", "library.whole.lint"],
    )

    # What the build generates is not judged, but for what somebody wrote.
    _judged_test(
        name = "generated_test",
        generated = ["made.go"],
        own = ["generated.whole.lint"],
        srcs = ["written.go"],
        tags_of_build = ["payload"],
        target_under_test = ":generated",
        validated = ["generated.whole.lint"],
    )

    # Foreign code is not judged.
    _judged_test(
        name = "foreign_test",
        target_under_test = "@com_github_stretchr_testify//require",
    )
    native.test_suite(
        name = name,
        tests = [":%s_test" % t for t in ["foreign", "generated", "library", "program", "test"]],
    )
