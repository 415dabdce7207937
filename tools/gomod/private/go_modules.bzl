"""The repository rule and the module extension that fetch Go modules."""

load(":goerrors.bzl", "explain")
load(":patch.bzl", "relocate", "settle")
load(":template.bzl", "render")

_BUILD = """\
# One archive, since an action with some thousand inputs spends longer on making
# its sandbox than on reading them.
filegroup(
    name = "src",
    srcs = ["source.tar"],
    visibility = ["//visibility:public"],
)

exports_files(
    glob(["files/**"], allow_empty = True),
    visibility = ["//visibility:public"],
)
"""

# Settings that would change what is fetched or that would let the go command
# change what is pinned. What says where to fetch from is the machine's.
_GO_ENV = {
    "GO111MODULE": "on",
    "GOFLAGS": "-mod=readonly -modcacherw",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}

def _name(label):
    """Names a file the way its reader would open it."""
    path = label.package + "/" + label.name if label.package else label.name
    return "@%s//%s" % (label.repo_name, path) if label.repo_name else path

def _run_go(rctx, env, arguments, what):
    """Runs the pinned go command at the root of the tree."""
    rctx.report_progress(what)
    go = rctx.path(rctx.attr._go_sdk_root).dirname.get_child("bin").get_child("go")
    result = rctx.execute([go] + arguments, environment = env, working_directory = "tree", timeout = 3600)
    if result.return_code != 0:
        fail(explain(result.stderr, rctx.read(rctx.attr.go_sum), _name(rctx.attr.go_sum)))
    return result.stdout

def _go_env(rctx):
    env = dict(_GO_ENV)
    env["GOCACHE"] = str(rctx.path("gocache"))
    if not rctx.getenv("GOMODCACHE"):
        env["GOMODCACHE"] = str(rctx.path("gomodcache"))
    return env

def _list_modules(rctx, env, modules):
    """Finds out which version of each module is pinned, and where it lies."""
    if not modules:
        return {}

    # `download` makes sure that the module is there; `list` may not fetch it.
    _run_go(rctx, env, ["mod", "download"] + modules, "Fetching " + modules[0])
    out = _run_go(rctx, env, ["list", "-m", "-f", "{{.Path}}\t{{.Version}}\t{{.Dir}}"] + modules, "Finding modules")
    found = {}
    for line in out.strip().split("\n"):
        path, version, dir = line.split("\t")
        found[path] = struct(version = version, dir = dir)
    return found

def _is_left_out(rctx, name):
    """Says whether `go mod vendor` took a file for of no use to the programs.

    It leaves out tests, and packages that nothing imports. Patches that a
    module carries were made for all of another module.
    """
    file = rctx.path(name)
    if file.exists:
        return False
    if name.endswith("_test.go") or not file.dirname.exists:
        return True
    return not [other for other in file.dirname.readdir() if other.basename.endswith(".go")]

def _patch(rctx, patches, modules):
    for index, step in enumerate(patches):
        texts = [(_name(label), rctx.read(label)) for label in step.files]
        for name in step.module_files:
            path, _, file = name.partition("//")
            texts.append((name, rctx.read(modules[path].dir + "/" + file, watch = "no")))
        for name, text in texts:
            moved = relocate(text, "tree/vendor/" + step.module, step.strip, name, absent = lambda file: _is_left_out(rctx, file))
            if not moved.error:
                moved = settle(moved.text, lambda file: rctx.read(file, watch = "no"), name)
            if moved.error:
                fail(moved.error)
            local = "patches/%d-%s" % (index, name.replace(":", "/").split("/")[-1])
            rctx.file(local, moved.text)
            rctx.patch(local, strip = 0)

