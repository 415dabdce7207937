"""The configuration of a runtime class of the table."""

load("//stack:architectures.bzl", "for_architecture", "tags_for")
load("//stack/runtimeconfig:configurations.bzl", "CONFIGURATIONS")
load(":runtime_configuration.bzl", "runtime_configuration")

# Where nothing builds an image, the guest is an initrd, and that is not measured.
_INITRD_ONLY = ["ppc64le"]

def class_configuration(name, runtime_class, arch, root_hash = None, **kwargs):
    """Renders the configuration of one of CONFIGURATIONS for an architecture.

    Args:
      name: name of the target.
      runtime_class: name of the runtime class.
      arch: architecture of the node, by its Go name.
      root_hash: where the root hash is read of a guest that is measured; by
        default its image's component.
      **kwargs: what every rule takes.
    """
    configuration = CONFIGURATIONS[runtime_class]
    measured = configuration.root and arch not in _INITRD_ONLY
    runtime_configuration(
        name = name,
        arch = arch,
        image = configuration.image,
        initrd = "/opt/kata/share/kata-containers/kata-containers-initrd.img" if configuration.root and not measured else "",
        kernel_params_variable = configuration.kernel_params_variable,
        root_hash = (root_hash or "//stack/rootfs:" + for_architecture(configuration.root, arch)) if measured else None,
        rootfs_type = "erofs" if configuration.root else "",
        shim = runtime_class,
        substitutions = configuration.substitutions,
        tags = tags_for(arch),
        template = "@go_kata_runtime//:files/config/configuration-%s.toml.in" % runtime_class,
        **kwargs
    )
