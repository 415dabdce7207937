"""Unit tests of the table of runtime classes."""

load("@bazel_skylib//lib:unittest.bzl", "asserts", "unittest")
load("//stack:platforms.bzl", "COMPONENTS", "OPTIONAL_COMPONENTS", "OVERHEAD", "PLATFORMS", "RUNTIME_CLASSES", "TEE", "TEE_LABEL", "WITHOUT_GUEST", "architectures_of", "firmware", "guest_kind", "has_guest", "hypervisor", "is_emulated", "main_architecture", "missing_components", "resolve", "runtime_class", "validate")
load("//stack/imports:table.bzl", "pin_of")
load("//stack/runtimeconfig:configurations.bzl", "CONFIGURATIONS", "WITHOUT_CONFIGURATION")

_CLASSES = {"small": {"amd64": ["shim", "kernel"]}}
_COMPONENTS = {
    "kata-deploy": "//deploy:kata-deploy",
    "kernel": "//kernel",
    "runtimeconfig": "//config:%s",
    "shim": None,
}

def _table_is_sound_impl(ctx):
    env = unittest.begin(ctx)
    asserts.equals(env, [], validate())
    for platform, classes in PLATFORMS.items():
        for name in classes:
            for arch in RUNTIME_CLASSES[name]:
                asserts.equals(env, None, resolve(platform, arch).error)
    return unittest.end(env)

table_is_sound_test = unittest.make(_table_is_sound_impl)

def _tdx_impl(ctx):
    env = unittest.begin(ctx)
    asserts.equals(env, [
        "//stack/shim:shim-v2-go",
        "//stack/qemu:qemu",
        "//stack/kernel:kernel",
        "//stack/rootfs:rootfs-image-confidential",
        "//stack/ovmf:ovmf-tdx",
        "//stack/nydus-snapshotter:nydus-snapshotter",
        "//stack/runtimeconfig:tdx",
        "//deploy:kata-deploy",
    ], resolve("tdx").components.values())
    return unittest.end(env)

tdx_test = unittest.make(_tdx_impl)

def _snp_impl(ctx):
    """All that boots without regard to the TEE is shared with TDX."""
    env = unittest.begin(ctx)
    asserts.equals(env, [
        label.replace("ovmf-tdx", "ovmf-sev").replace("runtimeconfig:tdx", "runtimeconfig:snp")
        for label in resolve("tdx").components.values()
    ], resolve("snp").components.values())
    return unittest.end(env)

snp_test = unittest.make(_snp_impl)

def _where_pinned(component):
    return [arch for arch in ["amd64", "arm64"] if pin_of(component, arch)]

def _buildable_impl(ctx):
    """What can be built, for which architectures."""
    env = unittest.begin(ctx)
    asserts.equals(env, {
        "clh": _where_pinned("cloud-hypervisor"),
        "coco-dev": ["amd64", "s390x"],
        "fc": _where_pinned("firecracker"),
        "qemu": ["amd64", "arm64", "ppc64le", "s390x"],
        "remote": ["amd64", "ppc64le", "s390x"],
        "se": ["s390x"],
        "snp": ["amd64"],
        "tdx": ["amd64"],
    }, {
        platform: [arch for arch in architectures_of(platform) if not missing_components(platform, arch)]
        for platform in PLATFORMS
    })
    return unittest.end(env)

buildable_test = unittest.make(_buildable_impl)

def _foreign_impl(ctx):
    """Components of other architectures are targets of their own, with the same names."""
    env = unittest.begin(ctx)
    asserts.equals(env, [
        "//stack/shim:shim-v2-go-s390x",
        "//stack/runtimeconfig:remote-s390x",
        "//deploy:kata-deploy-s390x",
    ], resolve("remote", "s390x").components.values())
    asserts.equals(env, "amd64", main_architecture("remote"))
    asserts.equals(env, "s390x", main_architecture("se"))
    asserts.equals(env, ["amd64", "arm64", "ppc64le", "s390x"], architectures_of("qemu"))
    for kind, row in {
        "boot-image": ("se", "s390x"),
        "elsewhere": ("remote", "ppc64le"),
        "image": ("qemu", "s390x"),
        "initrd": ("qemu", "ppc64le"),
    }.items():
        asserts.equals(env, kind, guest_kind(*row))
    return unittest.end(env)

foreign_test = unittest.make(_foreign_impl)

def _virtiofs_impl(ctx):
    """What is not confidential shares directories of the host with its guest."""
    env = unittest.begin(ctx)
    asserts.equals(env, "//stack/virtiofsd:virtiofsd", resolve("qemu").components["virtiofsd"])
    for platform in ["coco-dev", "remote", "snp", "tdx"]:
        asserts.false(env, "virtiofsd" in resolve(platform).components, platform)
    return unittest.end(env)

