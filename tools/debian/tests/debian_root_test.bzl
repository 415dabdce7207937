"""Tests of debian_root."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//tools/debian:def.bzl", "DebianRootInfo", "debian_root")

def _action_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    actions = [a for a in analysistest.target_actions(env) if a.mnemonic == "DebianRoot"]
    asserts.equals(env, 1, len(actions))
    argv = actions[0].argv

    # The tool is run as it is: no shell is between.
    asserts.true(env, argv[0].endswith("/mkroot"), "runs " + argv[0])
    asserts.false(env, [a for a in analysistest.target_actions(env) if a.mnemonic == "Bazel" or "sh" in (a.argv or [""])[0].split("/")])

    def has(flag):
        asserts.true(env, flag in argv, "{} is not in {}".format(flag, argv))

    has("--status")
    has("--symlink=usr/bin/awk=mawk")
    has("--compose=etc/passwd=usr/share/base-passwd/passwd.master")
    has("--exclude=usr/share/doc/**")
    has("--exclude=!usr/share/doc/*/copyright")
    asserts.true(
        env,
        argv.index("--exclude=usr/share/doc/**") < argv.index("--exclude=!usr/share/doc/*/copyright"),
        "what a target excludes and includes must come after the defaults",
    )

    asserts.equals(env, [target.label.name + ".tar.zst"], [f.basename for f in target[DefaultInfo].files.to_list()])
    asserts.equals(env, target.label.name + ".tar.zst", target[DebianRootInfo].tar.basename)
    asserts.equals(env, target.label.name + ".packages.json", target[DebianRootInfo].packages.basename)
    inputs = [f.basename for f in actions[0].inputs.to_list()]
    asserts.true(env, "tiny-xz.deb" in inputs, "the packages must be inputs")
    return analysistest.end(env)

_action_test = analysistest.make(_action_test_impl)

def _rejects_other_files_test_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, "debs")
    return analysistest.end(env)

_rejects_other_files_test = analysistest.make(_rejects_other_files_test_impl, expect_failure = True)

def debian_root_test_suite(name):
    """Defines the tests.

    Args:
      name: the name of the suite.
    """
    debian_root(
        name = "subject_root",
        compose = {"etc/passwd": "usr/share/base-passwd/passwd.master"},
        debs = ["//tools/debian/root:testdata/tiny-xz.deb"],
        dpkg_status = True,
        exclude = ["!usr/share/doc/*/copyright"],
        symlinks = {"usr/bin/awk": "mawk"},
        tags = ["manual"],
    )
    _action_test(
        name = name + "_action",
        target_under_test = ":subject_root",
    )
    debian_root(
        name = "subject_not_a_deb",
        debs = ["BUILD.bazel"],
        tags = ["manual"],
    )
    _rejects_other_files_test(
        name = name + "_rejects_other_files",
        target_under_test = ":subject_not_a_deb",
    )
    native.test_suite(
        name = name,
        tests = [
            ":" + name + "_action",
            ":" + name + "_rejects_other_files",
        ],
    )
