"""The runtime classes that have a configuration."""

# The guest of a confidential sandbox shares no file system with the host, so
# the configuration names no virtiofsd, which the payload does not have.
_NO_SHARED_FS = {
    "DEFVALIDVIRTIOFSDAEMONPATHS": "[]",
    "DEFVIRTIOFSDAEMON": "",
}

# The kernel finds the guest's root under dm-verity on a disk; the runtime's nvdimm is
# for images without.
_MEASURED = {
    "DEFDISABLEIMAGENVDIMM": "true",
}

# Runtime classes with a configuration, and what each has beside its template.
CONFIGURATIONS = {
    "clh": struct(
        image = "",
        kernel_params_variable = "KERNELPARAMS",
        root = "rootfs-image",
        substitutions = _MEASURED,
    ),
    # Firecracker has no nvdimm to begin with.
    "fc": struct(
        image = "",
        kernel_params_variable = "KERNELPARAMS",
        root = "rootfs-image",
        substitutions = {},
    ),
    "qemu": struct(
        image = "",
        kernel_params_variable = "KERNELPARAMS",
        root = "rootfs-image",
        substitutions = _MEASURED,
    ),
    "qemu-coco-dev": struct(
        image = "",
        kernel_params_variable = "KERNELQEMUCOCODEVPARAMS",
        root = "rootfs-image-confidential",
        substitutions = _NO_SHARED_FS | _MEASURED,
    ),
    # All of the guest is in the boot image, the kernel parameters as well.
    "qemu-se": struct(
        image = "",
        kernel_params_variable = "",
        root = None,
        substitutions = _NO_SHARED_FS,
    ),
    "qemu-snp": struct(
        # This runtime's template has an initrd; upstream has measured the image since.
        image = "/opt/kata/share/kata-containers/kata-containers-confidential.img",
        kernel_params_variable = "KERNELPARAMS",
        root = "rootfs-image-confidential",
        substitutions = _NO_SHARED_FS,
    ),
    "qemu-tdx": struct(
        image = "",
        kernel_params_variable = "KERNELTDXPARAMS",
        root = "rootfs-image-confidential",
        substitutions = _NO_SHARED_FS | {
            # The template takes the firmware from the variable for GPU guests.
            "FIRMWAREPATH_NV": "/opt/kata/share/ovmf/OVMF.inteltdx.fd",
        },
    ),
    "remote": struct(
        image = "",
        kernel_params_variable = "",
        root = None,
        substitutions = {},
    ),
}

# The runtime classes of the Go runtime that have none: the component that they need and
# nothing builds, and why that keeps them from one. Without the image there is no root hash
# to tell the guest, and a guest that is told none runs whatever is put in the image's
# place; of a confidential one the attestation would prove nothing. So they wait for it.
WITHOUT_CONFIGURATION = {
    "clh-azure": struct(
        component = "rootfs-image-mariner",
        reason = "its guest is an image of Azure Linux, and the runtime's module has no template for it either",
    ),
    "qemu-nvidia-gpu-snp": struct(
        component = "rootfs-image-nvidia-gpu-confidential",
        reason = "its guest is an image with NVIDIA's drivers; the module's template names an initrd, which upstream has given up since",
    ),
    "qemu-nvidia-gpu-tdx": struct(
        component = "rootfs-image-nvidia-gpu-confidential",
        reason = "its guest is an image with NVIDIA's drivers; the module's template names an initrd, which upstream has given up since",
    ),
}
