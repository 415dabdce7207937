"""Analysis tests of the configurations."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//stack/runtimeconfig:def.bzl", "runtime_config", "runtime_configuration")
load("//tools/component:def.bzl", "ComponentInfo")

def _component_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[ComponentInfo]
    asserts.equals(env, "runtimeconfig", info.name)
    asserts.equals(env, "3.20.0", info.version)
    asserts.equals(env, ["KataComponent"], [action.mnemonic for action in analysistest.target_actions(env) if action.mnemonic != "FileWrite"])
    return analysistest.end(env)

component_test = analysistest.make(_component_impl)

def _configuration_impl(ctx):
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["RuntimeConfiguration"], [action.mnemonic for action in actions])
    asserts.equals(env, ["configuration-qemu-tdx.toml"], [file.basename for file in actions[0].outputs.to_list()])

    # A new guest image makes a new configuration.
    inputs = [file.basename for file in actions[0].inputs.to_list()]
    asserts.true(env, "root_hash_example.txt" in inputs, "inputs are %r" % inputs)
    return analysistest.end(env)

configuration_test = analysistest.make(_configuration_impl)

def _needs_variable_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, "a root_hash needs kernel_params_variable")
    return analysistest.end(env)

needs_variable_test = analysistest.make(_needs_variable_impl, expect_failure = True)

def runtime_config_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    runtime_configuration(
        name = "no_variable",
        root_hash = "root_hash_example.txt",
        rootfs_type = "erofs",
        shim = "qemu-tdx",
        tags = ["manual"],
        template = "@go_kata_runtime//:files/config/configuration-qemu-tdx.toml.in",
    )
    runtime_config(
        name = "component",
        configurations = {":rendered": "qemu-tdx"},
        default = "qemu-tdx",
        tags = ["manual"],
        version = "3.20.0",
    )
    component_test(
        name = name + "_component",
        target_under_test = ":component",
    )
    configuration_test(
        name = name + "_configuration",
        target_under_test = ":rendered",
    )
    needs_variable_test(
        name = name + "_needs_variable",
        target_under_test = ":no_variable",
    )
    native.test_suite(
        name = name,
        tests = [
            ":%s_%s" % (name, test)
            for test in ["component", "configuration", "needs_variable"]
        ],
    )
