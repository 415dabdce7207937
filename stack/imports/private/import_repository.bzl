"""The repositories that hold what is imported, fetched by digest."""

_UNPINNED = """\
load("{rules}", "unpinned_import")

unpinned_import(
    name = "archive",
    arch = "{arch}",
    component = "{component}",
    visibility = ["//visibility:public"],
)
"""

_PINNED = """\
filegroup(
    name = "archive",
    srcs = ["{archive}"],
    visibility = ["//visibility:public"],
)
"""

_ALIAS = """
alias(
    name = "{name}",
    actual = "{archive}",
    visibility = ["//visibility:public"],
)
"""

_MANIFEST_TYPES = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]

_LOCK_ATTR = attr.label(
    doc = "The lock that `//stack:imports.update` writes.",
    allow_single_file = True,
    mandatory = True,
)

def _hex(where, digest):
    if not digest.startswith("sha256:") or len(digest) != len("sha256:") + 64:
        fail("{}: {} is not a sha256 digest".format(where, repr(digest)))
    return digest.removeprefix("sha256:")

def _base_url(registry):
    # As for every client of registries: only loopback is spoken to without TLS.
    host = registry.split(":")[0]
    scheme = "http" if host == "localhost" or host.startswith("127.") else "https"
    return "{}://{}/v2/".format(scheme, registry)

def _headers(rctx, pin):
    """Gets an anonymous token where the lock says that the registry wants one."""
    token = pin.get("token")
    if not token:
        return {}
    rctx.download(
        output = "token.json",
        url = "{}?service={}&scope=repository:{}:pull".format(token["realm"], token["service"], pin["repository"]),
    )
    answer = json.decode(rctx.read("token.json"))
    rctx.delete("token.json")
    return {"Authorization": "Bearer " + (answer.get("token") or answer["access_token"])}

def _read_lock(rctx):
    lock = rctx.attr.lock
    where = "{}/{}".format(lock.package, lock.name)
    content = json.decode(rctx.read(lock), default = None)
    if content == None or content.get("schemaVersion") != 2:
        fail("{}: not a lock of schema version 2".format(where))
    return content.get("imports") or [], where

def _imports_repository_impl(rctx):
    pins = {}
    for pin in _read_lock(rctx)[0]:
        pins.setdefault(pin["component"], {})[pin["arch"]] = {
            "digest": pin["digest"],
            "license": pin["license"],
            "purl": "pkg:oci/{}@{}?repository_url={}/{}".format(
                pin["repository"].split("/")[-1],
                pin["digest"].replace(":", "%3A"),
                pin["registry"],
                pin["repository"],
            ),
            "version": pin["version"],
        }
    rctx.file("pins.bzl", "PINS = {}\n".format(repr(pins)))
    rctx.file("BUILD.bazel", "".join([
        _ALIAS.format(archive = archive, name = name)
        for name, archive in sorted(rctx.attr.archives.items())
    ]))

imports_repository = repository_rule(
    doc = "The archives of all imports by their names, and `PINS` of `//:pins.bzl`: what the lock says of each, by component and architecture. Nothing is fetched.",
    implementation = _imports_repository_impl,
    attrs = {
        "archives": attr.string_dict(
            doc = "Name of each import, and the label of its archive.",
            mandatory = True,
        ),
        "lock": _LOCK_ATTR,
    },
)

def _import_repository_impl(rctx):
    component, arch = rctx.attr.component, rctx.attr.arch
    pins, where = _read_lock(rctx)
    pins = [pin for pin in pins if pin["component"] == component and pin["arch"] == arch]
    if not pins:
        rctx.file("BUILD.bazel", _UNPINNED.format(
            arch = arch,
            component = component,
            rules = str(Label("//stack/imports:def.bzl")),
        ))
        return

    pin = pins[0]
    url = _base_url(pin["registry"]) + pin["repository"]
    headers = _headers(rctx, pin)
    rctx.download(
        headers = headers | {"Accept": ", ".join(_MANIFEST_TYPES)},
        output = "manifest.json",
        sha256 = _hex(where, pin["digest"]),
        url = url + "/manifests/" + pin["digest"],
    )

    # The manifest says what the image is: a layer that is not in it would make
    # the pinned digest a lie.
    layer = pin["layer"]
    manifest = json.decode(rctx.read("manifest.json"))
    if layer["digest"] not in [layer["digest"] for layer in manifest.get("layers", [])]:
        fail("{}: layer {} of {} for {} is not in the image {}. Pin it again with `bazel run //stack:imports.update -- {}`".format(
            where,
            layer["digest"],
            component,
            arch,
            pin["digest"],
            component,
        ))
    archive = "archive." + layer["type"]
    rctx.download(
        headers = headers,
        output = archive,
        sha256 = _hex(where, layer["digest"]),
        url = url + "/blobs/" + layer["digest"],
    )
    rctx.file("BUILD.bazel", _PINNED.format(archive = archive))

import_repository = repository_rule(
    doc = "The archive of one import as `//:archive`, fetched by the digests of the lock. Where the lock has none, `//:archive` says how to pin one.",
    implementation = _import_repository_impl,
    attrs = {
        "arch": attr.string(
            doc = "The architecture, by Go's name.",
            mandatory = True,
        ),
        "component": attr.string(
            doc = "Upstream's name of what is imported.",
            mandatory = True,
        ),
        "lock": _LOCK_ATTR,
    },
)
