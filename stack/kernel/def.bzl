"""The kernel's components for one architecture."""

load("@debian//:versions.bzl", "VERSIONS")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "tags_for")
load("//tools/component:def.bzl", "kata_component", "root_component")

# Revision of Kiln's configuration: the number that upstream puts after the kernel's version in
# the names of the installed files.
CONFIG_REVISION = "1"

_PACKAGE = "linux-source-6.12"

_LICENSE = "GPL-2.0-only WITH Linux-syscall-note"

# What the action of the kernel makes of the debug kernel.
_DEBUG = ["config-debug", "vmlinux-debug", "vmlinuz-debug"]

def kernel(name, arch):
    """Makes the components `kernel` and `kernel-debug` for an architecture.

    Args:
      name: name of the target of `kernel`.
      arch: the architecture, by Go's name.
    """
    facts = ARCHITECTURES[arch]
    version = VERSIONS["linux"][_PACKAGE]
    suffix = select({
        ":is_tiny": "-tiny",
        "//conditions:default": "",
    })
    fragments = native.glob(["fragments/*.config", "fragments/%s/*.config" % facts.kernel])
    debug = native.glob(["debug/*.config"], exclude = ["debug/softlockup.config"] if arch == "s390x" else [])
    root_component(
        name = name,
        srcs = {
            "@debian_linux//:" + _PACKAGE: "linux-source.deb",
            "check-config.sh": "check-config.sh",
            "effective-config.sh": "effective-config.sh",
            "tiny.config": "tiny.config",
            ":extra_fragment": "extra.config",
        } | {file: file for file in fragments + debug},
        arch = arch,
        component = "kernel",
        env = {
            "ARCH": facts.kernel,
            "CONFIG_REVISION": CONFIG_REVISION,
            "CROSS_COMPILE": facts.cross,
        } | select({
            ":is_tiny": {"PROFILE": "tiny"},
            "//conditions:default": {"PROFILE": "full"},
        }),
        license = _LICENSE,
        outputs = {"config": "config"} | {file: file for file in _DEBUG} | select({
            ":is_tiny": {},
            "//conditions:default": {"vmlinuz": "vmlinuz"},
        }),
        packages = ["@debian_linux//:lock.json"],
        root = "//stack:" + for_architecture("buildroot", arch),
        script = "build.sh",
        tags = tags_for(arch),
        version = version + suffix,
    )
    for file in _DEBUG:
        native.filegroup(
            name = for_architecture(file, arch),
            srcs = [name],
            output_group = file,
            tags = tags_for(arch),
            visibility = ["//visibility:private"],
        )

    # The kernel of the runtime classes' debug variants. It takes the same action, since most
    # of it is the same objects.
    full = "%s-%s-debug" % (version.rpartition("-")[0], CONFIG_REVISION)
    share = "share/kata-containers/"
    kata_component(
        name = for_architecture("kernel-debug", arch),
        arch = arch,
        component = "kernel-debug",
        files = {
            for_architecture("config-debug", arch): share + "config-" + full,
            for_architecture("vmlinux-debug", arch): share + "vmlinux-" + full,
            for_architecture("vmlinuz-debug", arch): share + "vmlinuz-" + full,
        },
        license = _LICENSE,
        packages = ["@debian_linux//:lock.json"],
        symlinks = {
            share + "vmlinux-debug.container": "vmlinux-" + full,
            share + "vmlinuz-debug.container": "vmlinuz-" + full,
        },
        tags = tags_for(arch),
        version = version + suffix,
    )
