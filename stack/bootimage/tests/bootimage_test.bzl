"""Analysis tests of the boot image: what host keys make of it."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("@bazel_skylib//rules:write_file.bzl", "write_file")
load("//stack/bootimage:def.bzl", "boot_image")
load("//tools/component:def.bzl", "ComponentInfo")

def _boot_image_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[ComponentInfo]
    asserts.equals(env, "boot-image-se", info.name)
    asserts.equals(env, "s390x", info.arch)
    asserts.equals(env, ctx.attr.version, info.version)
    asserts.equals(env, ["header"], info.outputs.keys())

    actions = [a for a in analysistest.target_actions(env) if a.mnemonic == "KataComponent"]
    asserts.equals(env, 1, len(actions))
    argv = actions[0].argv
    for variable in ctx.attr.env:
        asserts.true(env, variable in argv, "%s is not among %s" % (variable, argv))
    names = [a.partition("=")[0] for a in argv if a.startswith("host-keys/") or a.startswith("certificates/")]
    asserts.equals(env, ctx.attr.keys, sorted(names), "what of the keys goes in")
    inputs = [f.basename for f in actions[0].inputs.to_list()]
    for name in ["build.sh", "command-line.txt", "seimage"] + [n.rpartition("/")[2] for n in names]:
        asserts.true(env, name in inputs, "%s is no input" % name)
    return analysistest.end(env)

_ATTRS = {
    "env": attr.string_list(),
    "keys": attr.string_list(),
    "version": attr.string(),
}

_KEY = "//stack/bootimage:host_key_document"
_CERTIFICATES = "//stack/bootimage:host_key_certificates"
_VERIFY = "//stack/bootimage:verify"

# What the flags are set to.
_MACHINES = Label(":documents")
_VOUCHING = Label(":certificates")

_default_test = analysistest.make(_boot_image_impl, attrs = _ATTRS)
_machines_test = analysistest.make(
    _boot_image_impl,
    attrs = _ATTRS,
    config_settings = {
        str(Label(_CERTIFICATES)): _VOUCHING,
        str(Label(_KEY)): _MACHINES,
    },
)
_unverified_test = analysistest.make(
    _boot_image_impl,
    attrs = _ATTRS,
    config_settings = {
        str(Label(_KEY)): _MACHINES,
        str(Label(_VERIFY)): False,
    },
)

def bootimage_test_suite(name):
    """Declares the tests.

    Args:
      name: name of the suite of all of them.
    """

    # None of it is ever read: what is looked at is not built.
    for out in ["HKD-1.crt", "HKD-2.crt", "initrd.tar.zst", "kernel", "root.tar.zst", "s390-tools.deb", "signing.crt"]:
        write_file(
            name = "made_" + out,
            out = out,
            tags = ["manual"],
        )
    native.filegroup(
        name = "documents",
        srcs = ["HKD-1.crt", "HKD-2.crt"],
        tags = ["manual"],
    )
    native.filegroup(
        name = "certificates",
        srcs = ["signing.crt"],
        tags = ["manual"],
    )
    boot_image(
        name = "image",
        testonly = True,
        initrd = "initrd.tar.zst",
        kernel = "kernel",
        loaders = "s390-tools.deb",
        root = "root.tar.zst",
        tags = ["manual"],
        version = "6.12-1",
    )
    _default_test(
        name = "default_test",
        env = ["VERIFY=yes", "TEST_KEY=true"],
        keys = ["host-keys/HKD-test.crt"],
        target_under_test = ":image",
        version = "6.12-1-testkey",
    )
    _machines_test(
        name = "machines_test",
        env = ["VERIFY=yes", "TEST_KEY=false"],
        keys = ["certificates/signing.crt", "host-keys/HKD-1.crt", "host-keys/HKD-2.crt"],
        target_under_test = ":image",
        version = "6.12-1",
    )
    _unverified_test(
        name = "unverified_test",
        env = ["VERIFY=no", "TEST_KEY=false"],
        keys = ["host-keys/HKD-1.crt", "host-keys/HKD-2.crt"],
        target_under_test = ":image",
        version = "6.12-1-unverified",
    )
    native.test_suite(
        name = name,
        tests = [":default_test", ":machines_test", ":unverified_test"],
    )
