"""The aspect that judges Go packages by go vet and staticcheck.

`bazel test` applies it to all that it is asked for (//tools/bazelrc:correctness.bazelrc). Each package of this repository
is judged by one action, from its sources and from what the compiler exported of what it imports; a finding fails the action,
and with it the build. Foreign packages are not judged, and nothing is known of them but their types.
"""

load("@rules_go//go:def.bzl", "GoArchive")

# rules_go offers nothing else that has the archives of the standard library.
load("@rules_go//go/private:providers.bzl", "GoStdLib")
load(":go_origin_info.bzl", "GoOriginInfo")

GoLintInfo = provider(
    doc = "What judging a target made.",
    fields = {
        "deps": "Depset of the files of facts about what the target depends on.",
        "facts": "Depset of those files and the target's own, which come last.",
    },
)

# Rules that compile Go packages. One that gave no archive would go unjudged.
_KINDS = ["go_binary", "go_library", "go_test"]

def _go_files(files):
    return [f for f in files if f.extension == "go"]

def _origins(rule):
    """Maps the path of each source that is generated from a written one to that."""
    origins = {}
    for src in getattr(rule.attr, "srcs", []):
        if GoOriginInfo in src:
            for file in src[DefaultInfo].files.to_list():
                origins[file.path] = src[GoOriginInfo]
    return origins

def _judge(ctx, archive, part, deps):
    """Declares the action that judges one archive.

    Args:
      ctx: the aspect's context.
      archive: the GoArchive.
      part: what of its sources is in it: whole, internal or external.
      deps: depset of files of facts.

    Returns:
      The file of facts about the archive, which is there if there are no findings.
    """
    facts = ctx.actions.declare_file("%s.%s.lint" % (ctx.label.name, part))
    std = ctx.attr._stdlib[GoStdLib]
    mode = archive.source.mode
    origins = _origins(ctx.rule)
    tags = list(mode.tags)
    srcs = []

    args = ctx.actions.args()
    args.add("--path", archive.data.importmap)
    args.add("--part", part)
    args.add("--goos", mode.goos)
    args.add("--goarch", mode.goarch)
    for file in _go_files(archive.data.srcs):
        origin = origins.get(file.path)
        if origin:
            file = origin.file
            tags += [tag for tag in origin.tags if tag not in tags]
        written = file.is_source and not file.owner.workspace_name
        args.add("--src" if written else "--generated", file)
        srcs.append(file)
    args.add_all(tags, before_each = "--tag")
    for dep in archive.direct:
        for path in [dep.data.importpath] + list(dep.data.importpath_aliases):
            args.add("--import", dep.data.export_file, format = "%s=%s=%%s" % (path, dep.data.importmap))
    args.add_all(deps, before_each = "--facts")
    args.add(std.root_file.path + "/" + "%s_%s" % (mode.goos, mode.goarch), format = "--std=%s")
    args.add("--out", facts)

    ctx.actions.run(
        mnemonic = "GoLint",
        progress_message = "Judging Go package %{label}",
        executable = ctx.executable._lint,
        arguments = [args],
        inputs = depset(
            srcs + [dep.data.export_file for dep in archive.direct],
            transitive = [std.libs, deps],
        ),
        outputs = [facts],
        toolchain = None,
    )
    return facts

def _part(archives, label, filter):
    """Gives the one archive of a test that has a part of its sources."""
    found = [a for a in archives if a.data.label == label and a.source.testfilter == filter]
    if len(found) != 1:
        fail("%s has %d archives of which tests are to %s, so that it cannot be judged" % (label, len(found), filter))
    return found[0]

def _judge_test(ctx, target, deps):
    """Judges both packages that a test may have."""
    external = _part(target[GoArchive].direct, target.label, "only")
    internal = _part(external.direct, target.label, "exclude")
    own = _judge(ctx, internal, "internal", deps)
    return [own, _judge(ctx, external, "external", depset([own], transitive = [deps], order = "postorder"))]

def _go_lint_impl(target, ctx):
    if target.label.workspace_name:
        return [GoLintInfo(deps = depset(), facts = depset())]
    if GoArchive not in target and ctx.rule.kind in _KINDS:
        fail("%s gives no Go archive, so that it cannot be judged" % target.label)

    embedded = [e[GoLintInfo] for e in getattr(ctx.rule.attr, "embed", []) if GoLintInfo in e]
    deps = depset(
        transitive = [e.deps for e in embedded] +
                     [d[GoLintInfo].facts for d in _as_list(getattr(ctx.rule.attr, "deps", [])) if GoLintInfo in d],
        order = "postorder",
    )
    if GoArchive not in target:
        own = depset()
    elif not _go_files(getattr(ctx.rule.files, "srcs", [])):
        # All that is compiled is embedded, and judged where it comes from.
        own = depset(transitive = [e.facts for e in embedded], order = "postorder")
    elif ctx.rule.kind == "go_test":
        own = depset(_judge_test(ctx, target, deps))
    else:
        own = depset([_judge(ctx, target[GoArchive], "whole", deps)])
    facts = depset(transitive = [deps, own], order = "postorder")
    return [
        GoLintInfo(deps = deps, facts = facts),
        OutputGroupInfo(_validation = facts),
    ]

def _as_list(value):
    """Gives what an attribute `deps` depends on, in a rule of whatever kind."""
    if type(value) == "list":
        return value
    return value.keys() if type(value) == "dict" else [value]

go_lint = aspect(
    implementation = _go_lint_impl,
    doc = "Judges the Go packages of this repository, as validation actions.",
    attr_aspects = ["deps", "embed"],
    attrs = {
        "_lint": attr.label(
            default = Label("//tools/lint/private:lint"),
            executable = True,
            cfg = "exec",
        ),
        "_stdlib": attr.label(
            default = Label("@rules_go//:stdlib"),
            providers = [GoStdLib],
        ),
    },
)
