"""Analysis tests of go_module_binary."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//tools/gomod:def.bzl", "go_module_binary")

def _action_impl(ctx):
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["GoModuleBuild"], [action.mnemonic for action in actions])
    action = actions[0]

    # Nothing of the machine, no C, no network.
    asserts.equals(env, {
        "CGO_ENABLED": "0",
        "GOAMD64": "v1",
        "GOARCH": "amd64",
        "GOARM64": "v8.0",
        "GOFLAGS": "-mod=vendor",
        "GOOS": "linux",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }, {name: value for name, value in action.env.items() if name not in ["PATH", "LD_LIBRARY_PATH"]})

    # All sources come as one file, so that the sandbox is made quickly.
    own = [file for file in action.inputs.to_list() if file.path.startswith("tools/gomod/tests/")]
    asserts.equals(env, ["tools/gomod/tests/tree.tar"], [file.path for file in own])

    asserts.equals(env, ["two", "one", "programs.sources.json"], [file.basename for file in action.outputs.to_list()])
    arguments = " ".join(action.argv)
    for want in [
        "--archive tools/gomod/tests/tree.tar",
        "--program example.com/m/cmd/b=" + _path(action, "two"),
        "--program example.com/m/cmd/a=" + _path(action, "one"),
        "--variable main.version=1 2",
        "--tag netgo",
    ]:
        asserts.true(env, want in arguments, "%r is not in %r" % (want, arguments))
    return analysistest.end(env)

def _path(action, basename):
    return [file.path for file in action.outputs.to_list() if file.basename == basename][0]

action_test = analysistest.make(_action_impl)

def go_module_binary_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    go_module_binary(
        name = "programs",
        gotags = ["netgo"],
        module = "tree.tar",
        packages = {
            "example.com/m/cmd/b": "two",
            "example.com/m/cmd/a": "one",
        },
        tags = ["manual"],
        x_defs = {"main.version": "1 2"},
    )
    action_test(
        name = name + "_action",
        target_under_test = ":programs",
    )
    native.test_suite(
        name = name,
        tests = [":%s_action" % name],
    )
