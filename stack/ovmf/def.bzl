"""Firmware, out of edk2."""

load("@debian//:versions.bzl", "VERSIONS")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "tags_for")
load("//tools/component:def.bzl", "root_component")

def ovmf(name, component, arch, firmware, outputs = {}):
    """Makes a component of firmware.

    Args:
      name: name of the target.
      component: name of the component.
      arch: the architecture, by Go's name.
      firmware: what build.sh calls it.
      outputs: as of root_component.
    """
    lists = ["trim/%s.txt" % firmware] + (["trim/x64.txt"] if arch == "amd64" else [])
    root_component(
        name = name,
        srcs = {
            "@debian_edk2//:debian": "debian.tar.xz",
            "@debian_edk2//:orig": "orig.tar.xz",
            "trim.sh": "trim.sh",
        } | {file: file for file in lists},
        arch = arch,
        component = component,
        env = {
            "CROSS_COMPILE": ARCHITECTURES[arch].cross,
            "FIRMWARE": firmware,
        },
        # edk2, and mbed TLS and the LZMA SDK's decoder inside it.
        license = "BSD-2-Clause-Patent AND BSD-2-Clause AND MIT AND Apache-2.0 AND LZMA-SDK-9.22",
        outputs = outputs,
        packages = ["@debian_edk2//:lock.json"],
        root = "//stack:" + for_architecture("buildroot", arch),
        script = "build.sh",
        tags = tags_for(arch),
        version = VERSIONS["edk2"]["edk2"],
    )
