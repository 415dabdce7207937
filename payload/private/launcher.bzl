"""The rules that `bazel run` takes: the tool with a payload in its runfiles."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load(":bundle.bzl", "documents", "rlocation", "write_bundle")
load(":payload_info.bzl", "PayloadInfo")

def _launcher(ctx, args, layers):
    """Puts the tool under the target's name, with its arguments in a file beside it."""
    payload = ctx.attr.payload[PayloadInfo]
    bundle = write_bundle(ctx, payload)
    executable = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(
        output = executable,
        target_file = ctx.executable._tool,
        is_executable = True,
    )
    arguments = ctx.actions.declare_file(ctx.label.name + ".args")
    ctx.actions.write(
        output = arguments,
        content = json.encode(args + ["--bundle=" + rlocation(ctx, bundle)]) + "\n",
    )
    runfiles = ctx.runfiles(
        files = [arguments, bundle] + documents(payload) + layers,
    ).merge(ctx.attr._tool[DefaultInfo].default_runfiles)
    return [DefaultInfo(
        executable = executable,
        files = depset([executable]),
        runfiles = runfiles,
    )]

_ATTRS = {
    "payload": attr.label(mandatory = True, providers = [PayloadInfo]),
    "_tool": attr.label(
        default = "//payload/cmd/payload",
        executable = True,
        cfg = "target",
    ),
}

def _payload_publish_impl(ctx):
    """Publishing needs the layers, and the channel that was asked for."""
    return _launcher(
        ctx,
        ["publish", "--channel=" + ctx.attr._channel[BuildSettingInfo].value],
        [c.layer for c in ctx.attr.payload[PayloadInfo].components],
    )

payload_publish = rule(
    implementation = _payload_publish_impl,
    doc = "Publishes a payload when it is run.",
    attrs = _ATTRS | {
        "_channel": attr.label(default = "//payload:channel"),
    },
    executable = True,
)

def _payload_inspect_impl(ctx):
    """Looking into a payload needs no layer, so none is made or fetched for it."""
    return _launcher(ctx, ["inspect"], [])

payload_inspect = rule(
    implementation = _payload_inspect_impl,
    doc = "Shows what is in a payload when it is run.",
    attrs = _ATTRS,
    executable = True,
)
