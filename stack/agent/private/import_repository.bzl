"""The repository that holds upstream's agent, fetched by digest."""

_UNPINNED = """\
load("{rules}", "unpinned_agent")

unpinned_agent(
    name = "agent",
    lock = "{lock}",
    visibility = ["//visibility:public"],
)
"""

_PINNED = """\
load("{rules}", "layer_agent")

layer_agent(
    name = "agent",
    layer = "{layer}",
    path = "{path}",
    visibility = ["//visibility:public"],
)
"""

_MANIFEST_TYPES = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]

def _hex(lock, digest):
    if not digest.startswith("sha256:") or len(digest) != len("sha256:") + 64:
        fail("{}: {} is not a sha256 digest".format(lock, repr(digest)))
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

def _read_pin(rctx):
    lock = rctx.attr.lock
    where = "{}/{}".format(lock.package, lock.name)
    pin = json.decode(rctx.read(lock), default = None)
    if pin == None or pin.get("schemaVersion") != 1:
        fail("{}: not a lock of schema version 1".format(where))
    return pin, where

def _agent_pin_repository_impl(rctx):
    pin, _ = _read_pin(rctx)
    rctx.file("BUILD.bazel", "")
    rctx.file("pin.bzl", "PIN = {}\n".format(repr({
        "digest": pin.get("digest", ""),
        "license": pin.get("license", ""),
        "version": pin.get("version", ""),
    })))

agent_pin_repository = repository_rule(
    doc = "What a lock says about upstream's agent, as `PIN` of `//:pin.bzl`. Nothing is fetched.",
    implementation = _agent_pin_repository_impl,
    attrs = {
        "lock": attr.label(
            doc = "The lock that `//stack/agent:pin` writes.",
            allow_single_file = True,
            mandatory = True,
        ),
    },
)

def _agent_import_repository_impl(rctx):
    pin, where = _read_pin(rctx)
    if not pin.get("digest"):
        rctx.file("BUILD.bazel", _UNPINNED.format(
            lock = where,
            rules = str(Label("//stack/agent/private:agent.bzl")),
        ))
        return

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
        fail("{}: layer {} is not in the image {}. Pin the agent again with `bazel run //stack/agent:pin -- REFERENCE`".format(
            where,
            layer["digest"],
            pin["digest"],
        ))
    archive = "layer." + layer["type"]
    rctx.download(
        headers = headers,
        output = archive,
        sha256 = _hex(where, layer["digest"]),
        url = url + "/blobs/" + layer["digest"],
    )
    rctx.file("BUILD.bazel", _PINNED.format(
        layer = archive,
        path = layer["path"],
        rules = str(Label("//stack/agent/private:agent.bzl")),
    ))

agent_import_repository = repository_rule(
    doc = "Upstream's agent as `//:agent`, fetched by the digests of a lock. With an empty lock `//:agent` says how to pin one.",
    implementation = _agent_import_repository_impl,
    attrs = {
        "lock": attr.label(
            doc = "The lock that `//stack/agent:pin` writes.",
            allow_single_file = True,
            mandatory = True,
        ),
    },
)
