"""Analysis tests of the payload rules."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//payload:def.bzl", "PayloadInfo")
load("//payload/private:launcher.bzl", "payload_publish_all")
load("//payload/private:payload_image.bzl", "payload_image")
load("//payload/private:unavailable.bzl", "unavailable")

def _names(files):
    return [f.basename for f in files]

def _one_small_action_impl(ctx):
    """All documents come out of one action that sees no layer."""
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["PayloadManifest"], [a.mnemonic for a in actions])
    inputs = _names(actions[0].inputs.to_list())
    for layer in [n for n in inputs if n.endswith(".tar.zst")]:
        asserts.true(env, False, "a layer is an input: " + layer)
    for wanted in ["kernel.component.json", "config.component.json", "installer.component.json", "configuration-fake.toml"]:
        asserts.true(env, wanted in inputs, "%s is not an input: %s" % (wanted, inputs))
    asserts.equals(
        env,
        ["fake.config.json", "fake.index.json", "fake.manifest.json", "fake.receipt.json"],
        sorted(_names(actions[0].outputs.to_list())),
    )
    return analysistest.end(env)

one_small_action_test = analysistest.make(_one_small_action_impl)

def _order_is_the_tables_impl(ctx):
    """Layers are in the table's order, whatever the BUILD file's is."""
    env = analysistest.begin(ctx)
    payload = analysistest.target_under_test(env)[PayloadInfo]
    asserts.equals(env, ["kernel", "runtimeconfig", "kata-deploy"], [c.name for c in payload.components])
    argv = analysistest.target_actions(env)[0].argv
    given = [argv[i + 1].split("/")[-1] for i in range(len(argv)) if argv[i] == "--component"]
    asserts.equals(env, ["kernel.component.json", "config.component.json", "installer.component.json"], given)
    return analysistest.end(env)

order_is_the_tables_test = analysistest.make(_order_is_the_tables_impl)

def _argument_impl(ctx):
    env = analysistest.begin(ctx)
    argv = analysistest.target_actions(env)[0].argv
    given = [argv[i + 1] for i in range(len(argv)) if argv[i] == ctx.attr.flag]
    asserts.equals(env, [ctx.attr.value], given)
    return analysistest.end(env)

_ARGUMENT_ATTRS = {
    "flag": attr.string(mandatory = True),
    "value": attr.string(mandatory = True),
}

argument_test = analysistest.make(_argument_impl, attrs = _ARGUMENT_ATTRS)

registry_argument_test = analysistest.make(
    _argument_impl,
    attrs = _ARGUMENT_ATTRS,
    config_settings = {str(Label("//payload:registry")): "registry.example:5000/kiln"},
)

def _runfiles_impl(ctx):
    """Whoever handles layers has them as runfiles; whoever does not, has none."""
    env = analysistest.begin(ctx)
    files = _names(analysistest.target_under_test(env)[DefaultInfo].default_runfiles.files.to_list())
    layers = sorted([n for n in files if n.endswith(".tar.zst")])
    asserts.equals(env, ["config.tar.zst", "installer.tar.zst", "kernel.tar.zst"] if ctx.attr.layers else [], layers)
    asserts.true(env, "fake.receipt.json" in files, "no receipt among %s" % files)
    return analysistest.end(env)

runfiles_test = analysistest.make(_runfiles_impl, attrs = {"layers": attr.bool(mandatory = True)})

# What Bazel adds to whatever can be run.
_OF_BAZEL = ["Middleman", "RepoMappingManifest", "SourceSymlinkManifest", "SymlinkTree"]

def _count(names):
    counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts

def _launcher_impl(ctx):
    """What is run is the tool itself, with its arguments in a file: no shell."""
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, {"ExecutableSymlink": 1, "FileWrite": 1 + ctx.attr.arguments.count("--bundle=")}, _count([a.mnemonic for a in actions if a.mnemonic not in _OF_BAZEL]))
    written = [a.content for a in actions if a.mnemonic == "FileWrite" and a.outputs.to_list()[0].basename.endswith(".args")]
    asserts.equals(env, [ctx.attr.arguments + "\n"], written)
    return analysistest.end(env)

_LAUNCHER_ATTRS = {"arguments": attr.string(mandatory = True)}

launcher_test = analysistest.make(_launcher_impl, attrs = _LAUNCHER_ATTRS)

release_launcher_test = analysistest.make(
    _launcher_impl,
    attrs = _LAUNCHER_ATTRS,
    config_settings = {str(Label("//payload:channel")): "release"},
)

def _refused_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, ctx.attr.message)
    return analysistest.end(env)

refused_test = analysistest.make(
    _refused_impl,
    attrs = {"message": attr.string(mandatory = True)},
    expect_failure = True,
)

def _refused(name, message, **kwargs):
    payload_image(
        name = name + "_payload",
        testonly = True,
        agent = ":agent",
        platform = "fake",
        tags = ["manual"],
        **kwargs
    )
    refused_test(
        name = name,
        message = message,
        target_under_test = name + "_payload",
    )

def payload_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    one_small_action_test(
        name = "one_small_action_test",
        target_under_test = ":fake",
    )
    order_is_the_tables_test(
        name = "order_is_the_tables_test",
        target_under_test = ":fake",
    )
    for flag, value in {"agent": "bringup", "inputs": "pinned", "registry": "embedded", "runtime-class": "fake"}.items():
        argument_test(
            name = "argument_%s_test" % flag,
            flag = "--" + flag,
            target_under_test = ":fake",
            value = value,
        )
    payload_image(
        name = "guestless",
        testonly = True,
        components = [":installer", ":config"],
        expected = ["runtimeconfig", "kata-deploy"],
        platform = "fake",
        tags = ["manual"],
    )
    argument_test(
        name = "no_agent_argument_test",
        flag = "--agent",
        target_under_test = ":guestless",
        value = "none",
    )
    registry_argument_test(
        name = "registry_argument_test",
        flag = "--registry",
        target_under_test = ":fake",
        value = "registry.example:5000/kiln",
    )
    for target, layers in {"bundle": True, "inspect": False, "publish": True, "receipt": False}.items():
        runfiles_test(
            name = target + "_runfiles_test",
            layers = layers,
            target_under_test = ":fake." + target,
        )
    launcher_test(
        name = "publish_launcher_test",
        arguments = '["publish","--channel=development","--bundle=_main/payload/tests/fake.publish.json"]',
        target_under_test = ":fake.publish",
    )
    payload_publish_all(
        name = "fake-all.publish",
        testonly = True,
        payloads = [":fake", ":guestless"],
        tags = ["manual"],
    )
    launcher_test(
        name = "publish_all_launcher_test",
        arguments = '["publish","--channel=development","--bundle=_main/payload/tests/fake-all.publish.json","--bundle=_main/payload/tests/fake-all.publish.1.json"]',
        target_under_test = ":fake-all.publish",
    )
    runfiles_test(
        name = "publish_all_runfiles_test",
        layers = True,
        target_under_test = ":fake-all.publish",
    )
    launcher_test(
        name = "inspect_launcher_test",
        arguments = '["inspect","--bundle=_main/payload/tests/fake.inspect.json"]',
        target_under_test = ":fake.inspect",
    )
    release_launcher_test(
        name = "release_launcher_test",
        arguments = '["publish","--channel=release","--bundle=_main/payload/tests/fake.publish.json"]',
        target_under_test = ":fake.publish",
    )
    unavailable(
        name = "absent",
        reason = "nothing builds it",
        tags = ["manual"],
    )
    refused_test(
        name = "unavailable_test",
        message = "//payload/tests:absent: nothing builds it",
        target_under_test = ":absent",
    )
    _refused(
        name = "lacking_component_test",
        components = [":kernel", ":installer"],
        expected = ["kernel", "runtimeconfig", "kata-deploy"],
        message = "platform fake needs runtimeconfig, which `components` lacks; stack/platforms.bzl lists what it needs",
    )
    _refused(
        name = "exceeding_component_test",
        components = [":kernel", ":installer", ":config"],
        expected = ["kernel", "kata-deploy"],
        message = "`components` has runtimeconfig, which platform fake does not need",
    )
    _refused(
        name = "repeated_component_test",
        components = [":kernel", ":kernel_again", ":installer"],
        expected = ["kernel", "kata-deploy"],
        message = "component kernel is there twice: by //payload/tests:kernel and //payload/tests:kernel_again",
    )
    native.test_suite(name = name)
