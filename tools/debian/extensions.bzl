"""The module extension that makes Debian packages available to the build.

It gives `@debian`, which only knows versions, and one repository for each set
of sets.json, `@debian_<set>`, which holds the files and is fetched when
something needs them.
"""

load("//tools/debian/private:debian_set.bzl", "debian_set", "debian_versions")
load("//tools/debian/private:lock.bzl", "parse_lock")

# Names a lock to use in place of debian.lock: that of a machine whose mirror
# has dropped what debian.lock names. Made by `debian relock`.
_LOCAL_LOCK = "KILN_DEBIAN_LOCK"

def _debian_impl(mctx):
    lock_label = Label("//tools/debian:debian.lock")
    local = mctx.getenv(_LOCAL_LOCK, "")
    if local:
        if not local.startswith("/") or not mctx.path(local).exists:
            fail("{}={}: want the absolute path of a lock file".format(_LOCAL_LOCK, local))
        lock_file = mctx.path(local)
        shown = local
    else:
        lock_file = mctx.path(lock_label)
        shown = "tools/debian/debian.lock"
    lock, error = parse_lock(mctx.read(lock_file), shown)
    if error:
        fail(error)
    sets = json.decode(mctx.read(Label("//tools/debian:sets.json")))

    versions = {}
    for name in sorted(sets):
        entries = [e for e in lock.entries if name in e.sets]
        if not entries:
            fail("{}: no package of the set {} is locked; renew the lock with `bazel run //tools/debian:update`".format(shown, name))
        versions[name] = {e.package: e.version for e in entries}
        debian_set(
            name = "debian_" + name,
            entries = [e.text for e in entries],
            lock_file = str(lock_file),
            lock_name = shown,
            source = sets[sets[name].get("like", name)]["kind"] == "source",
        )
    debian_versions(
        name = "debian",
        inputs = "relocked" if local else "pinned",
        versions = json.encode(versions),
    )
    return mctx.extension_metadata(reproducible = True)

debian = module_extension(
    implementation = _debian_impl,
    doc = "Repositories of the Debian packages that debian.lock pins.",
)
