"""The one table of runtime classes: which platform installs what.

A platform is what one payload is made for. It has runtime classes, and a
runtime class has, for each architecture, the components that it cannot run
without. Names are upstream's.
"""

load("//stack:architectures.bzl", "for_architecture", _ARCHITECTURES = "ARCHITECTURES")
load("//stack/imports:imports.bzl", "IMPORTS", "UPDATE")
load("//stack/imports:table.bzl", "pin_of")

# Components that belong to every payload, whatever it runs: the configuration
# of its runtime classes, and the installer.
COMMON_COMPONENTS = ["runtimeconfig", "kata-deploy"]

# What installs each component, for amd64: for_architecture gives the others. A
# component without a target is known, but nothing builds it yet; a platform that
# needs one cannot be built, as one that needs an import which is not pinned. `%s` is
# the platform, for components that differ between platforms.
COMPONENTS = {
    "boot-image-se": "//stack/bootimage:boot-image-se",
    "boot-image-se-runtime-rs": None,
    "cloud-hypervisor": "//stack/imports:cloud-hypervisor",
    "firecracker": "//stack/imports:firecracker",
    "kata-deploy": "//deploy:kata-deploy",
    "kernel": "//stack/kernel:kernel",
    "kernel-debug": "//stack/kernel:kernel-debug",
    "kernel-dragonball-experimental": None,
    "kernel-nvidia-gpu": None,
    "nydus": "//stack/imports:nydus",
    "nydus-snapshotter": "//stack/nydus-snapshotter:nydus-snapshotter",
    "openvmm": "//stack/imports:openvmm",
    "ovmf": "//stack/ovmf:ovmf",
    "ovmf-sev": "//stack/ovmf:ovmf-sev",
    "ovmf-tdx": "//stack/ovmf:ovmf-tdx",
    "qemu": "//stack/qemu:qemu",
    "qemu-snp-experimental": None,
    "qemu-tdx-experimental": None,
    "rootfs-image": "//stack/rootfs:rootfs-image",
    "rootfs-image-coco-extension": "//stack/imports:rootfs-image-coco-extension",
    "rootfs-image-confidential": "//stack/rootfs:rootfs-image-confidential",
    "rootfs-image-mariner": None,
    "rootfs-image-nvidia": None,
    "rootfs-image-nvidia-gpu": None,
    "rootfs-image-nvidia-gpu-confidential": None,
    "rootfs-image-nvidia-gpu-extension": None,
    "rootfs-initrd": "//stack/rootfs:rootfs-initrd",
    "rootfs-initrd-confidential": "//stack/rootfs:rootfs-initrd-confidential",
    "runtimeconfig": "//stack/runtimeconfig:%s",
    "shim-v2-go": "//stack/shim:shim-v2-go",
    "shim-v2-rust": "//stack/imports:shim-v2-rust",
    "virtiofsd": "//stack/virtiofsd:virtiofsd",
}

# Components that a payload is complete without: what does not work in one that
# lacks it. They join as soon as something builds them.
OPTIONAL_COMPONENTS = {
    "nydus": "the nydus snapshotter",
}

# The architectures, by their Go names.
ARCHITECTURES = sorted(_ARCHITECTURES.keys())

_GO = ["shim-v2-go"]
_RUST = ["shim-v2-rust"]
_VIRTIOFS = ["virtiofsd", "nydus"]
_KERNELS = ["kernel", "kernel-debug"]
_ROOTFS = ["rootfs-image", "rootfs-initrd"]
_COMPOSED = ["rootfs-image", "rootfs-image-coco-extension"]

# For guests that pull their images themselves.
_GUEST_PULL = ["nydus-snapshotter"]

def _qemu(shim):
    return {
        "amd64": shim + ["qemu"] + _VIRTIOFS + _KERNELS + _ROOTFS,
        "arm64": shim + ["qemu"] + _VIRTIOFS + _KERNELS + _ROOTFS + ["ovmf"],
        "ppc64le": shim + ["qemu", "virtiofsd", "kernel", "rootfs-initrd"],
        "s390x": shim + ["qemu", "virtiofsd", "kernel"] + _ROOTFS,
    }

def _on(architectures, components):
    return {arch: components for arch in architectures}

_PC_AND_ARM = ["amd64", "arm64"]

