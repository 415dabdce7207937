"""The architectures that payloads are for, and what each calls itself where."""

# By Go's name. All components are built on amd64: for the others by cross compilers.
ARCHITECTURES = {
    "amd64": struct(
        cross = "",
        debian = "amd64",
        emulator = "",
        kernel = "x86_64",
        machine = "x86_64",
        qemu = "x86_64",
        rust = "x86_64-unknown-linux-gnu",
        suite = "trixie",
        triplet = "x86_64-linux-gnu",
    ),
    "arm64": struct(
        cross = "aarch64-linux-gnu-",
        debian = "arm64",
        emulator = "qemu-aarch64",
        kernel = "arm64",
        machine = "aarch64",
        qemu = "aarch64",
        rust = "aarch64-unknown-linux-gnu",
        suite = "trixie",
        triplet = "aarch64-linux-gnu",
    ),
    "ppc64le": struct(
        cross = "powerpc64le-linux-gnu-",
        debian = "ppc64el",
        emulator = "qemu-ppc64le",
        kernel = "powerpc",
        machine = "ppc64le",
        qemu = "ppc64",
        rust = "powerpc64le-unknown-linux-gnu",
        suite = "bookworm",
        triplet = "powerpc64le-linux-gnu",
    ),
    "s390x": struct(
        cross = "s390x-linux-gnu-",
        debian = "s390x",
        emulator = "qemu-s390x",
        kernel = "s390",
        machine = "s390x",
        qemu = "s390x",
        rust = "s390x-unknown-linux-gnu",
        suite = "bookworm",
        triplet = "s390x-linux-gnu",
    ),
}

# Those that the machine which builds is not.
FOREIGN = [arch for arch in ARCHITECTURES if arch != "amd64"]

def for_architecture(name, arch):
    """Gives the name or label of what is built for an architecture.

    Args:
      name: that for amd64.
      arch: the architecture, by Go's name.

    Returns:
      The same for amd64, `<name>-<arch>` for the others.
    """
    return name if arch == "amd64" else "%s-%s" % (name, arch)

def tags_for(arch):
    """Gives the tags of what is built for an architecture.

    Whoever builds `//...` wants what this machine can run. The others are built when
    they are asked for by name, or by what needs them.

    Args:
      arch: the architecture, by Go's name.

    Returns:
      A list of tags.
    """
    return [] if arch == "amd64" else ["manual"]

def foreign_tests():
    """Gives what tests of what is built for other architectures are compatible with.

    Returns:
      A value for `target_compatible_with`: they run for whoever asks with
      `--config=foreign`, and are skipped for all others.
    """
    return select({
        Label("//stack:with_foreign_architectures"): [],
        "//conditions:default": ["@platforms//:incompatible"],
    })
