"""Analysis tests of the agent rules."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//stack/agent:def.bzl", "AgentInfo", "agent", "agent_kind")

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

def agent_test_suite(name):
    """Tests the agent rules.

    Args:
      name: name of the suite.
    """
    agent(
        name = name + "_agent",
        binary = "//stack/imports/tests:archive.tar",
        kind = "import",
        tags = ["manual"],
    )
    agent_kind(
        name = name + "_kind",
        agent = name + "_agent",
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
    native.test_suite(
        name = name,
        tests = [name + suffix for suffix in ["_agent_test", "_kind_test"]],
    )
