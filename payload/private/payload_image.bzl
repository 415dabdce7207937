"""The rule that makes a payload's documents."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("//stack/agent:def.bzl", "AgentInfo")
load("//tools/component:def.bzl", "ComponentInfo")
load(":payload_info.bzl", "PayloadInfo")

def _text(label):
    """Writes a label as people type it."""
    return str(label).lstrip("@")

def _ordered(ctx):
    """Puts the components into the order of the table and checks that they are the table's."""
    by_name = {}
    me = _text(ctx.label)
    for target in ctx.attr.components:
        info = target[ComponentInfo]
        if info.name in by_name:
            fail("%s: component %s is there twice: by %s and %s" % (me, info.name, _text(by_name[info.name].label), _text(target.label)))
        by_name[info.name] = struct(info = info, label = target.label)
    missing = [name for name in ctx.attr.expected if name not in by_name]
    if missing:
        fail("%s: platform %s needs %s, which `components` lacks; stack/platforms.bzl lists what it needs" % (me, ctx.attr.platform, ", ".join(missing)))
    extra = [name for name in by_name if name not in ctx.attr.expected]
    if extra:
        fail("%s: `components` has %s, which platform %s does not need; stack/platforms.bzl lists what it needs" % (me, ", ".join(extra), ctx.attr.platform))
    return [by_name[name].info for name in ctx.attr.expected]

def _impl(ctx):
    """Makes all documents in one action that reads what components say about themselves."""
    components = _ordered(ctx)
    config = ctx.actions.declare_file(ctx.label.name + ".config.json")
    manifest = ctx.actions.declare_file(ctx.label.name + ".manifest.json")
    index = ctx.actions.declare_file(ctx.label.name + ".index.json")
    receipt = ctx.actions.declare_file(ctx.label.name + ".receipt.json")

    args = ctx.actions.args()
    args.add("index")
    args.add("--platform", ctx.attr.platform)
    args.add("--arch", ctx.attr.arch)
    args.add("--registry", ctx.attr._registry[BuildSettingInfo].value)
    args.add("--agent", ctx.attr.agent[AgentInfo].kind if ctx.attr.agent else "none")
    args.add("--inputs", ctx.attr.inputs)
    if ctx.attr.revision:
        args.add("--revision", ctx.attr.revision)
    args.add_all(ctx.attr.runtime_classes, before_each = "--runtime-class")
    args.add_all(ctx.attr.lacks, before_each = "--lacks")
    args.add_all([c.metadata for c in components], before_each = "--component")
    args.add_all(ctx.files.configurations, before_each = "--configuration")
    args.add("--config", config)
    args.add("--manifest", manifest)
    args.add("--index", index)
    args.add("--receipt", receipt)
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [args],
        # Never a layer: a payload costs kilobytes.
        inputs = [c.metadata for c in components] + ctx.files.configurations,
        outputs = [config, manifest, index, receipt],
        mnemonic = "PayloadManifest",
        progress_message = "Describing payload %{label}",
    )
    return [
        DefaultInfo(files = depset([index, manifest, config, receipt])),
        OutputGroupInfo(receipt = depset([receipt])),
        PayloadInfo(
            platform = ctx.attr.platform,
            config = config,
            manifest = manifest,
            index = index,
            receipt = receipt,
            components = components,
        ),
    ]

payload_image = rule(
    implementation = _impl,
    doc = "Makes a payload's image config, manifest, index and receipt from its components' metadata.",
    attrs = {
        "agent": attr.label(
            doc = "The agent that the guest image carries, for a label; a payload without a guest has none. It is not built for this.",
            providers = [AgentInfo],
        ),
        "arch": attr.string(doc = "Architecture, by its Go name.", default = "amd64"),
        "components": attr.label_list(
            doc = "The components, in any order.",
            mandatory = True,
            providers = [ComponentInfo],
        ),
        "configurations": attr.label_list(
            doc = "Configurations of the runtime classes. Each must be in a component, and what it names as well.",
            allow_files = [".toml"],
        ),
        "expected": attr.string_list(
            doc = "Names of the platform's components, in the order of their layers.",
            mandatory = True,
        ),
        "inputs": attr.string(
            doc = "Where the inputs came from.",
            default = "pinned",
        ),
        "lacks": attr.string_list(doc = "Optional components that nothing builds, for a label."),
        "platform": attr.string(doc = "Name of the platform.", mandatory = True),
        "revision": attr.string(doc = "The source revision, for a label. It makes every commit a new payload, so it is empty by default."),
        "runtime_classes": attr.string_list(doc = "Runtime classes that the payload serves."),
        "_registry": attr.label(default = "//payload:registry"),
        "_tool": attr.label(
            default = "//payload/cmd/payload",
            executable = True,
            cfg = "exec",
        ),
    },
    provides = [PayloadInfo],
)
