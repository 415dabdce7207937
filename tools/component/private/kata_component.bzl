"""Rule that makes a component of files that are there already."""

load(":common.bzl", "COMMON_ATTRS", "EXECUTION_REQUIREMENTS", "add_files", "check_output_names", "providers", "start")

def _kata_component_impl(ctx):
    made = start(ctx, "pack")
    args = made.args
    args.add("--prefix", ctx.attr.prefix)
    inputs = add_files(args, "--file", ctx.attr.files, "files of %s" % ctx.label)
    for path, target in sorted(ctx.attr.symlinks.items()):
        args.add("--symlink", path + "=" + target)
    args.add_all(ctx.attr.executables, before_each = "--executable")

    check_output_names(ctx.label, ctx.attr.outputs.values())
    outputs = {}
    for target, name in ctx.attr.outputs.items():
        files = target[DefaultInfo].files.to_list()
        if len(files) != 1:
            fail("outputs of %s: %s stands for %d files, not one" % (ctx.label, target.label, len(files)))
        outputs[name] = files[0]

    ctx.actions.run(
        mnemonic = "KataComponent",
        progress_message = "Packing component %s %s" % (ctx.attr.component, ctx.attr.version),
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = depset(inputs + ctx.files.packages + ctx.files.source_lists),
        outputs = [made.layer, made.metadata],
        execution_requirements = EXECUTION_REQUIREMENTS,
    )
    return providers(ctx, made, outputs)

_kata_component = rule(
    implementation = _kata_component_impl,
    doc = "Makes a component of files that other rules made. See kata_component.",
    attrs = COMMON_ATTRS | {
        "executables": attr.string_list(
            doc = "Paths, as in `files`, that get mode 0755. All others get 0644.",
        ),
        "files": attr.label_keyed_string_dict(
            doc = "What is installed where below `prefix`. A path that ends in a slash is a directory for all files of a label; a label that is a directory is installed as one.",
            allow_files = True,
        ),
        "outputs": attr.label_keyed_string_dict(
            doc = "Files that other components are made from, and their names.",
            allow_files = True,
        ),
        "prefix": attr.string(
            doc = "Directory of the layer that all paths are below.",
            default = "opt/kata-artifacts/opt/kata",
        ),
        "symlinks": attr.string_dict(
            doc = "Symlinks to make: path below `prefix` to target.",
        ),
    },
)

def kata_component(name, outputs = {}, **kwargs):
    """Makes a component of files that other rules made.

    Args:
      name: name of the target.
      outputs: dict from a name to a label of one file: results that other
        components are made from, as ComponentInfo.outputs.
      **kwargs: component, version, license, arch, files, symlinks, executables,
        prefix, sources, source_lists, packages, and what every rule takes.
    """
    by_label = {}
    for output, label in outputs.items():
        if label in by_label:
            fail("%s: outputs %r and %r are the same file %s" % (name, by_label[label], output, label))
        by_label[label] = output
    _kata_component(
        name = name,
        outputs = by_label,
        **kwargs
    )
