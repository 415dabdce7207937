"""Provider of a root made of Debian packages."""

DOC = "A file system tree made of Debian packages."

FIELDS = {
    "tar": "File: the tree, as a tar archive compressed with zstd.",
    "packages": "File: JSON list of the packages in it (package, version, arch, source, sourceVersion, sha256).",
}

DebianRootInfo = provider(
    doc = DOC,
    fields = FIELDS,
)