def _render(rctx, renders, modules):
    for step in renders:
        version = modules[step.module].version
        name = "%s@%s/%s" % (step.module, version, step.template)
        directory = "tree/vendor/%s/" % step.module
        substitutions = {key: value.replace("{version}", version) for key, value in step.substitutions.items()}
        template = rctx.path(directory + step.template)
        if not template.exists:
            template = rctx.path(modules[step.module].dir + "/" + step.template)
        if not template.exists:
            fail("%s: there is no such template" % name)
        rendered = render(rctx.read(template, watch = "no"), substitutions, name)
        if rendered.error:
            fail(rendered.error)
        rctx.file(directory + step.out, rendered.text, executable = False)

def _export(rctx, exports, modules):
    exported = {}
    for step in exports:
        for file in step.files:
            if file in exported:
                fail("%s and %s both export %s" % (exported[file], step.module, file))
            exported[file] = step.module
            source = rctx.path(modules[step.module].dir + "/" + file)
            if not source.exists:
                fail("%s@%s has no file %s" % (step.module, modules[step.module].version, file))
            rctx.file("files/" + file, rctx.read(source, watch = "no"), executable = False)

def _archive(rctx):
    rctx.report_progress("Writing the archive")
    tar = rctx.which("tar")
    if not tar:
        fail("GNU tar is needed to write the archive of %s, but there is no tar in PATH" % _name(rctx.attr.go_mod))

    # The archive is an input of actions, so equal trees must be equal bytes.
    result = rctx.execute(
        [
            tar,
            "--create",
            "--file=source.tar",
            "--directory=tree",
            "--format=gnu",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=u=rwX,go=rX",
            ".",
        ],
        environment = {"LC_ALL": "C"},
    )
    if result.return_code != 0:
        fail("writing the archive of %s with tar (it must be GNU tar): %s" % (_name(rctx.attr.go_mod), result.stderr))

def _go_modules_repository_impl(rctx):
    patches = [
        struct(files = rctx.attr.patch_files[first:last], **json.decode(step))
        for step, first, last in zip(rctx.attr.patches, [0] + rctx.attr.patch_ends, rctx.attr.patch_ends)
    ]
    renders = [struct(**json.decode(step)) for step in rctx.attr.renders]
    exports = [struct(**json.decode(step)) for step in rctx.attr.exports]

    go_mod, go_sum = rctx.read(rctx.attr.go_mod), rctx.read(rctx.attr.go_sum)
    rctx.file("tree/go.mod", go_mod, executable = False)
    rctx.file("tree/go.sum", go_sum, executable = False)
    for label in rctx.attr.srcs:
        rctx.file("tree/" + label.name.split("/")[-1], rctx.read(label), executable = False)

    env = _go_env(rctx)
    wanted = {step.module: None for step in renders + exports}
    for step in patches:
        wanted.update({name.partition("//")[0]: None for name in step.module_files})
    modules = _list_modules(rctx, env, wanted.keys())
    _run_go(rctx, env, ["mod", "vendor"], "Fetching the modules of %s" % _name(rctx.attr.go_mod))
    if rctx.read("tree/go.mod", watch = "no") != go_mod or rctx.read("tree/go.sum", watch = "no") != go_sum:
        fail("%s and %s are not as `go mod tidy` leaves them; run it there" % (_name(rctx.attr.go_mod), _name(rctx.attr.go_sum)))

    _patch(rctx, patches, modules)
    _render(rctx, renders, modules)
    _export(rctx, exports, modules)
    _archive(rctx)
    for scratch in ["tree", "patches", "gocache", "gomodcache"]:
        rctx.delete(scratch)
    rctx.file("BUILD.bazel", _BUILD, executable = False)

_go_modules_repository = repository_rule(
    implementation = _go_modules_repository_impl,
    doc = "Vendors the modules that a go.mod and go.sum pin, into one archive.",
    attrs = {
        "exports": attr.string_list(doc = "JSON objects of module and files."),
        "go_mod": attr.label(mandatory = True, allow_single_file = True),
        "go_sum": attr.label(mandatory = True, allow_single_file = True),
        "patch_ends": attr.int_list(doc = "For each entry of patches, where its files end in patch_files."),
        "patch_files": attr.label_list(allow_files = True),
        "patches": attr.string_list(doc = "JSON objects of module, module_files and strip."),
        "renders": attr.string_list(doc = "JSON objects of module, template, out and substitutions."),
        "srcs": attr.label_list(allow_files = True),
        "_go_sdk_root": attr.label(default = "@go_sdk//:ROOT"),
    },
)

