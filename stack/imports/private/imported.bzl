"""Rules that make components of what is imported."""

load("//tools/component:def.bzl", "kata_component")

def _imported_files_impl(ctx):
    if len(ctx.outputs.outs) != len(ctx.attr.paths):
        fail("%s: outs and paths must go together" % ctx.label)
    args = ctx.actions.args()
    args.add("--archive", ctx.file.archive)
    for path, file in zip(ctx.attr.paths, ctx.outputs.outs):
        args.add("--file", file, format = path.replace("%", "%%") + "=%s")
    ctx.actions.run(
        mnemonic = "UnpackImport",
        progress_message = "Unpacking import %{label}",
        executable = ctx.executable._unpack,
        arguments = [args],
        inputs = [ctx.file.archive],
        outputs = ctx.outputs.outs,
    )
    return [DefaultInfo(files = depset(ctx.outputs.outs))]

imported_files = rule(
    doc = "Files of an archive of upstream's. One that is not in it is an error.",
    implementation = _imported_files_impl,
    attrs = {
        "archive": attr.label(
            doc = "The archive: a tar, packed by gzip, zstd or not at all.",
            allow_single_file = True,
            mandatory = True,
        ),
        "outs": attr.output_list(
            doc = "The files.",
            mandatory = True,
        ),
        "paths": attr.string_list(
            doc = "For each of `outs`, its path in the archive.",
            mandatory = True,
        ),
        "_unpack": attr.label(
            default = Label("//stack/imports/unpack"),
            executable = True,
            cfg = "exec",
        ),
    },
)

def imported_component(name, component, arch, archive, version, license, programs, files, paths, sources, **kwargs):
    """Makes a component of what upstream built.

    Args:
      name: name of the target; `<name>.files` are its files.
      component: the component's name upstream.
      arch: architecture, by Go's name.
      archive: label of upstream's archive.
      version: what upstream calls it.
      license: an SPDX expression.
      programs: where programs are installed, below the prefix.
      files: where other files are installed.
      paths: for `programs` and then `files`, their paths in the archive.
      sources: what the SBOM says that it is made from.
      **kwargs: what every rule takes.
    """
    outs = {path: "%s.files/%s" % (name, path) for path in programs + files}
    imported_files(
        name = name + ".files",
        archive = archive,
        outs = outs.values(),
        paths = paths,
        **kwargs
    )
    kata_component(
        name = name,
        arch = arch,
        component = component,
        executables = programs,
        files = {label: path for path, label in outs.items()},
        license = license,
        sources = sources,
        version = version,
        **kwargs
    )

def _unpinned_import_impl(ctx):
    fail(("{component} for {arch} is not pinned: stack/imports.lock has no digest of it. Pin it with " +
          "`bazel run //stack:imports.update -- --registry=HOST {component}`").format(
        arch = ctx.attr.arch,
        component = ctx.attr.component,
    ))

unpinned_import = rule(
    doc = "Stands where an import would be while none is pinned, so that only a build that asks for it fails.",
    implementation = _unpinned_import_impl,
    attrs = {
        "arch": attr.string(
            doc = "The architecture that it would be for.",
            mandatory = True,
        ),
        "component": attr.string(
            doc = "Upstream's name of it.",
            mandatory = True,
        ),
    },
)
