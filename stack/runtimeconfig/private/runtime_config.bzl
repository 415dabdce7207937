"""The component that installs a platform's configurations."""

load("//tools/component:def.bzl", "kata_component")

_DEFAULTS = "share/defaults/kata-containers"

def runtime_config(name, configurations, default, version, **kwargs):
    """Makes the component `runtimeconfig` of one platform.

    Args:
      name: name of the target, the platform's by convention.
      configurations: dict from the label of a runtime_configuration to the
        name of its shim.
      default: the shim whose configuration is used where none is named.
      version: version of the runtime that the configurations are for.
      **kwargs: what every rule takes.
    """
    if default not in configurations.values():
        fail("%s: default %r is none of the configurations: %s" % (name, default, ", ".join(configurations.values())))
    kata_component(
        name = name,
        component = "runtimeconfig",
        version = version,
        license = "Apache-2.0",
        files = {
            label: "%s/configuration-%s.toml" % (_DEFAULTS, shim)
            for label, shim in configurations.items()
        },
        symlinks = {_DEFAULTS + "/configuration.toml": "configuration-%s.toml" % default},
        **kwargs
    )
