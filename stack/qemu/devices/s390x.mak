# What Kata's runtimes plug on the machine s390-ccw-virtio, and nothing else: QEMU is configured with
# --without-default-devices, so a device that is not here (or selected by one that is) is absent.
CONFIG_S390_CCW_VIRTIO=y

# Bridges for the runtime's hot-plug slots.
CONFIG_PCI_BRIDGE=y

# Virtio, in the emulator.
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_MEM=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_RNG=y
CONFIG_VIRTIO_SCSI=y
CONFIG_VIRTIO_SERIAL=y
CONFIG_SCSI=y

# Virtio, in the host's kernel or in another process.
CONFIG_VHOST_VSOCK=y
CONFIG_VHOST_USER_BLK=y
CONFIG_VHOST_USER_FS=y
CONFIG_VHOST_USER_VSOCK=y

# Devices of the host.
CONFIG_IOMMUFD=y
CONFIG_VFIO=y
CONFIG_VFIO_PCI=y
CONFIG_VFIO_AP=y
CONFIG_VFIO_CCW=y
