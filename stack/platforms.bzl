"""The one table of runtime classes: which platform installs what.

A platform is what one payload is made for. It has runtime classes, and a
runtime class has, for each architecture, the components that it cannot run
without. Names are upstream's.
"""

# Components that belong to every payload, whatever it runs: the configuration
# of its runtime classes, and the installer.
COMMON_COMPONENTS = ["runtimeconfig", "kata-deploy"]

# What installs each component. A component without a target is known, but
# nothing builds it yet; a platform that needs one cannot be built. `%s` is the
# platform, for components that differ between platforms.
COMPONENTS = {
    "boot-image-se": None,
    "kata-deploy": "//deploy:kata-deploy",
    "kernel": "//stack/kernel:kernel",
    "kernel-debug": None,
    "nydus": None,
    "ovmf": None,
    "ovmf-sev": "//stack/ovmf:ovmf-sev",
    "ovmf-tdx": "//stack/ovmf:ovmf-tdx",
    "qemu": "//stack/qemu:qemu",
    "rootfs-image": None,
    "rootfs-image-coco-extension": None,
    "rootfs-image-confidential": "//stack/rootfs:rootfs-image-confidential",
    "rootfs-initrd": None,
    "rootfs-initrd-confidential": None,
    "runtimeconfig": "//stack/runtimeconfig:%s",
    "shim-v2-go": "//stack/shim:shim-v2-go",
    "shim-v2-rust": None,
    "virtiofsd": None,
}

RUNTIME_CLASSES = {
    "qemu": {
        "amd64": ["shim-v2-go", "qemu", "virtiofsd", "nydus", "kernel", "kernel-debug", "rootfs-image", "rootfs-initrd"],
        "arm64": ["shim-v2-go", "qemu", "virtiofsd", "nydus", "kernel", "kernel-debug", "rootfs-image", "rootfs-initrd", "ovmf"],
        "s390x": ["shim-v2-go", "qemu", "virtiofsd", "kernel", "rootfs-image", "rootfs-initrd"],
    },
    "qemu-coco-dev": {
        "amd64": ["shim-v2-go", "qemu", "kernel", "kernel-debug", "rootfs-image-confidential"],
        "s390x": ["shim-v2-go", "qemu", "kernel", "kernel-debug", "rootfs-image-confidential"],
    },
    "qemu-se": {
        "s390x": ["shim-v2-go", "qemu", "virtiofsd", "kernel", "rootfs-initrd-confidential", "boot-image-se"],
    },
    "qemu-snp": {
        "amd64": ["shim-v2-go", "qemu", "kernel", "rootfs-image-confidential", "ovmf-sev"],
    },
    "qemu-tdx": {
        "amd64": ["shim-v2-go", "qemu", "kernel", "rootfs-image-confidential", "ovmf-tdx"],
    },
    # Peer pods: the sandbox is a virtual machine of a cloud, so nothing of a
    # guest is installed on the node.
    "remote": {
        "amd64": ["shim-v2-go"],
        "ppc64le": ["shim-v2-go"],
        "s390x": ["shim-v2-go"],
    },
}

PLATFORMS = {
    "coco-dev": ["qemu-coco-dev"],
    "qemu": ["qemu"],
    "remote": ["remote"],
    "se": ["qemu-se"],
    "snp": ["qemu-snp"],
    "tdx": ["qemu-tdx"],
}

# Runtime classes whose guest is not on the node.
WITHOUT_GUEST = ["remote"]

# What the machinery of a sandbox takes of a node beside its containers: memory and
# CPU, as Kubernetes writes quantities. Upstream's figures. A confidential guest's
# memory is the host's as a whole, so that of TDX and SNP is high.
OVERHEAD = {
    "qemu": ("320Mi", "250m"),
    "qemu-coco-dev": ("160Mi", "250m"),
    "qemu-se": ("1024Mi", "1.0"),
    "qemu-snp": ("2048Mi", "1.0"),
    "qemu-tdx": ("2048Mi", "1.0"),
    "remote": ("120Mi", "250m"),
}

# What only nodes with the TEE have: a label that node feature discovery sets.
TEE_LABEL = {
    "qemu-se": "feature.node.kubernetes.io/cpu-security.se.enabled",
    "qemu-snp": "amd.feature.node.kubernetes.io/snp",
    "qemu-tdx": "intel.feature.node.kubernetes.io/tdx",
}

# What kind of firmware the guest of a runtime class is started by. The one for
# SEV starts no kernel but in a guest of SEV: outside of one QEMU does not hand
# over the digests that it compares.
FIRMWARE = {
    "qemu-snp": "sev",
    "qemu-tdx": "tdx",
}