_PROGRAM = {
    "module": attr.string(doc = "Path of the Go module.", mandatory = True),
    "program": attr.string(doc = "Name of the program.", mandatory = True),
}

_program = tag_class(
    doc = "A Go module of our own that names the foreign programs to build, in a repository `go_<name>`.",
    attrs = {
        "go_mod": attr.label(
            doc = "Its go.mod. The programs' packages are `tool`s there, or imported by srcs.",
            mandatory = True,
        ),
        "go_sum": attr.label(doc = "Its go.sum.", mandatory = True),
        "name": attr.string(mandatory = True),
        "srcs": attr.label_list(doc = "Its own Go files, all in its root."),
    },
)

_patch_tag = tag_class(
    doc = "Patches for a vendored module, applied in order.",
    attrs = _PROGRAM | {
        "files": attr.label_list(doc = "Patches of ours."),
        "module_files": attr.string_list(doc = "Patches that a module carries, `<module path>//<file>`; applied after ours."),
        "strip": attr.int(doc = "How many leading components their file names have too many.", default = 1),
    },
)

_render_tag = tag_class(
    doc = "A source file that a module's own build makes from a template with variables @NAME@.",
    attrs = _PROGRAM | {
        "out": attr.string(doc = "The file, relative to the module.", mandatory = True),
        "substitutions": attr.string_dict(doc = "Value of each variable; `{version}` in it is the module's pinned version."),
        "template": attr.string(doc = "The template, relative to the module.", mandatory = True),
    },
)

_export_tag = tag_class(
    doc = "Files of a module that are of use as they are: `@go_<program>//:files/<file>`.",
    attrs = _PROGRAM | {
        "files": attr.string_list(doc = "The files, relative to the module.", mandatory = True),
    },
)

def _tags_by_program(mctx, programs):
    tags = {name: struct(patch = [], render = [], export = []) for name in programs}
    for module in mctx.modules:
        for kind in ["patch", "render", "export"]:
            for tag in getattr(module.tags, kind):
                if tag.program not in tags:
                    fail("go_modules.%s: there is no program %r; there are: %s" % (kind, tag.program, ", ".join(sorted(programs))))
                getattr(tags[tag.program], kind).append(tag)
    return tags

def _go_modules_impl(mctx):
    programs = {}
    for module in mctx.modules:
        for tag in module.tags.program:
            if tag.name in programs:
                fail("go_modules.program: %r is there twice" % tag.name)
            programs[tag.name] = tag
    for name, tags in _tags_by_program(mctx, programs).items():
        patch_files, patch_ends = [], []
        for tag in tags.patch:
            patch_files.extend(tag.files)
            patch_ends.append(len(patch_files))
        _go_modules_repository(
            name = "go_" + name,
            exports = [json.encode(struct(module = tag.module, files = tag.files)) for tag in tags.export],
            go_mod = programs[name].go_mod,
            go_sum = programs[name].go_sum,
            patch_ends = patch_ends,
            patch_files = patch_files,
            patches = [json.encode(struct(module = tag.module, module_files = tag.module_files, strip = tag.strip)) for tag in tags.patch],
            renders = [json.encode(struct(module = tag.module, template = tag.template, out = tag.out, substitutions = tag.substitutions)) for tag in tags.render],
            srcs = programs[name].srcs,
        )

go_modules = module_extension(
    implementation = _go_modules_impl,
    doc = "Fetches Go modules by the checksums of a go.sum.",
    tag_classes = {
        "export": _export_tag,
        "patch": _patch_tag,
        "program": _program,
        "render": _render_tag,
    },
)
