"""Repository rules that fetch the files of a package set."""

load(":lock.bzl", "parse_entry", "parse_lock", "source_role")
load(":mirrors.bzl", "find_mirrors")

# Everything that Debian ever published; a timestamp and then the layout of an
# ordinary mirror come below it.
_SNAPSHOT = "https://snapshot.debian.org/archive/debian/"

def _bases(rctx):
    """The mirrors of this machine.

    They are not tracked: what is fetched has a checksum, so it does not matter
    where it came from, and another mirror is no reason to fetch again.
    """

    def read(path):
        file = rctx.path(path)
        return rctx.read(file, watch = "no") if file.exists else None

    def list_dir(path):
        folder = rctx.path(path)
        return [str(p) for p in folder.readdir(watch = "no")] if folder.exists else []

    return find_mirrors(rctx.os.environ.get("KILN_DEBIAN_MIRROR", ""), read, list_dir)

def _urls(bases, snapshots, entry):
    urls = ["{}/{}".format(base, entry.path) for base in bases]
    if entry.suite in snapshots:
        urls.append("{}{}/{}".format(_SNAPSHOT, snapshots[entry.suite], entry.path))
    return urls

def _file_name(rctx, entry):
    """The name of a file in the repository, without its version."""
    if not rctx.attr.source:
        return "debs/{}.deb".format(entry.package)
    role = source_role(entry.path)
    if role in ("dsc", "diff"):
        return "{}.{}".format(entry.package, {"diff": "diff.gz"}.get(role, role))
    return "{}.{}.tar.{}".format(entry.package, role, entry.path.rpartition(".tar.")[2])

def _lines(text):
    """Maps each line of a file to its number."""
    lines = {}
    number = 0
    for line in text.split("\n"):
        number += 1
        lines[line] = number
    return lines