def has_guest(platform):
    """Tells whether a platform's payload brings a guest.

    Args:
      platform: name of the platform.

    Returns:
      True if any of its runtime classes boots what the payload installs.
    """
    return any([name not in WITHOUT_GUEST for name in PLATFORMS[platform]])

def runtime_class(name, suffix = ""):
    """Gives the RuntimeClass of a runtime class, for the API node.k8s.io/v1.

    Its name and its handler are those that kata-deploy makes a node's container
    runtime know.

    Args:
      name: name of the runtime class.
      suffix: what tells one installation on a node from another.

    Returns:
      The object, as a dict.
    """
    full = "kata-" + name + ("-" + suffix if suffix else "")
    memory, cpu = OVERHEAD[name]
    selector = {"katacontainers.io/kata-runtime": "true"}
    if name in TEE_LABEL:
        selector[TEE_LABEL[name]] = "true"
    return {
        "apiVersion": "node.k8s.io/v1",
        "handler": full,
        "kind": "RuntimeClass",
        "metadata": {"name": full},
        "overhead": {"podFixed": {"cpu": cpu, "memory": memory}},
        "scheduling": {"nodeSelector": selector},
    }

def _among(kind, name, known):
    return "unknown %s %r; there are: %s" % (kind, name, ", ".join(sorted(known)))

def validate(platforms = PLATFORMS, runtime_classes = RUNTIME_CLASSES, components = COMPONENTS):
    """Checks that the table only names what it has.

    Args:
      platforms: as PLATFORMS.
      runtime_classes: as RUNTIME_CLASSES.
      components: as COMPONENTS.

    Returns:
      What is wrong, as a list of texts.
    """
    errors = []
    for platform, classes in platforms.items():
        if not classes:
            errors.append("platform %r has no runtime class" % platform)
        for name in classes:
            if name not in runtime_classes:
                errors.append("platform %r: %s" % (platform, _among("runtime class", name, runtime_classes)))
    for name, architectures in runtime_classes.items():
        for arch, needed in architectures.items():
            seen = {}
            for component in needed:
                if component not in components:
                    errors.append("runtime class %r on %s: %s" % (name, arch, _among("component", component, components)))
                if component in seen:
                    errors.append("runtime class %r on %s: component %r is there twice" % (name, arch, component))
                seen[component] = True
    for component in COMMON_COMPONENTS:
        if component not in components:
            errors.append(_among("component", component, components))
    return errors

def resolve(platform, arch = "amd64", platforms = PLATFORMS, runtime_classes = RUNTIME_CLASSES, components = COMPONENTS):
    """Finds what a platform's payload is made of.

    Args:
      platform: name of the platform.
      arch: architecture of the payload, by its Go name.
      platforms: as PLATFORMS.
      runtime_classes: as RUNTIME_CLASSES.
      components: as COMPONENTS.

    Returns:
      A struct of `components`, a dict from name to label (or None where
      nothing builds it yet), and `error`, of which one is None.
    """

    def failure(text):
        return struct(components = None, error = "stack/platforms.bzl: " + text)

    errors = validate(platforms, runtime_classes, components)
    if errors:
        return failure(errors[0])
    if platform not in platforms:
        return failure(_among("platform", platform, platforms))
    found = {}
    for name in platforms[platform]:
        architectures = runtime_classes[name]
        if arch not in architectures:
            return failure("runtime class %r of platform %r is not for %s, only for %s" % (name, platform, arch, ", ".join(sorted(architectures))))
        for component in architectures[arch] + COMMON_COMPONENTS:
            label = components[component]
            found[component] = label % platform if label and "%s" in label else label
    return struct(components = found, error = None)

def missing_components(platform, arch = "amd64", platforms = PLATFORMS, runtime_classes = RUNTIME_CLASSES, components = COMPONENTS):
    """Says what keeps a platform's payload from being built.

    Args:
      platform: name of the platform.
      arch: architecture of the payload, by its Go name.
      platforms: as PLATFORMS.
      runtime_classes: as RUNTIME_CLASSES.
      components: as COMPONENTS.

    Returns:
      A text that names the row and all that nothing builds yet, or None.
    """
    resolved = resolve(platform, arch, platforms, runtime_classes, components)
    if resolved.error:
        return resolved.error
    missing = [name for name, label in resolved.components.items() if not label]
    if not missing:
        return None
    return "stack/platforms.bzl: platform %r cannot be built for %s yet: nothing builds %s" % (platform, arch, ", ".join(missing))

def platform_components(platform, arch = "amd64"):
    """Gives the targets of a platform's components, or ends the build.

    Args:
      platform: name of the platform.
      arch: architecture of the payload, by its Go name.

    Returns:
      The labels, in the order of the table.
    """
    missing = missing_components(platform, arch)
    if missing:
        fail(missing)
    return resolve(platform, arch).components.values()
