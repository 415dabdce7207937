"""Rules that say which agent a guest image carries."""

load("//stack/agent/private:agent_info.bzl", "AgentInfo")

def _agent_impl(ctx):
    binary = ctx.actions.declare_file(ctx.label.name + "/kata-agent")
    ctx.actions.symlink(output = binary, target_file = ctx.file.binary, is_executable = True)
    return [
        DefaultInfo(files = depset([binary])),
        AgentInfo(binary = binary, kind = ctx.attr.kind),
    ]

agent = rule(
    doc = "An agent that `//stack/agent:agent` can be set to.",
    implementation = _agent_impl,
    attrs = {
        "binary": attr.label(
            doc = "The agent's program, static.",
            allow_single_file = True,
            mandatory = True,
        ),
        "kind": attr.string(
            doc = "What kind of agent it is. Payloads carry it in a label.",
            mandatory = True,
            values = ["bringup", "import"],
        ),
    },
)

def _agent_kind_impl(ctx):
    kind = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(kind, ctx.attr.agent[AgentInfo].kind + "\n")
    return [DefaultInfo(files = depset([kind]))]

agent_kind = rule(
    doc = "A file that holds the kind of an agent.",
    implementation = _agent_kind_impl,
    attrs = {
        "agent": attr.label(
            doc = "The agent that is asked about.",
            mandatory = True,
            providers = [AgentInfo],
        ),
    },
)