RUNTIME_CLASSES = {
    "clh": _on(_PC_AND_ARM, _GO + ["cloud-hypervisor"] + _VIRTIOFS + _KERNELS + _ROOTFS),
    "clh-azure": _on(["amd64"], _GO + ["cloud-hypervisor"] + _VIRTIOFS + _KERNELS + ["rootfs-image-mariner"]),
    "clh-azure-runtime-rs": _on(["amd64"], _RUST + ["cloud-hypervisor"] + _VIRTIOFS + _KERNELS + ["rootfs-image-mariner"]),
    "clh-runtime-rs": _on(_PC_AND_ARM, _RUST + ["cloud-hypervisor"] + _VIRTIOFS + _KERNELS + _ROOTFS),
    "dragonball": _on(_PC_AND_ARM, _RUST + _VIRTIOFS + ["kernel-dragonball-experimental"] + _ROOTFS),
    "fc": _on(_PC_AND_ARM, _GO + ["firecracker"] + _KERNELS + _ROOTFS),
    "openvmm-azure-runtime-rs": _on(["amd64"], _RUST + ["openvmm"] + _VIRTIOFS + _KERNELS + ["rootfs-image-mariner"]),
    "qemu": _qemu(_GO),
    "qemu-coco-dev": _on(["amd64", "s390x"], _GO + ["qemu"] + _KERNELS + ["rootfs-image-confidential"] + _GUEST_PULL),
    "qemu-coco-dev-runtime-rs": _on(["amd64", "s390x"], _RUST + ["qemu"] + _KERNELS + _COMPOSED + _GUEST_PULL) |
                                _on(["arm64"], _RUST + ["qemu"] + _KERNELS + _COMPOSED + ["ovmf"] + _GUEST_PULL),
    "qemu-nvidia-gpu-snp": _on(["amd64"], _GO + ["qemu-snp-experimental", "kernel-nvidia-gpu", "rootfs-image-nvidia-gpu-confidential", "ovmf-sev"] + _GUEST_PULL),
    "qemu-nvidia-gpu-snp-runtime-rs": _on(["amd64"], _RUST + ["qemu-snp-experimental", "kernel-nvidia-gpu", "rootfs-image-nvidia", "rootfs-image-nvidia-gpu-extension", "rootfs-image-coco-extension", "ovmf-sev"] + _GUEST_PULL),
    "qemu-nvidia-gpu-tdx": _on(["amd64"], _GO + ["qemu-tdx-experimental", "kernel-nvidia-gpu", "rootfs-image-nvidia-gpu-confidential", "ovmf-tdx"] + _GUEST_PULL),
    "qemu-nvidia-gpu-tdx-runtime-rs": _on(["amd64"], _RUST + ["qemu-tdx-experimental", "kernel-nvidia-gpu", "rootfs-image-nvidia", "rootfs-image-nvidia-gpu-extension", "rootfs-image-coco-extension", "ovmf-tdx"] + _GUEST_PULL),
    "qemu-runtime-rs": _qemu(_RUST),
    "qemu-se": _on(["s390x"], _GO + ["qemu", "virtiofsd", "kernel", "rootfs-initrd-confidential", "boot-image-se"] + _GUEST_PULL),
    "qemu-se-runtime-rs": _on(["s390x"], _RUST + ["qemu", "virtiofsd", "kernel", "rootfs-initrd", "rootfs-image-coco-extension", "boot-image-se-runtime-rs"] + _GUEST_PULL),
    "qemu-snp": _on(["amd64"], _GO + ["qemu", "kernel", "rootfs-image-confidential", "ovmf-sev"] + _GUEST_PULL),
    "qemu-snp-runtime-rs": _on(["amd64"], _RUST + ["qemu", "kernel"] + _COMPOSED + ["ovmf-sev"] + _GUEST_PULL),
    "qemu-tdx": _on(["amd64"], _GO + ["qemu", "kernel", "rootfs-image-confidential", "ovmf-tdx"] + _GUEST_PULL),
    "qemu-tdx-runtime-rs": _on(["amd64"], _RUST + ["qemu", "kernel"] + _COMPOSED + ["ovmf-tdx"] + _GUEST_PULL),
    # Peer pods: the sandbox is a virtual machine of a cloud, so nothing of a
    # guest is installed on the node.
    "remote": _on(["amd64", "ppc64le", "s390x"], _GO),
}

PLATFORMS = {
    "clh": ["clh"],
    "coco-dev": ["qemu-coco-dev"],
    "fc": ["fc"],
    "qemu": ["qemu"],
    "remote": ["remote"],
    "se": ["qemu-se"],
    "snp": ["qemu-snp"],
    "tdx": ["qemu-tdx"],
}

# What starts the guests of runtime classes without QEMU: the component, which has a
# program of its name. They take KVM: they emulate no processor.
_HYPERVISORS = ["cloud-hypervisor", "firecracker", "openvmm"]

