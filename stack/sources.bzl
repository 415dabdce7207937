"""What components are made from, for their SBOM entries."""

load("@debian//:versions.bzl", "VERSIONS")

def debian_sources(set, licenses):
    """Describes Debian packages whose files are linked into a component or lie in it.

    Args:
      set: name of the set in tools/debian/sets.json that the packages are in.
      licenses: dict from the name of a package to the licence of those files.

    Returns:
      A list for the attribute `sources` of component rules.
    """
    return [
        json.encode({
            "license": license,
            "name": package,
            "purl": "pkg:deb/debian/%s@%s" % (package, VERSIONS[set][package]),
            "version": VERSIONS[set][package],
        })
        for package, license in licenses.items()
    ]
