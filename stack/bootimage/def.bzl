"""The boot image for Secure Execution."""

load("//tools/component:def.bzl", "root_component")

# The loaders, the kernel, and what is in the initrd.
_LICENSE = "MIT AND (GPL-2.0-only WITH Linux-syscall-note) AND Apache-2.0 AND BSD-3-Clause AND GPL-2.0-only AND GPL-2.0-or-later AND GPL-3.0-or-later AND LGPL-2.1-or-later AND MPL-2.0"

_PACKAGE = "//stack/bootimage:"

def boot_image(name, kernel, initrd, loaders, version, **kwargs):
    """Makes the component `boot-image-se`.

    Args:
      name: name of the target.
      kernel: the guest kernel, a bzImage for s390x.
      initrd: the layer of the component with the guest's initrd.
      loaders: Debian's package of s390-tools for s390x.
      version: version of the kernel. What it says of the host keys is added.
      **kwargs: packages, root, and what every rule takes.
    """
    root_component(
        name = name,
        srcs = {
            initrd: "initrd.tar.zst",
            kernel: "kernel",
            loaders: "s390-tools.deb",
            Label(_PACKAGE + "command-line.sh"): "command-line.sh",
            Label(_PACKAGE + "command-line.txt"): "command-line.txt",
            Label(_PACKAGE + "host_key_certificates"): "certificates/",
            Label(_PACKAGE + "host_key_document"): "host-keys/",
            Label("//stack/bootimage/cmd/seimage"): "seimage",
        },
        arch = "s390x",
        component = "boot-image-se",
        env = select({
            Label(_PACKAGE + "is_unverified"): {"VERIFY": "no"},
            "//conditions:default": {"VERIFY": "yes"},
        }) | select({
            Label(_PACKAGE + "is_testkey"): {"TEST_KEY": "true"},
            "//conditions:default": {"TEST_KEY": "false"},
        }),
        # Encrypting takes a second.
        heavy = False,
        license = _LICENSE,
        # What attestation compares.
        outputs = {"header": "header"},
        script = Label(_PACKAGE + "build.sh"),
        # Which machines may look into the guest is nobody else's business, and an
        # image for machines is made once: with keys that nobody has afterwards.
        secret = True,
        version = version + select({
            Label(_PACKAGE + "is_testkey"): "-testkey",
            "//conditions:default": "",
        }) + select({
            Label(_PACKAGE + "is_unverified"): "-unverified",
            "//conditions:default": "",
        }),
        **kwargs
    )
