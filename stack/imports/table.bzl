"""What the table of imports and the lock say together."""

load("@kata_imports//:pins.bzl", "PINS")
load("//stack:architectures.bzl", "ARCHITECTURES")
load(":imports.bzl", "IMPORTS", "paths_of")

def imports_table():
    """Gives the table for the program that resolves tags to digests.

    Returns:
      A list of dicts: component, arch, repository, tag ("" where none is known), path (what
      tells the archive among an artefact's layers), license, source.
    """
    return [
        {
            "arch": arch,
            "component": component,
            "license": row.license,
            "path": paths_of(component)[0],
            "repository": row.repository,
            "source": row.source,
            "tag": (row.tag or "").format(machine = ARCHITECTURES[arch].machine),
        }
        for component, row in IMPORTS.items()
        for arch in row.architectures
    ]

def pin_of(component, arch):
    """Gives what the lock says of an import.

    Args:
      component: name of the import.
      arch: architecture, by Go's name.

    Returns:
      A dict of digest, license, purl and version, or None where it is not pinned.
    """
    return PINS.get(component, {}).get(arch)

def source_of(component, arch):
    """Describes an import for the SBOM of what is made from it.

    Args:
      component: name of the import.
      arch: architecture, by Go's name.

    Returns:
      A list for the attribute `sources` of component rules, empty where it is not pinned.
    """
    pin = pin_of(component, arch)
    if not pin:
        return []
    return [json.encode({
        "license": pin["license"],
        "name": component,
        "purl": pin["purl"],
        "sha256": pin["digest"].removeprefix("sha256:"),
        "version": pin["version"],
    })]
