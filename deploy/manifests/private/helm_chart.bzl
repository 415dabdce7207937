"""The rule that packs a Helm chart."""

def _helm_chart_impl(ctx):
    out = ctx.actions.declare_file(ctx.attr.out)
    args = ctx.actions.args()
    args.add("pack")
    args.add("--root", ctx.label.package)
    args.add("--out", out)
    args.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = ctx.files.srcs,
        outputs = [out],
        mnemonic = "HelmPackage",
        progress_message = "Packing chart %{label}",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

helm_chart = rule(
    implementation = _helm_chart_impl,
    doc = "Packs the files of a chart as `helm package` does, but the same bytes each time.",
    attrs = {
        "out": attr.string(doc = "Name of the archive.", mandatory = True),
        "srcs": attr.label_list(
            doc = "The chart's files, all of this package: Chart.yaml and what is beside and below it.",
            allow_files = True,
            mandatory = True,
        ),
        "_tool": attr.label(
            default = "//deploy/manifests/cmd/manifests",
            executable = True,
            cfg = "exec",
        ),
    },
)
