"""What the component rules have in common."""

load(":component_info.bzl", "ComponentInfo")

# An action without network wherever it runs; the sandbox already has none.
EXECUTION_REQUIREMENTS = {"block-network": "1"}

# An action that stays on the machine that asks for it: no cache that others read
# gets its results, and no worker its inputs. The disk cache keeps results, since
# it is the user's own directory, as the inputs are the user's own files.
_SECRET = {
    "no-remote-cache": "1",
    "no-remote-exec": "1",
}

def execution_requirements(secret):
    """Gives the execution requirements of a component's action.

    Tags would not do: they do not reach actions in this repository, since those
    of a test are for the test alone.

    Args:
      secret: whether the action must stay on this machine.

    Returns:
      A dict for ctx.actions.run.
    """
    return EXECUTION_REQUIREMENTS | _SECRET if secret else EXECUTION_REQUIREMENTS

COMMON_ATTRS = {
    "arch": attr.string(
        doc = "Architecture, as images name it.",
        default = "amd64",
        values = ["amd64", "arm64", "ppc64le", "s390x"],
    ),
    "component": attr.string(
        doc = "The component's name upstream.",
        mandatory = True,
    ),
    "license": attr.string(
        doc = "SPDX licence expression.",
        mandatory = True,
    ),
    "packages": attr.label_list(
        doc = "Lists (JSON) of the Debian packages that the component is made from, for its SBOM entry: the `lock.json` of a package set, or the `packages` of a debian_root.",
        allow_files = [".json"],
    ),
    "source_lists": attr.label_list(
        doc = "Files with more of `sources`: a JSON list each, as go_module_binary writes it.",
        allow_files = [".json"],
    ),
    "sources": attr.string_list(
        doc = "Other sources for the SBOM entry, each a JSON object with name and version, and where known license, purl and sha256.",
    ),
    "version": attr.string(
        doc = "Version of what the component is made from.",
        mandatory = True,
    ),
    "_tool": attr.label(
        default = Label("//tools/component"),
        executable = True,
        cfg = "exec",
    ),
}

def start(ctx, command):
    """Declares a component's two files and begins the tool's arguments.

    Args:
      ctx: the rule's context.
      command: the tool's sub-command.

    Returns:
      A struct of args, layer and metadata.
    """
    layer = ctx.actions.declare_file(ctx.label.name + ".tar.zst")
    metadata = ctx.actions.declare_file(ctx.label.name + ".component.json")
    args = ctx.actions.args()
    args.set_param_file_format("multiline")
    args.use_param_file("@%s", use_always = True)
    args.add(command)
    args.add("--name", ctx.attr.component)
    args.add("--component-version", ctx.attr.version)
    args.add("--license", ctx.attr.license)
    args.add("--arch", ctx.attr.arch)
    args.add("--layer", layer)
    args.add("--metadata", metadata)
    args.add_all(ctx.attr.sources, before_each = "--source")
    args.add_all(ctx.files.source_lists, before_each = "--source-list")
    args.add_all(ctx.files.packages, before_each = "--packages")
    return struct(args = args, layer = layer, metadata = metadata)

def add_files(args, flag, files, what):
    """Adds a flag NAME=PATH for each file of a label_keyed_string_dict.

    A name that ends in a slash is a directory: each of the label's files goes
    there under its path below the label's package. Any other name is that of
    the one file that the label stands for.

    Args:
      args: the Args to add to.
      flag: the flag, for example --file.
      files: the attribute's value.
      what: what the attribute is called in errors.

    Returns:
      The files, for the action's inputs.
    """
    inputs = []
    for target, name in files.items():
        given = target[DefaultInfo].files.to_list()
        if name.endswith("/"):
            for file in given:
                args.add(flag, file, format = name.replace("%", "%%") + _below_package(target.label, file).replace("%", "%%") + "=%s")
        elif len(given) == 1:
            args.add(flag, given[0], format = name.replace("%", "%%") + "=%s")
        else:
            fail("%s: %s is to be %r, but stands for %d files: name one, or end the name in a slash" % (what, target.label, name, len(given)))
        inputs.extend(given)
    return inputs

def _below_package(label, file):
    package = label.package + "/" if label.package else ""
    path = file.short_path
    if path.startswith("../"):
        path = path.split("/", 2)[2]
    return path.removeprefix(package)

def providers(ctx, made, outputs):
    """Gives the providers of a component.

    Args:
      ctx: the rule's context.
      made: what start returned.
      outputs: dict from a name to a File.

    Returns:
      A list of providers.
    """
    groups = {name: depset([file]) for name, file in outputs.items()}
    return [
        DefaultInfo(files = depset([made.layer, made.metadata] + outputs.values())),
        OutputGroupInfo(
            layer = depset([made.layer]),
            metadata = depset([made.metadata]),
            **groups
        ),
        ComponentInfo(
            name = ctx.attr.component,
            version = ctx.attr.version,
            license = ctx.attr.license,
            arch = ctx.attr.arch,
            layer = made.layer,
            metadata = made.metadata,
            outputs = outputs,
        ),
    ]

def check_output_names(label, names):
    """Refuses names of outputs that the rules' own output groups have."""
    for name in names:
        if name in ["layer", "metadata"]:
            fail("%s: an output cannot be called %r: every component has that" % (label, name))
