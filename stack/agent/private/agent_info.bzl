"""The provider of a guest agent."""

AgentInfo = provider(
    doc = "An agent for the guest image.",
    fields = {
        "binary": "File: the program that the guest image installs as its agent.",
        "kind": "string: `bringup` for Kiln's own agent, `import` for upstream's.",
    },
)
