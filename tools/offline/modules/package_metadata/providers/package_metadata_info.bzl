"""The provider that names the package a target came from."""

PackageMetadataInfo = provider(
    doc = "Identifies the package that a target belongs to.",
    fields = {
        "metadata": "File: JSON with the package's purl.",
    },
)
