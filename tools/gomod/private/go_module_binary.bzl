"""The rule that compiles programs of a foreign Go module in one action."""

_TOOLCHAIN = "@rules_go//go:toolchain"

def _resources(_os, _inputs):
    # The go command runs a compiler per CPU, but one linker at the end, which
    # needs memory. Another action fills what it leaves, as in //tools/component.
    return {"cpu": 1, "memory": 4096}

def _impl(ctx):
    """Compiles all packages in one action, so that they share dependencies."""
    toolchain = ctx.toolchains[_TOOLCHAIN]
    sdk = toolchain.sdk

    args = ctx.actions.args()
    args.add("--sdk", sdk.root_file.dirname)
    args.add("--archive", ctx.file.module)
    args.add("--sources", ctx.outputs.sources)
    for package, out in zip(ctx.attr.packages, ctx.outputs.outs):
        args.add("--program", out, format = package.replace("%", "%%") + "=%s")
    for name, value in ctx.attr.x_defs.items():
        args.add("--variable", "%s=%s" % (name, value))
    args.add_all(ctx.attr.gotags, before_each = "--tag")

    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [args],
        inputs = depset(
            [ctx.file.module, sdk.root_file, sdk.go],
            transitive = [sdk.srcs, sdk.tools, sdk.headers, sdk.libs],
        ),
        outputs = ctx.outputs.outs + [ctx.outputs.sources],
        mnemonic = "GoModuleBuild",
        progress_message = "Building Go programs of %{label}",
        # Nothing here may depend on the machine: not the Go settings of its
        # user, not the CPU it happens to have.
        env = {
            "CGO_ENABLED": "0",
            "GOAMD64": "v1",
            "GOARCH": ctx.attr.goarch or toolchain.default_goarch,
            "GOARM64": "v8.0",
            "GOFLAGS": "-mod=vendor",
            "GOOS": toolchain.default_goos,
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
        },
        execution_requirements = {"block-network": ""},
        resource_set = _resources,
    )
    return [
        DefaultInfo(files = depset(ctx.outputs.outs)),
        OutputGroupInfo(sources = depset([ctx.outputs.sources])),
    ]

go_module_binary_rule = rule(
    implementation = _impl,
    doc = "Compiles programs of a foreign Go module; use the macro go_module_binary.",
    attrs = {
        "goarch": attr.string(doc = "Architecture of the programs, by Go's name; that of the machine they are for by default."),
        "gotags": attr.string_list(doc = "Build tags."),
        "module": attr.label(
            doc = "The module's tree as one tar: the target `src` of a repository of go_modules.",
            allow_single_file = [".tar"],
            mandatory = True,
        ),
        "outs": attr.output_list(
            doc = "The file of each package, in the same order.",
            mandatory = True,
        ),
        "packages": attr.string_list(
            doc = "Import paths of main packages.",
            mandatory = True,
            allow_empty = False,
        ),
        "sources": attr.output(
            doc = "The list of the modules that the programs are made of, for an SBOM.",
            mandatory = True,
        ),
        "x_defs": attr.string_dict(
            doc = "String variables that the linker sets, by import path, dot and name.",
        ),
        "_tool": attr.label(
            default = "//tools/gomod",
            executable = True,
            cfg = "exec",
        ),
    },
    toolchains = [_TOOLCHAIN],
)

def go_module_binary(name, module, packages, **kwargs):
    """Builds static programs of a foreign Go module.

    The targets that can be used are `<name>/<file>` for each program and
    `<name>.sources.json` for the list of the modules they are made of.

    Args:
      name: name of the target; its files are all programs.
      module: the tree that go_modules fetched, `@go_<name>//:src`.
      packages: dict from the import path of a main package to the name of
        the file it becomes.
      **kwargs: goarch, x_defs, gotags, and what every rule takes.
    """
    files = {}
    for package, file in packages.items():
        if file in files:
            fail("%s: packages %s and %s both become %s" % (name, files[file], package, file))
        files[file] = package
    go_module_binary_rule(
        name = name,
        module = module,
        outs = ["%s/%s" % (name, file) for file in packages.values()],
        packages = packages.keys(),
        sources = name + ".sources.json",
        **kwargs
    )
