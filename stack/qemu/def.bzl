"""QEMU for one architecture."""

load("@debian//:versions.bzl", "VERSIONS")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "tags_for")
load("//stack:sources.bzl", "debian_sources")
load("//tools/component:def.bzl", "root_component")

# What is linked into the binary, from the build root or the sysroot.
_LIBRARIES = {
    "libaio-dev": "LGPL-2.1-or-later",
    "libc6-dev": "LGPL-2.1-or-later",
    "libglib2.0-dev": "LGPL-2.1-or-later",
    "libnuma-dev": "LGPL-2.1-only",
    "libpcre2-dev": "BSD-3-Clause",
    "libseccomp-dev": "LGPL-2.1-only",
    "liburing-dev": "LGPL-2.1-or-later OR MIT",
    "zlib1g-dev": "Zlib",
}

# The same where devices are described by a tree.
_DEVICE_TREE = {"libfdt-dev": "GPL-2.0-or-later OR BSD-2-Clause"}

# What of Debian's firmware lies beside the binary: its set of packages, and the licence.
_FIRMWARE = {
    "amd64": ("buildroot", {"seabios": "LGPL-3.0-only"}),
    "ppc64le": ("qemudata", {"qemu-system-data": "BSD-3-Clause"}),
    "s390x": ("qemudata", {"qemu-system-data": "GPL-2.0-or-later"}),
}

_LICENSE = "GPL-2.0-only AND GPL-2.0-or-later AND LGPL-2.1-only AND LGPL-2.1-or-later%s AND BSD-3-Clause AND MIT AND Zlib"

def qemu(name, arch):
    """Makes the component `qemu` for hosts, and so guests, of an architecture.

    Args:
      name: name of the target.
      arch: the architecture, by Go's name.
    """
    facts = ARCHITECTURES[arch]
    libraries = "buildroot" if arch == "amd64" else "sysroot_" + arch
    srcs = {
        "@debian_qemu//:debian": "debian.tar.xz",
        "@debian_qemu//:orig": "orig.tar.xz",
        "check-required.sh": "check-required.sh",
        "devices/%s.mak" % facts.qemu: "devices.mak",
        "required/%s.txt" % facts.qemu: "required.txt",
    }
    sources = debian_sources(libraries, _LIBRARIES | (_DEVICE_TREE if arch in ["arm64", "ppc64le"] else {}))
    if arch in _FIRMWARE:
        firmware, licenses = _FIRMWARE[arch]
        sources = sources + debian_sources(firmware, licenses)
        if firmware == "qemudata":
            srcs["@debian_qemudata//:qemu-system-data"] = "qemu-system-data.deb"
    if facts.cross:
        srcs["//stack:" + for_architecture("sysroot", arch)] = "sysroot.tar.zst"
    root_component(
        name = name,
        srcs = srcs,
        arch = arch,
        component = "qemu",
        env = {
            "CROSS_COMPILE": facts.cross,
            "EMULATOR": facts.emulator,
            "TARGET": facts.qemu,
        },
        license = _LICENSE % (" AND LGPL-3.0-only" if arch == "amd64" else ""),
        packages = ["@debian_qemu//:lock.json"],
        root = "//stack:" + for_architecture("buildroot", arch),
        script = "build.sh",
        sources = sources,
        tags = tags_for(arch),
        version = VERSIONS["qemu"]["qemu"],
    )
