"""The macros that make the targets of a payload."""

load("//stack:platforms.bzl", "PLATFORMS", "has_guest", "main_architecture", "missing_components", "resolve")
load(":bundle.bzl", "payload_bundle", "payload_receipt")
load(":launcher.bzl", "payload_inspect", "payload_publish")
load(":payload_image.bzl", "payload_image")
load(":unavailable.bzl", "unavailable")

_SUFFIXES = {
    ".bundle": payload_bundle,
    ".inspect": payload_inspect,
    ".publish": payload_publish,
    ".receipt": payload_receipt,
}

def payload_targets(name, tags = [], testonly = False, visibility = None, **kwargs):
    """Makes a payload that no table knows, for tests of these rules.

    Args:
      name: name of the payload; the names of its other targets follow.
      tags: tags of all targets.
      testonly: whether only tests may use it.
      visibility: visibility of all targets.
      **kwargs: attributes of payload_image.
    """
    payload_image(
        name = name,
        tags = tags,
        testonly = testonly,
        visibility = visibility,
        **kwargs
    )
    for suffix, rule in _SUFFIXES.items():
        rule(
            name = name + suffix,
            payload = name,
            # Publishing takes all layers. Whoever builds a pattern, such as
            # //payload:all, wants what describes payloads, and no byte of them.
            tags = tags + (["manual"] if suffix == ".publish" else []),
            testonly = testonly,
            visibility = visibility,
        )

def kata_payload(name, platform, arch = "amd64", components = None, configurations = None, inputs = "pinned", **kwargs):
    """Makes the payload of a platform.

    <name> are the image's documents, <name>.publish publishes it and
    <name>.inspect shows what is in it when run, <name>.receipt is its receipt,
    and <name>.bundle gives all of it to a test. Where nothing builds one of its
    components yet, all of these say so, and are left out of patterns.

    Args:
      name: name of the payload, the platform's by convention.
      platform: name of the platform in stack/platforms.bzl.
      arch: architecture, by its Go name.
      components: labels of the components; those of the table by default.
      configurations: labels of the runtime classes' configurations; those of
        the table's runtime classes by default.
      inputs: where the inputs came from, "pinned" or "relocked".
      **kwargs: what every rule takes.
    """
    resolved = resolve(platform, arch)
    if resolved.error:
        fail(resolved.error)
    missing = missing_components(platform, arch)
    if missing and components == None:
        for suffix in [""] + _SUFFIXES.keys():
            unavailable(
                name = name + suffix,
                reason = missing,
                tags = ["manual"],
                **kwargs
            )
        return
    if components == None:
        by_name = {component: label for component, label in resolved.components.items() if label}
        components, expected = by_name.values(), by_name.keys()
    else:
        expected = resolved.components.keys()
    classes = PLATFORMS[platform]
    payload_targets(
        name = name,
        agent = "//stack/agent:agent" if has_guest(platform) else None,
        arch = arch,
        components = components,
        configurations = ["//stack/runtimeconfig:configuration-" + c for c in classes] if configurations == None else configurations,
        expected = expected,
        inputs = inputs,
        lacks = [component for component in resolved.components if component not in expected],
        platform = platform,
        runtime_classes = classes,
        **kwargs
    )

def kata_payloads(**kwargs):
    """Makes the payload of every platform of the table, each by its platform's name.

    Args:
      **kwargs: what kata_payload takes for all of them.
    """
    for platform in PLATFORMS:
        kata_payload(
            name = platform,
            arch = main_architecture(platform),
            platform = platform,
            **kwargs
        )
