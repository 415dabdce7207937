"""virtiofsd for one architecture."""

load("@debian//:versions.bzl", "VERSIONS")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "tags_for")
load("//stack:sources.bzl", "debian_sources")
load("//tools/component:def.bzl", "root_component")
load(":crates.bzl", "CRATES")

_SOURCE = "librust-virtiofsd-dev"

# What is linked into the program beside crates, from the build root or the sysroot.
_LIBRARIES = {
    "libc6-dev": "LGPL-2.1-or-later",
    "libcap-ng-dev": "LGPL-2.1-or-later",
    "libseccomp-dev": "LGPL-2.1-only",
}

_RUNTIME_LICENSE = "GPL-3.0-or-later WITH GCC-exception-3.1"

def virtiofsd(name, arch):
    """Makes the component `virtiofsd` for an architecture.

    Args:
      name: name of the target.
      arch: the architecture, by Go's name.
    """
    facts = ARCHITECTURES[arch]
    srcs = {
        "@debian_virtiofsd//:" + _SOURCE: "virtiofsd.deb",
        "check-required.sh": "check-required.sh",
        "crates.txt": "crates.txt",
        "required.txt": "required.txt",
    }
    if facts.cross:
        srcs["//stack:" + for_architecture("sysroot", arch)] = "sysroot.tar.zst"
        libraries, rust = "sysroot_" + arch, "rust_" + arch
        runtime = debian_sources("cross_" + arch, {"libgcc-14-dev-%s-cross" % facts.debian: _RUNTIME_LICENSE})
    else:
        libraries, rust = "buildroot", "rust"
        runtime = debian_sources("buildroot", {"libgcc-14-dev": _RUNTIME_LICENSE})
    root_component(
        name = name,
        srcs = srcs,
        arch = arch,
        component = "virtiofsd",
        env = {
            "CROSS_COMPILE": facts.cross,
            "EMULATOR": facts.emulator,
            "TARGET": facts.rust,
        },
        license = "Apache-2.0 AND BSD-3-Clause AND MIT AND LGPL-2.1-only AND LGPL-2.1-or-later AND (%s)" % _RUNTIME_LICENSE,
        packages = ["@debian_virtiofsd//:lock.json"],
        root = "//stack:" + for_architecture("rustroot", arch),
        script = "build.sh",
        sources = (
            debian_sources(libraries, _LIBRARIES) +
            runtime +
            debian_sources(rust, {"libstd-rust-dev": "MIT OR Apache-2.0"}) +
            debian_sources("crates", {
                "librust-%s-dev" % crate: license
                for crate, license in CRATES.items()
            })
        ),
        tags = tags_for(arch),
        version = VERSIONS["virtiofsd"][_SOURCE],
    )