# Runtime classes whose guest is not on the node.
WITHOUT_GUEST = ["remote"]

_SMALL = ("130Mi", "250m")
_PLAIN = ("320Mi", "250m")
_TEE = ("2048Mi", "1.0")
_GPU = ("10240Mi", "1.0")

# What the machinery of a sandbox takes of a node beside its containers: memory and
# CPU, as Kubernetes writes quantities. Upstream's figures. A confidential guest's
# memory is the host's as a whole, so that of TDX and SNP is high.
OVERHEAD = {
    "clh": _SMALL,
    "clh-azure": _SMALL,
    "clh-azure-runtime-rs": _SMALL,
    "clh-runtime-rs": _SMALL,
    "dragonball": _SMALL,
    "fc": _SMALL,
    "openvmm-azure-runtime-rs": _SMALL,
    "qemu": _PLAIN,
    "qemu-coco-dev": ("160Mi", "250m"),
    "qemu-coco-dev-runtime-rs": _PLAIN,
    "qemu-nvidia-gpu-snp": _GPU,
    "qemu-nvidia-gpu-snp-runtime-rs": _GPU,
    "qemu-nvidia-gpu-tdx": _GPU,
    "qemu-nvidia-gpu-tdx-runtime-rs": _GPU,
    "qemu-runtime-rs": _PLAIN,
    "qemu-se": ("1024Mi", "1.0"),
    "qemu-se-runtime-rs": ("1024Mi", "1.0"),
    "qemu-snp": _TEE,
    "qemu-snp-runtime-rs": _TEE,
    "qemu-tdx": _TEE,
    "qemu-tdx-runtime-rs": _TEE,
    "remote": ("120Mi", "250m"),
}

# The TEE of a runtime class.
TEE = {
    name: tee
    for tee in ["se", "snp", "tdx"]
    for name in RUNTIME_CLASSES
    if tee in name.split("-")
}

_TEE_LABELS = {
    "se": "feature.node.kubernetes.io/cpu-security.se.enabled",
    "snp": "amd.feature.node.kubernetes.io/snp",
    "tdx": "intel.feature.node.kubernetes.io/tdx",
}

# What only nodes with the TEE have: a label that node feature discovery sets.
TEE_LABEL = {name: _TEE_LABELS[tee] for name, tee in TEE.items()}

# What kind of firmware each component of it is. The one for SEV starts no kernel
# but in a guest of SEV: outside of one QEMU does not hand over the digests that it
# compares.
_FIRMWARE = {
    "ovmf": "aavmf",
    "ovmf-sev": "sev",
    "ovmf-tdx": "tdx",
}

def firmware(name, arch = "amd64"):
    """Gives what kind of firmware the guest of a runtime class is started by.

    Args:
      name: name of the runtime class.
      arch: architecture, by its Go name.

    Returns:
      `tdx`, `sev` or `aavmf`; "" where QEMU starts the kernel itself.
    """
    for component in RUNTIME_CLASSES[name].get(arch, []):
        if component in _FIRMWARE:
            return _FIRMWARE[component]
    return ""

def hypervisor(name, arch = "amd64"):
    """Gives the program that starts the guests of a runtime class.

    Args:
      name: name of the runtime class.
      arch: architecture, by its Go name.

    Returns:
      The program's name, in the directory `bin` of an installation.
    """
    for component in RUNTIME_CLASSES[name].get(arch, []):
        if component in _HYPERVISORS:
            return component
    return "qemu-system-" + _ARCHITECTURES[arch].qemu

def is_emulated(name):
    """Tells whether guests of a runtime class run where there is no KVM.

    Args:
      name: name of the runtime class.

    Returns:
      True if QEMU starts them.
    """
    return hypervisor(name, RUNTIME_CLASSES[name].keys()[0]) not in _HYPERVISORS

def has_guest(platform):
    """Tells whether a platform's payload brings a guest.

    Args:
      platform: name of the platform.

    Returns:
      True if any of its runtime classes boots what the payload installs.
    """
    return any([name not in WITHOUT_GUEST for name in PLATFORMS[platform]])

def guest_kind(platform, arch, runtime_classes = RUNTIME_CLASSES):
    """Gives what a platform's payload brings as its guest.

    Args:
      platform: name of the platform.
      arch: architecture of the payload, by its Go name.
      runtime_classes: as RUNTIME_CLASSES.

    Returns:
      `image` for a disk with the measured root, `initrd`, `boot-image` for one file with
      kernel and all, or `elsewhere` where the guest is not on the node.
    """
    if not has_guest(platform):
        return "elsewhere"
    components = [component for name in PLATFORMS[platform] for component in runtime_classes[name][arch]]
    for kind, prefix in {"boot-image": "boot-image-", "image": "rootfs-image"}.items():
        if [component for component in components if component.startswith(prefix)]:
            return kind
    return "initrd"