virtiofs_test = unittest.make(_virtiofs_impl)

def _configurations_impl(ctx):
    """Each runtime class of the Go runtime has a configuration, or a reason to have none."""
    env = unittest.begin(ctx)
    go = [name for name, row in RUNTIME_CLASSES.items() if "shim-v2-go" in row.values()[0]]
    asserts.equals(env, sorted(go), sorted(CONFIGURATIONS.keys() + WITHOUT_CONFIGURATION.keys()))
    for name, missing in WITHOUT_CONFIGURATION.items():
        asserts.false(env, name in CONFIGURATIONS, name)
        asserts.true(env, missing.reason != "", "there is no reason why %s has no configuration" % name)
        for row in RUNTIME_CLASSES[name].values():
            asserts.true(env, missing.component in row, "%s does not need %s" % (name, missing.component))
        asserts.equals(env, None, COMPONENTS[missing.component], "something builds %s now: give %s a configuration" % (missing.component, name))
    for name, configuration in CONFIGURATIONS.items():
        if configuration.root:
            asserts.true(env, any([configuration.root in row for row in RUNTIME_CLASSES[name].values()]), "%s does not need %s" % (name, configuration.root))
    for classes in PLATFORMS.values():
        for name in classes:
            asserts.true(env, name in CONFIGURATIONS, name)
    return unittest.end(env)

configurations_test = unittest.make(_configurations_impl)

def _hypervisor_impl(ctx):
    env = unittest.begin(ctx)
    asserts.equals(env, "cloud-hypervisor", hypervisor("clh", "arm64"))
    asserts.equals(env, "firecracker", hypervisor("fc"))
    asserts.equals(env, "qemu-system-x86_64", hypervisor("qemu-tdx"))
    asserts.equals(env, "qemu-system-s390x", hypervisor("qemu-se", "s390x"))
    asserts.true(env, is_emulated("qemu-se"))
    asserts.false(env, is_emulated("fc"))
    asserts.false(env, is_emulated("openvmm-azure-runtime-rs"))
    return unittest.end(env)

hypervisor_test = unittest.make(_hypervisor_impl)

def _firmware_impl(ctx):
    """A runtime class has a kind of firmware if and only if it has a component of it."""
    env = unittest.begin(ctx)
    for name, architectures in RUNTIME_CLASSES.items():
        for arch, components in architectures.items():
            asserts.equals(env, [c for c in components if c.startswith("ovmf")] != [], firmware(name, arch) != "", "%s on %s" % (name, arch))
    asserts.equals(env, "sev", firmware("qemu-snp"))
    asserts.equals(env, "tdx", firmware("qemu-tdx-runtime-rs"))
    asserts.equals(env, "aavmf", firmware("qemu", "arm64"))
    asserts.equals(env, "", firmware("qemu"))
    return unittest.end(env)

firmware_test = unittest.make(_firmware_impl)

def _remote_impl(ctx):
    """Peer pods boot nothing on the node: no component of a guest, and all others do."""
    env = unittest.begin(ctx)
    asserts.equals(env, [
        "//stack/shim:shim-v2-go",
        "//stack/runtimeconfig:remote",
        "//deploy:kata-deploy",
    ], resolve("remote").components.values())
    asserts.equals(env, ["remote"], [name for name in PLATFORMS if not has_guest(name)])
    for name in WITHOUT_GUEST:
        asserts.true(env, name in RUNTIME_CLASSES, name)
    return unittest.end(env)

remote_test = unittest.make(_remote_impl)

def _runtime_class_impl(ctx):
    """Every runtime class has its figures, and a name per installation."""
    env = unittest.begin(ctx)
    asserts.equals(env, sorted(RUNTIME_CLASSES), sorted(OVERHEAD))
    asserts.equals(env, "tdx", TEE["qemu-tdx-runtime-rs"])
    asserts.equals(env, "snp", TEE["qemu-nvidia-gpu-snp"])
    asserts.false(env, "qemu-coco-dev" in TEE)
    asserts.equals(env, sorted(TEE), sorted(TEE_LABEL))
    asserts.equals(env, "kata-qemu-tdx", runtime_class("qemu-tdx")["handler"])
    asserts.equals(env, "kata-qemu-tdx-blue", runtime_class("qemu-tdx", "blue")["metadata"]["name"])
    return unittest.end(env)

runtime_class_test = unittest.make(_runtime_class_impl)

