"""The rule that writes what a payload's receipt says into a template."""

load("//payload:def.bzl", "PayloadInfo")

def _payload_manifest_impl(ctx):
    """Reads the receipt alone, so that no layer is made for a page of text."""
    out = ctx.actions.declare_file(ctx.attr.out or ctx.label.name + ".yaml")
    receipt = ctx.attr.payload[PayloadInfo].receipt
    args = ctx.actions.args()
    args.add("fill")
    args.add("--receipt", receipt)
    args.add("--template", ctx.file.template)
    args.add_all(
        ["%s=%s" % (name, ",".join(arches)) for name, arches in ctx.attr.shims.items()],
        before_each = "--shim",
    )
    args.add("--out", out)
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = [receipt, ctx.file.template],
        outputs = [out],
        mnemonic = "FillManifest",
        progress_message = "Writing %{output} for a payload",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

payload_manifest = rule(
    implementation = _payload_manifest_impl,
    doc = "Fills a template with where a payload is published and what it has.",
    attrs = {
        "out": attr.string(doc = "Name of what is written; by default the target's with .yaml behind it."),
        "payload": attr.label(doc = "The payload.", mandatory = True, providers = [PayloadInfo]),
        "shims": attr.string_list_dict(
            doc = "The architectures of each shim that the payload has, by Go's names. Those that the payload lacks are left out.",
            mandatory = True,
        ),
        "template": attr.label(doc = "The template.", allow_single_file = True, mandatory = True),
        "_tool": attr.label(
            default = "//deploy/manifests/cmd/manifests",
            executable = True,
            cfg = "exec",
        ),
    },
)
