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

def _layer_agent_impl(ctx):
    binary = ctx.actions.declare_file(ctx.label.name)
    args = ctx.actions.args()
    args.add("--layer", ctx.file.layer)
    args.add("--path", ctx.attr.path)
    args.add("--output", binary)
    ctx.actions.run(
        mnemonic = "UnpackAgent",
        progress_message = "Taking the agent out of %{input}",
        executable = ctx.executable._unpack,
        arguments = [args],
        inputs = [ctx.file.layer],
        outputs = [binary],
    )
    return [DefaultInfo(files = depset([binary]))]

layer_agent = rule(
    doc = "The agent in a layer of upstream's image.",
    implementation = _layer_agent_impl,
    attrs = {
        "layer": attr.label(
            doc = "The layer.",
            allow_single_file = True,
            mandatory = True,
        ),
        "path": attr.string(
            doc = "Where the agent is in the layer.",
            mandatory = True,
        ),
        "_unpack": attr.label(
            default = Label("//stack/agent/unpack"),
            executable = True,
            cfg = "exec",
        ),
    },
)

def _unpinned_agent_impl(ctx):
    fail(("no upstream agent is pinned: {lock} is empty. Pin one with `bazel run //stack/agent:pin -- REFERENCE`, " +
          "or build with --//stack/agent:agent=//stack/agent:bringup").format(lock = ctx.attr.lock))

unpinned_agent = rule(
    doc = "Stands where an agent would be while none is pinned, so that only a build that asks for it fails.",
    implementation = _unpinned_agent_impl,
    attrs = {
        "lock": attr.string(
            doc = "The lock that pins none.",
            mandatory = True,
        ),
    },
)
