"""The module extension that fetches upstream's agent."""

load("//stack/agent/private:import_repository.bzl", "agent_import_repository", "agent_pin_repository")

def _agent_import_impl(mctx):
    for module in mctx.modules:
        for tag in module.tags.pin:
            agent_import_repository(name = tag.name, lock = tag.lock)
            agent_pin_repository(name = tag.name + "_pin", lock = tag.lock)
    return mctx.extension_metadata(reproducible = True)

agent_import = module_extension(
    doc = "Gives upstream's agent, `@<name>//:agent`, and what its lock says of it, `@<name>_pin//:pin.bzl`.",
    implementation = _agent_import_impl,
    tag_classes = {
        "pin": tag_class(
            attrs = {
                "lock": attr.label(
                    doc = "The lock that names the agent.",
                    mandatory = True,
                ),
                "name": attr.string(
                    doc = "Name of the repository.",
                    mandatory = True,
                ),
            },
        ),
    },
)
