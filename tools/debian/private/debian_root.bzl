"""Rule that makes one root file system out of Debian packages."""

load(":debian_root_info.bzl", "DebianRootInfo")

# What nobody reads in a root that is only built or booted in.
_EXCLUDE = [
    "usr/share/bash-completion/**",
    "usr/share/bug/**",
    "usr/share/doc-base/**",
    "usr/share/doc/**",
    "usr/share/gdb/**",
    "usr/share/info/**",
    "usr/share/lintian/**",
    "usr/share/locale/**",
    "usr/share/man/**",
]

# The modification time of all files: 2025-01-01, as all of Kiln's builds have.
_EPOCH = 1735689600

def _debian_root_impl(ctx):
    tar = ctx.actions.declare_file(ctx.label.name + ".tar.zst")
    packages = ctx.actions.declare_file(ctx.label.name + ".packages.json")

    debs = ctx.actions.args()
    debs.set_param_file_format("multiline")
    debs.use_param_file("--debs=%s", use_always = True)
    debs.add_all(ctx.files.debs)

    args = ctx.actions.args()
    args.add("--out", tar)
    args.add("--packages", packages)
    args.add("--epoch", _EPOCH)
    args.add_all(_EXCLUDE + ctx.attr.exclude, format_each = "--exclude=%s")
    args.add_all(["{}={}".format(k, v) for k, v in sorted(ctx.attr.symlinks.items())], format_each = "--symlink=%s")
    args.add_all(["{}={}".format(k, v) for k, v in sorted(ctx.attr.compose.items())], format_each = "--compose=%s")
    if ctx.attr.dpkg_status:
        args.add("--status")

    ctx.actions.run(
        mnemonic = "DebianRoot",
        progress_message = "Making the root %{label} of Debian packages",
        executable = ctx.executable._mkroot,
        arguments = [debs, args],
        inputs = ctx.files.debs,
        outputs = [tar, packages],
    )
    return [
        DefaultInfo(files = depset([tar])),
        OutputGroupInfo(packages = depset([packages])),
        DebianRootInfo(
            tar = tar,
            packages = packages,
        ),
    ]

debian_root = rule(
    implementation = _debian_root_impl,
    doc = """Makes one root file system out of Debian packages.

The result is the union of what the packages hold, as `<name>.tar.zst`. No
maintainer script runs: links that alternatives would set, and files that such
scripts would write, are asked for by `symlinks` and `compose`. Documentation,
manual pages and translations are left out. Two packages that ship one path with
different content are an error.""",
    attrs = {
        "debs": attr.label_list(
            doc = "The packages, for example `@debian_buildroot//:debs`.",
            allow_files = [".deb"],
            mandatory = True,
        ),
        "symlinks": attr.string_dict(
            doc = "Links to add: path to target.",
        ),
        "compose": attr.string_dict(
            doc = """Files to put together: path to a pattern.

The file holds all files of the packages that match, in the order of their paths, whether or not they are excluded.""",
        ),
        "exclude": attr.string_list(
            doc = """Patterns of more paths to leave out, or after `!` to keep after all.

`*` matches within a name, `**` across names. The last pattern that matches decides.""",
        ),
        "dpkg_status": attr.bool(
            doc = "Whether to add var/lib/dpkg/status, by which scanners know what is in the root.",
        ),
        "_mkroot": attr.label(
            default = "//tools/debian/mkroot",
            executable = True,
            cfg = "exec",
        ),
    },
    provides = [DebianRootInfo],
)