def architectures_of(platform, platforms = PLATFORMS, runtime_classes = RUNTIME_CLASSES):
    """Gives the architectures of a platform: those that all its runtime classes are for.

    Args:
      platform: name of the platform.
      platforms: as PLATFORMS.
      runtime_classes: as RUNTIME_CLASSES.

    Returns:
      A list of Go names, amd64 first where it is one.
    """
    return [
        arch
        for arch in ARCHITECTURES
        if all([arch in runtime_classes[name] for name in platforms[platform]])
    ]

def main_architecture(platform):
    """Gives the architecture that a platform is tested on first.

    Args:
      platform: name of the platform.

    Returns:
      The architecture's Go name: amd64 for all that are for it.
    """
    return architectures_of(platform)[0]

def overhead(name):
    """Gives what a runtime class takes beside its containers.

    Args:
      name: name of the runtime class.

    Returns:
      Quantities by resource, as Kubernetes writes them.
    """
    memory, cpu = OVERHEAD[name]
    return {"cpu": cpu, "memory": memory}

def tee_selector(name):
    """Gives the labels of the nodes that can run a runtime class.

    Args:
      name: name of the runtime class.

    Returns:
      Labels, beside those that kata-deploy gives to its nodes.
    """
    return {TEE_LABEL[name]: "true"} if name in TEE_LABEL else {}

def runtime_class(name, suffix = "", variant = ""):
    """Gives the RuntimeClass of a runtime class, for the API node.k8s.io/v1.

    Its name and its handler are those that kata-deploy makes a node's container
    runtime know.

    Args:
      name: name of the runtime class.
      suffix: what tells one installation on a node from another.
      variant: what tells a variant of the runtime class from itself: `debug`, where
        the installation has such, or nothing.

    Returns:
      The object, as a dict.
    """
    full = "-".join([part for part in ["kata", name, suffix, variant] if part])
    return {
        "apiVersion": "node.k8s.io/v1",
        "handler": full,
        "kind": "RuntimeClass",
        "metadata": {"name": full},
        "overhead": {"podFixed": overhead(name)},
        "scheduling": {"nodeSelector": {
            "kata-deploy.katacontainers.io/" + (suffix or "default"): "true",
            "katacontainers.io/kata-runtime": "true",
        } | tee_selector(name)},
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
            if arch not in ARCHITECTURES:
                errors.append("runtime class %r: %s" % (name, _among("architecture", arch, ARCHITECTURES)))
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

def is_there(component, arch, components = COMPONENTS):
    """Tells whether something makes a component for an architecture.

    Args:
      component: name of the component.
      arch: architecture, by its Go name.
      components: as COMPONENTS.

    Returns:
      True if it has a target and, where it is imported, is pinned.
    """
    if component in IMPORTS and not pin_of(component, arch):
        return False
    return components[component] != None

def resolve(platform, arch = "amd64", platforms = PLATFORMS, runtime_classes = RUNTIME_CLASSES, components = COMPONENTS):
    """Finds what a platform's payload is made of.

    Args:
      platform: name of the platform.
      arch: architecture of the payload, by its Go name.
      platforms: as PLATFORMS.
      runtime_classes: as RUNTIME_CLASSES.
      components: as COMPONENTS.

    Returns:
      A struct of `components`, a dict from name to label (or None where nothing makes it
      yet for that architecture), and `error`, of which one is None.
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
            if label and "%s" in label:
                label = label % platform
            found[component] = for_architecture(label, arch) if is_there(component, arch, components) else None
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
    missing = [name for name, label in resolved.components.items() if not label and name not in OPTIONAL_COMPONENTS]
    unpinned = [name for name in missing if name in IMPORTS and components[name]]
    unbuilt = [name for name in missing if name not in unpinned]
    reasons = []
    if unbuilt:
        reasons.append("nothing builds %s" % ", ".join(unbuilt))
    if unpinned:
        names = ", ".join(unpinned)
        reasons.append("stack/imports.lock has no digest of %s: pin with `%s -- --registry=HOST %s`" % (names, UPDATE, " ".join(unpinned)))
    if not reasons:
        return None
    return "stack/platforms.bzl: platform %r cannot be built for %s yet: %s" % (platform, arch, "; ".join(reasons))
