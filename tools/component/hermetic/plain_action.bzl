"""An action like any other of this build, that looks around."""

def _plain_action_impl(ctx):
    report = ctx.actions.declare_file(ctx.label.name + ".report")
    args = ctx.actions.args()
    args.add(ctx.file.script)
    ctx.actions.run(
        mnemonic = "Probe",
        progress_message = "Looking out of the sandbox",
        executable = ctx.executable._shell,
        arguments = [args],
        inputs = [ctx.file.script],
        outputs = [report],
        env = {
            "REPORT": report.path,
            "UNDECLARED": ctx.file.script.dirname + "/undeclared.txt",
        },
    )
    return [DefaultInfo(files = depset([report]))]

plain_action = rule(
    implementation = _plain_action_impl,
    doc = "Runs a script of the probe in an action without special requirements. The file undeclared.txt beside the script is not among its inputs.",
    attrs = {
        "script": attr.label(
            allow_single_file = True,
            mandatory = True,
        ),
        "_shell": attr.label(
            default = Label("//tools/component/hermetic/shell"),
            executable = True,
            cfg = "exec",
        ),
    },
)
