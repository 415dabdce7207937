"""The rule that declares the package that the targets of a repository came from."""

load("//providers:package_metadata_info.bzl", "PackageMetadataInfo")

def _package_metadata_impl(ctx):
    metadata = ctx.actions.declare_file(ctx.label.name + ".package-metadata.json")
    ctx.actions.write(
        output = metadata,
        content = json.encode({
            "attributes": {},
            "label": str(ctx.label),
            "purl": ctx.attr.purl,
        }),
    )
    return [
        DefaultInfo(files = depset([metadata])),
        PackageMetadataInfo(metadata = metadata),
    ]

_package_metadata = rule(
    implementation = _package_metadata_impl,
    doc = "Declares the purl of the package that a repository holds.",
    attrs = {
        "purl": attr.string(
            doc = "Package URL, see https://github.com/package-url/purl-spec.",
            mandatory = True,
        ),
    },
    provides = [PackageMetadataInfo],
)

def package_metadata(name, **kwargs):
    """Declares the purl of the package that a repository holds.

    Args:
      name: name of the target
      **kwargs: the rule's attributes
    """

    # A repository names this target as the metadata of all its targets; without
    # this it would be its own.
    _package_metadata(name = name, applicable_licenses = [], **kwargs)
