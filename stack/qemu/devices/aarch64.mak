# What Kata's runtimes plug on the machine virt, and nothing else: QEMU is configured with
# --without-default-devices, so a device that is not here (or selected by one that is) is absent.
CONFIG_ARM_VIRT=y

# PCI topology: root ports for cold and hot plug, bridges for the runtime's hot-plug slots.
CONFIG_PCIE_PORT=y
CONFIG_PCIE_PCI_BRIDGE=y
CONFIG_PCI_BRIDGE=y
CONFIG_PXB=y
# The ACPI tables do not link without these two.
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y

# Virtio, in the emulator.
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_IOMMU=y
CONFIG_VIRTIO_MEM=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_RNG=y
CONFIG_VIRTIO_SCSI=y
CONFIG_VIRTIO_SERIAL=y
CONFIG_SCSI=y
CONFIG_NVDIMM=y

# Virtio, in the host's kernel or in another process.
CONFIG_VHOST_VSOCK=y
CONFIG_VHOST_USER_BLK=y
CONFIG_VHOST_USER_FS=y
CONFIG_VHOST_USER_VSOCK=y

# Devices of the host.
CONFIG_IOMMUFD=y
CONFIG_VFIO=y
CONFIG_VFIO_PCI=y

# A guest's panic reaches the runtime through this one.
CONFIG_PVPANIC_PCI=y