def _resolve_impl(ctx):
    env = unittest.begin(ctx)
    resolved = resolve("one", "amd64", {"one": ["small"]}, _CLASSES, _COMPONENTS)
    asserts.equals(env, None, resolved.error)
    asserts.equals(env, {
        "kata-deploy": "//deploy:kata-deploy",
        "kernel": "//kernel",
        "runtimeconfig": "//config:one",
        "shim": None,
    }, resolved.components)
    return unittest.end(env)

resolve_test = unittest.make(_resolve_impl)

def _errors_impl(ctx):
    env = unittest.begin(ctx)
    for want, resolved in {
        "stack/platforms.bzl: platform \"one\": unknown runtime class \"big\"; there are: small": resolve("one", "amd64", {"one": ["big"]}, _CLASSES, _COMPONENTS),
        "stack/platforms.bzl: platform \"one\" has no runtime class": resolve("one", "amd64", {"one": []}, _CLASSES, _COMPONENTS),
        "stack/platforms.bzl: runtime class \"small\" of platform \"one\" is not for s390x, only for amd64": resolve("one", "s390x", {"one": ["small"]}, _CLASSES, _COMPONENTS),
        "stack/platforms.bzl: runtime class \"small\": unknown architecture \"x86\"; there are: amd64, arm64, ppc64le, s390x": resolve("one", "x86", {"one": ["small"]}, {"small": {"x86": ["kernel"]}}, _COMPONENTS),
        "stack/platforms.bzl: runtime class \"small\" on amd64: component \"kernel\" is there twice": resolve("one", "amd64", {"one": ["small"]}, {"small": {"amd64": ["kernel", "kernel"]}}, _COMPONENTS),
        "stack/platforms.bzl: runtime class \"small\" on amd64: unknown component \"qemu\"; there are: kata-deploy, kernel, runtimeconfig, shim": resolve("one", "amd64", {"one": ["small"]}, {"small": {"amd64": ["qemu"]}}, _COMPONENTS),
        "stack/platforms.bzl: unknown component \"runtimeconfig\"; there are: kernel, shim": resolve("one", "amd64", {"one": ["small"]}, _CLASSES, {"kernel": None, "shim": None}),
        "stack/platforms.bzl: unknown platform \"two\"; there are: one": resolve("two", "amd64", {"one": ["small"]}, _CLASSES, _COMPONENTS),
    }.items():
        asserts.equals(env, want, resolved.error)
        asserts.equals(env, None, resolved.components)
    return unittest.end(env)

errors_test = unittest.make(_errors_impl)

def _missing_impl(ctx):
    env = unittest.begin(ctx)
    platforms = {"one": ["small"]}
    asserts.equals(
        env,
        "stack/platforms.bzl: platform \"one\" cannot be built for amd64 yet: nothing builds shim",
        missing_components("one", "amd64", platforms, _CLASSES, _COMPONENTS),
    )
    asserts.equals(env, None, missing_components("one", "amd64", platforms, _CLASSES, _COMPONENTS | {"shim": "//shim"}))
    asserts.equals(
        env,
        "stack/platforms.bzl: unknown platform \"two\"; there are: one",
        missing_components("two", "amd64", platforms, _CLASSES, _COMPONENTS),
    )

    # An import that is not pinned, beside what nothing builds.
    components = _COMPONENTS | {"openvmm": "//openvmm"}
    if not pin_of("openvmm", "amd64"):
        asserts.equals(
            env,
            "stack/platforms.bzl: platform \"one\" cannot be built for amd64 yet: nothing builds shim; " +
            "stack/imports.lock has no digest of openvmm: pin with `bazel run //stack:imports.update -- --registry=HOST openvmm`",
            missing_components("one", "amd64", platforms, {"small": {"amd64": ["shim", "kernel", "openvmm"]}}, components),
        )
        asserts.equals(env, None, resolve("one", "amd64", platforms, {"small": {"amd64": ["openvmm"]}}, components).components["openvmm"])

    # What a payload is complete without keeps nothing from being built.
    optional = OPTIONAL_COMPONENTS.keys()[0]
    asserts.equals(env, None, missing_components(
        "one",
        "amd64",
        platforms,
        {"small": {"amd64": ["kernel", optional]}},
        _COMPONENTS | {optional: None},
    ))
    asserts.equals(env, [], [name for name in OPTIONAL_COMPONENTS if name not in COMPONENTS])
    return unittest.end(env)

missing_test = unittest.make(_missing_impl)

def platforms_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    unittest.suite(
        name,
        table_is_sound_test,
        tdx_test,
        snp_test,
        buildable_test,
        foreign_test,
        virtiofs_test,
        configurations_test,
        hypervisor_test,
        firmware_test,
        remote_test,
        runtime_class_test,
        resolve_test,
        errors_test,
        missing_test,
    )
