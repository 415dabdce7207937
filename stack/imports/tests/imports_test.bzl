"""Tests of the rules for what is imported, and of the table."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts", "unittest")
load("@bazel_skylib//rules:diff_test.bzl", "diff_test")
load("@bazel_skylib//rules:write_file.bzl", "write_file")
load("//stack:architectures.bzl", "ARCHITECTURES")
load("//stack:platforms.bzl", "COMPONENTS", "RUNTIME_CLASSES")
load("//stack/imports:def.bzl", "imported_component", "imported_files", "unpinned_import")
load("//stack/imports:imports.bzl", "IMPORTS", "INGREDIENTS", "paths_of")
load("//stack/imports:table.bzl", "imports_table")
load("//tools/component:def.bzl", "ComponentInfo")

def _table_impl(ctx):
    """Each row is complete, and for all architectures that a runtime class needs it on."""
    env = unittest.begin(ctx)
    for component, row in IMPORTS.items():
        asserts.true(env, paths_of(component) != [], component)
        for arch in row.architectures:
            asserts.true(env, arch in ARCHITECTURES, component)
        if component not in INGREDIENTS and component in COMPONENTS:
            asserts.equals(env, "//stack/imports:" + component, COMPONENTS[component])
    for name, architectures in RUNTIME_CLASSES.items():
        for arch, components in architectures.items():
            for component in components:
                if component in IMPORTS:
                    asserts.true(env, arch in IMPORTS[component].architectures, "%s on %s needs %s" % (name, arch, component))
    rows = {(row["component"], row["arch"]): row for row in imports_table()}
    asserts.equals(env, "3.20.0-aarch64", rows[("firecracker", "arm64")]["tag"])
    asserts.equals(env, "opt/kata/bin/firecracker", rows[("firecracker", "arm64")]["path"])
    asserts.equals(env, "usr/bin/kata-agent", rows[("agent", "ppc64le")]["path"])
    asserts.equals(env, "", rows[("coco-guest-components", "s390x")]["tag"])
    return unittest.end(env)

table_test = unittest.make(_table_impl)

def _files_impl(ctx):
    """Files come out of the archive in one action that reads nothing else."""
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["UnpackImport"], [a.mnemonic for a in actions])
    data = [f.basename for f in actions[0].inputs.to_list() if f.is_source]
    asserts.true(env, "archive.tar" in data, "the archive is not an input: %s" % data)
    argv = actions[0].argv
    files = [argv[at + 1].split("=")[0] for at, arg in enumerate(argv) if arg == "--file"]
    asserts.equals(env, ["opt/kata/bin/tool", "opt/kata/share/settings.json"], files)
    return analysistest.end(env)

imported_files_test = analysistest.make(_files_impl)

def _component_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[ComponentInfo]
    asserts.equals(env, ("tool", "1.0", "MIT", "arm64"), (info.name, info.version, info.license, info.arch))
    asserts.equals(env, ["KataComponent"], [a.mnemonic for a in analysistest.target_actions(env)])
    return analysistest.end(env)

imported_component_test = analysistest.make(_component_impl)

def _unpinned_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, "firecracker for arm64 is not pinned: stack/imports.lock has no digest of it")
    asserts.expect_failure(env, "bazel run //stack:imports.update -- --registry=HOST firecracker")
    return analysistest.end(env)

unpinned_import_test = analysistest.make(_unpinned_impl, expect_failure = True)

def imports_test_suite(name):
    """Tests the rules for what is imported.

    Args:
      name: name of the suite.
    """
    imported_component(
        name = name + "_component",
        arch = "arm64",
        archive = "archive.tar",
        component = "tool",
        files = ["share/settings.json"],
        license = "MIT",
        paths = ["opt/kata/bin/tool", "opt/kata/share/settings.json"],
        programs = ["bin/tool"],
        sources = [],
        tags = ["manual"],
        version = "1.0",
    )
    unpinned_import(
        name = name + "_unpinned",
        arch = "arm64",
        component = "firecracker",
        tags = ["manual"],
    )

    # What comes out is what is in the archive.
    imported_files(
        name = name + "_agent",
        outs = [name + "_agent/kata-agent"],
        archive = "archive.tar",
        paths = ["usr/bin/kata-agent"],
        tags = ["manual"],
    )
    write_file(
        name = name + "_want",
        out = name + "_want.txt",
        content = ["agent", ""],
        newline = "unix",
    )
    diff_test(
        name = name + "_content_test",
        file1 = name + "_agent/kata-agent",
        file2 = name + "_want",
    )
    table_test(name = name + "_table_test")
    imported_files_test(
        name = name + "_files_test",
        target_under_test = name + "_component.files",
    )
    imported_component_test(
        name = name + "_component_test",
        target_under_test = name + "_component",
    )
    unpinned_import_test(
        name = name + "_unpinned_test",
        target_under_test = name + "_unpinned",
    )
    native.test_suite(
        name = name,
        tests = [name + suffix for suffix in ["_component_test", "_content_test", "_files_test", "_table_test", "_unpinned_test"]],
    )
