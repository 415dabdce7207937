"""Analysis tests of the component rules: what they ask Bazel to run."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts", "unittest")
load("//tools/component:def.bzl", "ComponentInfo")
load("//tools/component/private:common.bzl", "execution_requirements")

def _component_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    name = target.label.name

    actions = [a for a in analysistest.target_actions(env) if a.mnemonic != "FileWrite"]
    asserts.equals(env, ["KataComponent"], [a.mnemonic for a in actions], "a component is one action, and no other does its work")
    action = actions[0]

    # The tool itself, without a shell around it.
    asserts.true(env, action.argv[0].endswith("/tools/component/component_/component"), "runs %s" % action.argv[0])
    asserts.equals(env, {}, action.env, "nothing of the environment goes in")

    # Its own file of arguments and its runfiles are not what it is made from.
    inputs = sorted([
        f.basename
        for f in action.inputs.to_list()
        if "/component_/" not in f.path and "runfiles" not in f.basename and "component.repo_mapping" not in f.basename
    ])
    asserts.equals(env, sorted(ctx.attr.inputs), inputs, "inputs")
    outputs = sorted([f.basename for f in action.outputs.to_list()])
    asserts.equals(env, sorted([name + ".tar.zst", name + ".component.json"] + ctx.attr.made), outputs, "outputs")

    info = target[ComponentInfo]
    asserts.equals(env, ctx.attr.component, info.name)
    asserts.equals(env, "MIT", info.license)
    asserts.equals(env, ctx.attr.architecture, info.arch)
    asserts.equals(env, name + ".tar.zst", info.layer.basename)
    asserts.equals(env, name + ".component.json", info.metadata.basename)
    asserts.equals(env, ctx.attr.outputs, {k: v.basename for k, v in info.outputs.items()})
    for group, file in {"layer": info.layer, "metadata": info.metadata}.items():
        asserts.equals(env, [file], getattr(target[OutputGroupInfo], group).to_list())
    for group, file in info.outputs.items():
        asserts.equals(env, [file], getattr(target[OutputGroupInfo], group).to_list())

    # Arguments go through a file: there may be more than a command line holds.
    joined = "\n".join(action.argv[1:])
    for want in ctx.attr.arguments:
        asserts.true(env, want in joined, "%r is not among the arguments:\n%s" % (want, joined))
    return analysistest.end(env)

_component_test = analysistest.make(
    _component_test_impl,
    attrs = {
        "architecture": attr.string(default = "amd64"),
        "arguments": attr.string_list(),
        "component": attr.string(),
        "inputs": attr.string_list(),
        "made": attr.string_list(),
        "outputs": attr.string_dict(),
    },
)

def _refusal_test_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, ctx.attr.message)
    return analysistest.end(env)

_refusal_test = analysistest.make(
    _refusal_test_impl,
    attrs = {"message": attr.string()},
    expect_failure = True,
)

def _execution_requirements_impl(ctx):
    """An analysis test does not see those of an action, so they are looked at alone."""
    env = unittest.begin(ctx)

    # They are part of the action's key: whatever else is there builds all again.
    asserts.equals(env, {"block-network": "1"}, execution_requirements(False))
    asserts.equals(env, {
        "block-network": "1",
        "no-remote-cache": "1",
        "no-remote-exec": "1",
    }, execution_requirements(True))
    return unittest.end(env)

_execution_requirements_test = unittest.make(_execution_requirements_impl)

def rules_test_suite(name):
    """Declares the tests.

    Args:
      name: name of the suite of all of them.
    """
    _component_test(
        name = "packed_test",
        arguments = ["pack", "--executable", "bin/alias=tool", "share/list.json=tools/component/tests/list.json", "{\"name\":\"thing\",\"version\":\"1\"}"],
        component = "packed-thing",
        inputs = ["list.json", "tool.txt"],
        outputs = {"root_hash": "hash.txt"},
        target_under_test = ":packed",
    )
    _component_test(
        name = "built_test",
        arguments = ["build", "--env", "FLAVOUR=plain", "more/list.json=tools/component/tests/list.json", "tool=tools/component/tests/tool.txt"],
        component = "built-thing",
        inputs = ["build.sh", "hash.txt", "list.json", "root.tar.zst", "tool.txt"],
        made = ["built.map", "built.root_hash"],
        outputs = {
            "map": "built.map",
            "root_hash": "built.root_hash",
        },
        target_under_test = ":built",
    )
    _component_test(
        name = "light_test",
        arguments = ["build", "--jobs", "2"],
        component = "light-thing",
        inputs = ["build.sh", "root.tar.zst"],
        target_under_test = ":light",
    )
    _component_test(
        name = "secret_test",
        architecture = "s390x",
        arguments = ["build", "--arch", "s390x"],
        component = "secret-thing",
        inputs = ["build.sh", "root.tar.zst"],
        target_under_test = ":secret",
    )
    _execution_requirements_test(name = "execution_requirements_test")
    refusals = {
        "many_files_for_one_path": "is to be \"bin/tool\", but stands for 2 files",
        "output_of_many_files": "stands for 2 files, not one",
        "reserved_output": "an output cannot be called \"layer\"",
        "reserved_root_output": "an output cannot be called \"metadata\"",
    }
    for target, message in refusals.items():
        _refusal_test(
            name = target + "_test",
            message = message,
            target_under_test = ":" + target,
        )
    native.test_suite(
        name = name,
        tests = [":packed_test", ":built_test", ":light_test", ":secret_test", ":execution_requirements_test"] + [":%s_test" % t for t in refusals],
    )