def _fetch(rctx, entries, lock_text):
    """Fetches all files, or fails."""
    bases = _bases(rctx)
    lock, error = parse_lock(lock_text, rctx.attr.lock_name)
    if error:
        fail(error)
    total = 0
    for e in entries:
        total += e.size

    # A source that does not answer is tried for half a minute for each file,
    # so the first is fetched alone, and with it fails what has no source.
    failed = []
    reachable = []
    if not _start(rctx, bases, lock, entries[0], True).success:
        failed.append(entries[0])
        reachable = _reachable_sources(rctx, bases, lock, entries)

    # Bazel bounds how many downloads run at a time (8 unless told otherwise).
    pending = [(e, _start(rctx, bases, lock, e, False)) for e in entries[1:]]
    done = entries[0].size
    for e, p in pending:
        rctx.report_progress("{} of {} MB of Debian packages".format(done // 1000000, total // 1000000))
        if not p.wait().success:
            failed.append(e)
        done += e.size
    if failed:
        reachable = reachable or _reachable_sources(rctx, bases, lock, entries)
        _explain(rctx, failed, bases, reachable, lock, _lines(lock_text))

def _start(rctx, bases, lock, entry, block):
    """Starts to fetch one file to its place."""
    return rctx.download(
        url = _urls(bases, lock.snapshots, entry),
        output = _file_name(rctx, entry),
        sha256 = entry.sha256,
        # With it, a checksum that was left as it was for another version is
        # not served from the cache.
        canonical_id = entry.path,
        allow_fail = True,
        block = block,
    )

def _sum(rctx, url):
    """Gives the checksum of what is served at an address, or None.

    Bazel does not say why a download failed, and takes nothing over plain HTTP
    whose checksum it is not told.
    """
    if not url.startswith("http:"):
        fetched = rctx.download(url = url, output = "attempt", allow_fail = True)
    else:
        # With a checksum that nothing has, Bazel refuses the file and leaves
        # it behind, if it is larger than the 32 KiB that are checked ahead.
        rctx.download(url = url, output = "attempt", sha256 = "0" * 64, allow_fail = True)
        if not rctx.path("attempt").exists:
            _fetch_without_bazel(rctx, url)
        if not rctx.path("attempt").exists:
            return None
        fetched = rctx.download(url = "file://" + str(rctx.path("attempt")), output = "sum")
        rctx.delete("sum")
    rctx.delete("attempt")
    return fetched.sha256 if fetched.success else None

def _fetch_without_bazel(rctx, url):
    """Fetches a file by what is at hand, if anything is."""
    curl = rctx.which("curl")
    apt_helper = rctx.path("/usr/lib/apt/apt-helper")
    target = str(rctx.path("attempt"))
    if curl:
        rctx.execute([curl, "--silent", "--fail", "--location", "--output", target, url])
    elif apt_helper.exists:
        rctx.execute([apt_helper, "-o", "APT::Sandbox::User=root", "download-file", url, target])

def _reachable_sources(rctx, bases, lock, entries):
    """The sources that answer at all; fails if there are none."""
    reachable = []
    tried = []
    for suite in {e.suite: True for e in entries}:
        sources = list(bases)
        if suite in lock.snapshots:
            sources.append(_SNAPSHOT + lock.snapshots[suite])
        for source in sources:
            if source not in tried:
                tried.append(source)
                if _sum(rctx, "{}/dists/{}/InRelease".format(source, suite)):
                    reachable.append(source)
    if not reachable:
        fail("\n".join([
            "no source of Debian packages answers. Tried, in vain:",
        ] + ["  " + source for source in tried] + [
            "Check this machine's network, or name a mirror in the environment variable KILN_DEBIAN_MIRROR.",
        ]))
    return reachable

def _explain(rctx, failed, bases, reachable, lock, lines):
    """Finds out why files could not be had, and fails with one error.

    Returns nothing if what went wrong does not happen again.

    Args:
      rctx: the repository context.
      failed: the entries.
      bases: the mirrors.
      reachable: the sources that answer.
      lock: the lock.
      lines: maps each line of the lock to its number.
    """
    wrong = []
    vanished = []
    cut = []
    for e in failed:
        where = "  {} {} ({}:{})".format(e.package, e.version, rctx.attr.lock_name, lines.get(e.text, "?"))
        urls = [
            url
            for url in _urls(bases, lock.snapshots, e)
            if [source for source in reachable if url.startswith(source + "/")]
        ]
        sums = {url: _sum(rctx, url) for url in urls}
        bad = [url for url in urls if sums[url] and sums[url] != e.sha256]
        if e.sha256 in sums.values():
            # It met a passing trouble.
            rctx.download(url = urls, output = _file_name(rctx, e), sha256 = e.sha256, canonical_id = e.path)
        elif not bad:
            vanished.append(where)
        elif _sum(rctx, bad[0]) != sums[bad[0]]:
            cut.append("{}\n    from {}".format(where, bad[0]))
        else:
            wrong.append("{}\n    expected sha256 {}\n    got             {}\n    from {}".format(where, e.sha256, sums[bad[0]], bad[0]))
    errors = []
    if wrong:
        errors.append(_problem(wrong, "{} Debian package{s} {has} a wrong checksum:", "The lock and that source contradict each other: " +
                                                                                      "undo the change of the lock, or name another mirror in KILN_DEBIAN_MIRROR."))
    if vanished:
        errors.append(_problem(vanished, "{} pinned Debian package{s} {is} gone from every source in reach (" + ", ".join(reachable) + "):", "Debian has other versions by now: renew the lock with `bazel run //tools/debian:update`."))
    if cut:
        errors.append(_problem(cut, "{} Debian package{s} {is} cut short on the way:", "Try again, or name another mirror in KILN_DEBIAN_MIRROR."))
    if errors:
        fail("\n".join(errors))

def _problem(packages, what, advice):
    """One kind of problem, with the packages that have it, ten at most."""
    one = len(packages) == 1
    words = {"has": "has" if one else "have", "is": "is" if one else "are", "s": "" if one else "s"}
    rest = ["  and {} more".format(len(packages) - 10)] if len(packages) > 10 else []
    return "\n".join([what.format(len(packages), **words)] + packages[:10] + rest + [advice])

def _description(rctx, entries):
    """What the files are, for bills of materials."""
    return json.encode_indent([
        {
            "package": e.package,
            "version": e.version,
            "arch": e.arch,
            "source": e.source,
            "sourceVersion": e.source_version,
            "suite": e.suite,
            "path": e.path,
            "size": e.size,
            "sha256": e.sha256,
            "file": _file_name(rctx, e),
        }
        for e in entries
    ], indent = "  ") + "\n"

_FILEGROUP = """
filegroup(
    name = {name},
    srcs = [
{srcs}
    ],
)
"""

def _filegroup(name, files):
    return _FILEGROUP.format(
        name = repr(name),
        srcs = "\n".join(["        {},".format(repr(f)) for f in files]),
    ).replace("'", '"')

def _debian_set_impl(rctx):
    entries = []
    for line in rctx.attr.entries:
        entry, error = parse_entry(line)
        if error:
            fail("{}: {}".format(rctx.attr.lock_name, error))
        entries.append(entry)
    _fetch(rctx, entries, rctx.read(rctx.attr.lock_file, watch = "no"))

    build = [
        'package(default_visibility = ["//visibility:public"])\n',
        'exports_files(["lock.json"])\n',
    ]
    files = [_file_name(rctx, e) for e in entries]
    if rctx.attr.source:
        build.append(_filegroup("files", files))
        alone = len({e.package: True for e in entries}) == 1
        for e in entries:
            role = source_role(e.path)
            build.append(_filegroup(role if alone else e.package + "." + role, [_file_name(rctx, e)]))
    else:
        build.append(_filegroup("debs", files))
        for e in entries:
            build.append(_filegroup(e.package, [_file_name(rctx, e)]))
    rctx.file("BUILD.bazel", "\n".join(build), executable = False)
    rctx.file("lock.json", _description(rctx, entries), executable = False)

debian_set = repository_rule(
    implementation = _debian_set_impl,
    doc = """Fetches the files of one package set, by checksum.

A set of binary packages gives `//:debs` and one target for each package, one of
a source package `//:files`, `//:orig` and `//:debian`. Each gives
`//:lock.json`, which says what the files are.""",
    attrs = {
        "entries": attr.string_list(
            doc = "The lines of the lock that name the files.",
            mandatory = True,
        ),
        "lock_file": attr.string(
            doc = """The lock, for line numbers in errors and the time of snapshots.

A path and not a label: a change elsewhere in the lock is no reason to fetch this set anew.""",
            mandatory = True,
        ),
        "lock_name": attr.string(
            doc = "How errors name the lock.",
            mandatory = True,
        ),
        "source": attr.bool(
            doc = "Whether the files are those of source packages.",
        ),
    },
)

_VERSIONS = '''"""What debian.lock pins, for rules that need only that."""

# Maps the name of a set to a map from package to version.
VERSIONS = {versions}

# "pinned", or "relocked" if a local lock stands in for debian.lock.
INPUTS = "{inputs}"
'''

def _debian_versions_impl(rctx):
    rctx.file("BUILD.bazel", 'exports_files(["versions.bzl"])\n', executable = False)
    rctx.file("versions.bzl", _VERSIONS.format(
        inputs = rctx.attr.inputs,
        versions = json.indent(rctx.attr.versions, indent = "    "),
    ), executable = False)

debian_versions = repository_rule(
    implementation = _debian_versions_impl,
    doc = "Knows the versions of all locked packages, and fetches nothing.",
    attrs = {
        "inputs": attr.string(
            doc = "Where the versions come from.",
            values = ["pinned", "relocked"],
            mandatory = True,
        ),
        "versions": attr.string(
            doc = "JSON: set to package to version.",
            mandatory = True,
        ),
    },
)
