"""Rule that builds a component with a script in a build root."""

load(":common.bzl", "COMMON_ATTRS", "add_files", "check_output_names", "execution_requirements", "providers", "start")

# buildifier: disable=unused-variable
def _heavy(os, inputs_size):
    # A build uses every CPU it finds, but not all the time: unpacking, configuring
    # and linking take one. It leaves room for another action, which fills the rest,
    # and memory bounds how many such builds there are on large machines.
    return {"cpu": 1, "memory": 4096}

# buildifier: disable=unused-variable
def _light(os, inputs_size):
    return {"cpu": 1, "memory": 512}

def _root_component_impl(ctx):
    made = start(ctx, "build")
    args = made.args
    args.add("--root", ctx.file.root)
    args.add("--script", ctx.file.script)
    inputs = add_files(args, "--src", ctx.attr.srcs, "srcs of %s" % ctx.label)
    for name, value in sorted(ctx.attr.env.items()):
        args.add("--env", name + "=" + value)
    if ctx.attr.jobs:
        args.add("--jobs", ctx.attr.jobs)

    check_output_names(ctx.label, ctx.attr.outputs.keys())
    outputs = {}
    for name, path in sorted(ctx.attr.outputs.items()):
        file = ctx.actions.declare_file("%s.%s" % (ctx.label.name, name))
        outputs[name] = file
        args.add("--output", file, format = path.replace("%", "%%") + "=%s")

    ctx.actions.run(
        mnemonic = "KataComponent",
        progress_message = "Building component %s %s" % (ctx.attr.component, ctx.attr.version),
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = depset(inputs + ctx.files.packages + ctx.files.source_lists + [ctx.file.root, ctx.file.script]),
        outputs = [made.layer, made.metadata] + outputs.values(),
        execution_requirements = execution_requirements(ctx.attr.secret),
        resource_set = _heavy if ctx.attr.heavy else _light,
    )
    return providers(ctx, made, outputs)

root_component = rule(
    implementation = _root_component_impl,
    doc = """Builds a component with a script in a build root.

The script runs as `bash -euo pipefail` in the unpacked root, in namespaces of
its own: no network, no process of the machine, hostname `kiln`, and no file
but the root's and those of `srcs`, which are read-only under /src. It starts
in /build, which is empty, installs into `$DESTDIR/opt/kata`, and writes named
outputs into `$OUT`. What it prints is shown when it fails.

Its environment is PATH, HOME, LC_ALL, TZ, SOURCE_DATE_EPOCH, KILN_JOBS,
OMP_NUM_THREADS, TAR_OPTIONS, DESTDIR, OUT, VERSION, and `env`. KILN_JOBS is how
many jobs to run at once; it must not change what comes out.""",
    attrs = COMMON_ATTRS | {
        "env": attr.string_dict(
            doc = "Variables for the script beside those that it always has.",
        ),
        "heavy": attr.bool(
            doc = "Whether the script keeps all CPUs busy for long, so that no other heavy component should be built beside it.",
            default = True,
        ),
        "jobs": attr.int(
            doc = "KILN_JOBS; 0 is the number of CPUs of the machine that runs the action.",
        ),
        "outputs": attr.string_dict(
            doc = "Results beside the layer: a name, and the file's path below $OUT. Each becomes the file `<target>.<name>`.",
        ),
        "root": attr.label(
            doc = "The build root: a tar, compressed with zstd, as debian_root makes.",
            default = Label("//stack:buildroot"),
            allow_single_file = [".tar.zst"],
        ),
        "script": attr.label(
            doc = "The script.",
            allow_single_file = True,
            mandatory = True,
        ),
        "secret": attr.bool(
            doc = "Whether the action is executed here alone, and its results stay out of caches that others read.",
        ),
        "srcs": attr.label_keyed_string_dict(
            doc = "Files for the script and their names below /src. A name that ends in a slash is a directory for all files of a label.",
            allow_files = True,
        ),
    },
)
