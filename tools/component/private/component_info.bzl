"""The provider that every component gives."""

ComponentInfo = provider(
    doc = """One component: a part of the stack that is built once and becomes one layer.

The layer is the component's release artefact and the image layer of every
payload that holds it. What only needs to know about a component reads its
metadata, so that layer bytes stay where they are.""",
    fields = {
        "arch": "Architecture, as images name it: amd64.",
        "layer": "File: the layer, a deterministic tar compressed with zstd.",
        "license": "SPDX licence expression.",
        "metadata": "File: JSON that describes the component, its layer, every path in it, and its sources. See tools/component/metadata.",
        "name": "The component's name upstream, for example shim-v2-go.",
        "outputs": "dict from a name to a File: results beside the layer that other components are made from, for example root_hash.",
        "version": "Version of what the component is made from.",
    },
)
