"""The rules that `bazel run` takes: the tool with a payload in its runfiles."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load(":bundle.bzl", "documents", "rlocation", "write_bundle")
load(":payload_info.bzl", "PayloadInfo")

def _launcher(ctx, args, payloads, layers):
    """Puts the tool under the target's name, with its arguments in a file beside it."""
    files = []
    for i, payload in enumerate(payloads):
        bundle = write_bundle(ctx, payload, "." + str(i) if i else "")
        args = args + ["--bundle=" + rlocation(ctx, bundle)]
        files += [bundle] + documents(payload)
        if layers:
            files += [c.layer for c in payload.components]
    executable = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(
        output = executable,
        target_file = ctx.executable._tool,
        is_executable = True,
    )
    arguments = ctx.actions.declare_file(ctx.label.name + ".args")
    ctx.actions.write(
        output = arguments,
        content = json.encode(args) + "\n",
    )
    runfiles = ctx.runfiles(files = [arguments] + files).merge(ctx.attr._tool[DefaultInfo].default_runfiles)
    return [DefaultInfo(
        executable = executable,
        files = depset([executable]),
        runfiles = runfiles,
    )]

_PAYLOAD = {
    "payload": attr.label(mandatory = True, providers = [PayloadInfo]),
}

_ATTRS = {
    "_tool": attr.label(
        default = "//payload/cmd/payload",
        executable = True,
        cfg = "target",
    ),
}

def _publish(ctx, payloads):
    """Publishing needs the layers, and the channel that was asked for."""
    args = ["publish", "--channel=" + ctx.attr._channel[BuildSettingInfo].value]
    return _launcher(ctx, args, [payload[PayloadInfo] for payload in payloads], True)

def _payload_publish_impl(ctx):
    return _publish(ctx, [ctx.attr.payload])

_CHANNEL = {
    "_channel": attr.label(default = "//payload:channel"),
}

payload_publish = rule(
    implementation = _payload_publish_impl,
    doc = "Publishes a payload when it is run.",
    attrs = _ATTRS | _PAYLOAD | _CHANNEL,
    executable = True,
)

def _payload_publish_all_impl(ctx):
    return _publish(ctx, ctx.attr.payloads)

payload_publish_all = rule(
    implementation = _payload_publish_all_impl,
    doc = "Publishes a platform's payloads for several architectures, and an index of all, when it is run.",
    attrs = _ATTRS | _CHANNEL | {
        "payloads": attr.label_list(
            doc = "The payloads, of one platform.",
            mandatory = True,
            allow_empty = False,
            providers = [PayloadInfo],
        ),
    },
    executable = True,
)

def _payload_inspect_impl(ctx):
    """Looking into a payload needs no layer, so none is made or fetched for it."""
    return _launcher(ctx, ["inspect"], [ctx.attr.payload[PayloadInfo]], False)

payload_inspect = rule(
    implementation = _payload_inspect_impl,
    doc = "Shows what is in a payload when it is run.",
    attrs = _ATTRS | _PAYLOAD,
    executable = True,
)
