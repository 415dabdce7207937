"""The table of platforms and runtime classes, for people to read."""

load("//stack:platforms.bzl", "COMPONENTS", "OPTIONAL_COMPONENTS", "PLATFORMS", "RUNTIME_CLASSES", "TEE", "architectures_of", "missing_components", "overhead", "tee_selector")
load("//stack/imports:imports.bzl", "IMPORTS", "UPDATE")
load("//stack/imports:table.bzl", "pin_of")

def _row(cells):
    return "| " + " | ".join(cells) + " |"

def _table(header, rows):
    return [_row(header), "|" + "---|" * len(header)] + [_row(row) for row in rows]

def _code(names):
    return " ".join(["`%s`" % name for name in names])

def _lacking(components):
    """Gives those of a runtime class's components that nothing builds for any architecture."""
    return [name for name in components if not COMPONENTS[name] and name not in OPTIONAL_COMPONENTS]

def _architectures(platform):
    """Gives the architectures of a platform, and for which of them its payload can be built."""
    return {arch: not missing_components(platform, arch) for arch in architectures_of(platform)}

def _platform_rows():
    rows = []
    for platform, classes in sorted(PLATFORMS.items()):
        architectures = _architectures(platform)
        rows.append([
            "`%s`" % platform,
            _code(classes),
            _code([arch for arch, built in architectures.items() if built]) or "none yet",
            _code([arch for arch, built in architectures.items() if not built]),
        ])
    return rows

def _class_rows():
    rows = []
    for name, architectures in sorted(RUNTIME_CLASSES.items()):
        groups = {}
        for arch, components in architectures.items():
            groups.setdefault(tuple(components), []).append(arch)
        for components, on in groups.items():
            rows.append([
                "`%s`" % name,
                _code(on),
                _code(components),
                _code(_lacking(components)),
            ])
    return rows

def _import_rows():
    rows = []
    for name, row in sorted(IMPORTS.items()):
        pinned = [arch for arch in row.architectures if pin_of(name, arch)]
        rows.append([
            "`%s`" % name,
            "`%s`" % row.repository,
            _code(pinned) or "none",
            _code([arch for arch in row.architectures if arch not in pinned]),
        ])
    return rows

def _node_rows():
    rows = []
    for name in sorted(RUNTIME_CLASSES):
        taken = overhead(name)
        rows.append([
            "`kata-%s`" % name,
            TEE.get(name, ""),
            taken["memory"],
            taken["cpu"],
            _code(tee_selector(name)),
        ])
    return rows

def platforms_markdown():
    """Writes the table of platforms and runtime classes as Markdown.

    Returns:
      Its lines.
    """
    return [
        "# Platforms and runtime classes",
        "",
        "Made from [the table](../stack/platforms.bzl) by `./bazelw run //docs:generated.update`.",
        "",
        "## Platforms",
        "",
        "A platform is what one payload is made for: `//payload:<platform>`, and `//payload:<platform>-<architecture>` for the others than the first.",
        "",
    ] + _table(["platform", "runtime classes", "payload for", "nothing for"], _platform_rows()) + [
        "",
        "## Components",
        "",
        "What a runtime class cannot run without, beside its configuration and the installer. A payload is complete without what joins as soon",
        "as something builds it: %s." % _code(OPTIONAL_COMPONENTS),
        "",
    ] + _table(["runtime class", "on", "components", "of which nothing builds for any"], _class_rows()) + [
        "",
        "## Imports",
        "",
        "What upstream builds, and is taken by the digests of [the lock](../stack/imports.lock), which `%s` writes (see [imports](imports.md))." % UPDATE,
        "A platform that needs what is not pinned cannot be built, and its tests are skipped.",
        "",
    ] + _table(["component", "repository", "pinned for", "not pinned for"], _import_rows()) + [
        "",
        "## RuntimeClasses",
        "",
        "What pods name, what a sandbox takes of the node beside its containers, and the label of the nodes that have the TEE. All are for nodes",
        "that the installer has labelled `katacontainers.io/kata-runtime=true`.",
        "",
    ] + _table(["RuntimeClass", "TEE", "memory", "CPU", "nodes"], _node_rows()) + [""]
