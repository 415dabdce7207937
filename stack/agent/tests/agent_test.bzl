"""Analysis tests of the agent rules."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//stack/agent:def.bzl", "AgentInfo", "agent", "agent_kind")
load("//stack/agent/private:agent.bzl", "layer_agent", "unpinned_agent")

def _agent_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    info = target[AgentInfo]
    asserts.equals(env, "import", info.kind)
    asserts.equals(env, "kata-agent", info.binary.basename)
    asserts.equals(env, [info.binary], target[DefaultInfo].files.to_list())
    return analysistest.end(env)

agent_info_test = analysistest.make(_agent_impl)

def _kind_impl(ctx):
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["import\n"], [a.content for a in actions])
    return analysistest.end(env)

agent_kind_test = analysistest.make(_kind_impl)

def _layer_impl(ctx):
    """The agent comes out of the layer in one action that reads nothing else."""
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    asserts.equals(env, ["UnpackAgent"], [a.mnemonic for a in actions])
    data = [f.basename for f in actions[0].inputs.to_list() if f.is_source]
    asserts.true(env, "layer.tar" in data, "the layer is not an input: %s" % data)
    argv = actions[0].argv
    asserts.equals(env, "usr/bin/kata-agent", argv[argv.index("--path") + 1])
    return analysistest.end(env)

layer_agent_test = analysistest.make(_layer_impl)

def _unpinned_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, "no upstream agent is pinned: stack/agent/import.lock is empty")
    asserts.expect_failure(env, "bazel run //stack/agent:pin -- REFERENCE")
    return analysistest.end(env)

unpinned_agent_test = analysistest.make(_unpinned_impl, expect_failure = True)

def agent_test_suite(name):
    """Tests the agent rules.

    Args:
      name: name of the suite.
    """
    agent(
        name = name + "_agent",
        binary = "layer.tar",
        kind = "import",
        tags = ["manual"],
    )
    agent_kind(
        name = name + "_kind",
        agent = name + "_agent",
        tags = ["manual"],
    )
    layer_agent(
        name = name + "_layer",
        layer = "layer.tar",
        path = "usr/bin/kata-agent",
        tags = ["manual"],
    )
    unpinned_agent(
        name = name + "_unpinned",
        lock = "stack/agent/import.lock",
        tags = ["manual"],
    )
    agent_info_test(
        name = name + "_agent_test",
        target_under_test = name + "_agent",
    )
    agent_kind_test(
        name = name + "_kind_test",
        target_under_test = name + "_kind",
    )
    layer_agent_test(
        name = name + "_layer_test",
        target_under_test = name + "_layer",
    )
    unpinned_agent_test(
        name = name + "_unpinned_test",
        target_under_test = name + "_unpinned",
    )
    native.test_suite(
        name = name,
        tests = [name + suffix for suffix in ["_agent_test", "_kind_test", "_layer_test", "_unpinned_test"]],
    )
