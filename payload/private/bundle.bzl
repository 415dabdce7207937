"""The rules that hand a payload to a program: its receipt, and all of it as runfiles."""

load(":payload_info.bzl", "PayloadInfo")

def rlocation(ctx, file):
    """Gives a file's path among runfiles.

    Args:
      ctx: the rule's context.
      file: the file.

    Returns:
      The path, which starts with the name of the file's repository.
    """
    if file.short_path.startswith("../"):
        return file.short_path[len("../"):]
    return ctx.workspace_name + "/" + file.short_path

def write_bundle(ctx, payload, suffix = ""):
    """Writes the document that says where a payload's files are.

    Args:
      ctx: the rule's context.
      payload: a PayloadInfo.
      suffix: what tells it from another document of the target.

    Returns:
      The document, a File.
    """
    out = ctx.actions.declare_file(ctx.label.name + suffix + ".json")
    ctx.actions.write(
        output = out,
        content = json.encode_indent(
            struct(
                index = rlocation(ctx, payload.index),
                manifest = rlocation(ctx, payload.manifest),
                config = rlocation(ctx, payload.config),
                receipt = rlocation(ctx, payload.receipt),
                components = [
                    struct(
                        name = c.name,
                        metadata = rlocation(ctx, c.metadata),
                        layer = rlocation(ctx, c.layer),
                    )
                    for c in payload.components
                ],
            ),
            indent = "  ",
        ) + "\n",
    )
    return out

def documents(payload):
    """Gives the files of a payload that are not layers.

    Args:
      payload: a PayloadInfo.

    Returns:
      A list of Files.
    """
    return [payload.index, payload.manifest, payload.config, payload.receipt] + [c.metadata for c in payload.components]

def _payload_bundle_impl(ctx):
    """Writes the document; layers and documents become runfiles."""
    payload = ctx.attr.payload[PayloadInfo]
    out = write_bundle(ctx, payload)
    return [DefaultInfo(
        files = depset([out]),
        runfiles = ctx.runfiles(files = [out] + documents(payload) + [c.layer for c in payload.components]),
    )]

payload_bundle = rule(
    implementation = _payload_bundle_impl,
    doc = "All of a payload as runfiles of whoever has it in `data`, found through one document.",
    attrs = {
        "payload": attr.label(mandatory = True, providers = [PayloadInfo]),
    },
)

def _payload_receipt_impl(ctx):
    """Hands on the receipt alone."""
    receipt = ctx.attr.payload[PayloadInfo].receipt
    return [DefaultInfo(
        files = depset([receipt]),
        runfiles = ctx.runfiles(files = [receipt]),
    )]

payload_receipt = rule(
    implementation = _payload_receipt_impl,
    doc = "A payload's receipt.",
    attrs = {
        "payload": attr.label(mandatory = True, providers = [PayloadInfo]),
    },
)
