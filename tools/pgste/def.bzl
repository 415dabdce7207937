"""A rule that marks programs for s390x which make virtual machines."""

def _pgste_program_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    args = ctx.actions.args()
    args.add("--input", ctx.file.src)
    args.add("--output", out)
    ctx.actions.run(
        mnemonic = "Pgste",
        progress_message = "Marking %{output} as one that makes virtual machines",
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = [ctx.file.src],
        outputs = [out],
    )
    return [DefaultInfo(files = depset([out]))]

pgste_program = rule(
    implementation = _pgste_program_impl,
    doc = "Marks a static program for s390x as one that makes virtual machines, as a linker does with --s390-pgste.",
    attrs = {
        "src": attr.label(
            doc = "The program.",
            allow_single_file = True,
            mandatory = True,
        ),
        "_tool": attr.label(
            default = "//tools/pgste",
            executable = True,
            cfg = "exec",
        ),
    },
)
