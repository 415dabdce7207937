"""The guest for one architecture."""

load("@debian//:versions.bzl", "VERSIONS")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "tags_for")
load("//stack/imports:table.bzl", "pin_of", "source_of")
load("//tools/component:def.bzl", "root_component")

_GUEST_COMPONENTS = "coco-guest-components"

def guest(name, arch, component, variant):
    """Makes a guest for an architecture: all have the same userland and agent.

    The root hash of an image is what the kernel command line, and so what a TEE
    measures, holds of it.

    Args:
      name: name of the target.
      arch: the architecture, by Go's name.
      component: name of the component.
      variant: what it is, see build.sh.
    """

    # What attests the guest and pulls its images: where none is pinned, the guest has none.
    confidential = [_GUEST_COMPONENTS] if variant.endswith("confidential") and pin_of(_GUEST_COMPONENTS, arch) else []
    packages = "guest" if arch == "amd64" else "guest_" + arch
    root_component(
        name = name,
        srcs = {
            "//stack:" + for_architecture("guest_root", arch): "guest.tar.zst",
            "//stack/agent:" + for_architecture("agent", arch): "kata-agent",
        } | {
            "@kata_imports//:" + for_architecture(component, arch): component + ".tar"
            for component in confidential
        },
        arch = arch,
        component = component,
        env = {
            "SUITE": ARCHITECTURES[arch].suite,
            "VARIANT": variant,
        },
        # Making it takes seconds and one CPU.
        heavy = False,
        # The agent, and the licences of the programs in the guest packages.
        license = "Apache-2.0 AND BSD-3-Clause AND GPL-2.0-only AND GPL-2.0-or-later AND GPL-3.0-or-later AND LGPL-2.1-or-later AND MIT AND MPL-2.0",
        outputs = {} if variant.startswith("initrd") else {"root_hash": "root_hash"},
        packages = ["@debian_%s//:lock.json" % packages],
        script = "build.sh",
        sources = select({
            "//stack/agent:is_import": source_of("agent", arch),
            "//conditions:default": [json.encode({
                "license": "Apache-2.0",
                "name": "kiln-bringup",
                "version": "0.1.0",
            })],
        }) + [source for component in confidential for source in source_of(component, arch)],
        tags = tags_for(arch),
        version = VERSIONS[packages]["base-files"],
    )
