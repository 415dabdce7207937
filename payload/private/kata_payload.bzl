"""The macros that make the targets of a payload."""

load("//stack:architectures.bzl", "for_architecture", "tags_for")
load("//stack:platforms.bzl", "PLATFORMS", "architectures_of", "has_guest", "main_architecture", "missing_components", "resolve")
load(":bundle.bzl", "payload_bundle", "payload_receipt")
load(":launcher.bzl", "payload_inspect", "payload_publish", "payload_publish_all")
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
        agent = for_architecture("//stack/agent:agent", arch) if has_guest(platform) else None,
        arch = arch,
        components = components,
        configurations = [for_architecture("//stack/runtimeconfig:configuration-" + c, arch) for c in classes] if configurations == None else configurations,
        expected = expected,
        inputs = inputs,
        lacks = [component for component in resolved.components if component not in expected],
        platform = platform,
        runtime_classes = classes,
        tags = tags_for(arch),
        **kwargs
    )

def payload_name(platform, arch):
    """Gives the name of a platform's payload for an architecture.

    Args:
      platform: name of the platform.
      arch: the architecture, by its Go name.

    Returns:
      The name of its target in //payload.
    """
    return platform if arch == main_architecture(platform) else "%s-%s" % (platform, arch)

def kata_payloads(**kwargs):
    """Makes the payload of every platform of the table, for each of its architectures.

    That for the platform's main architecture has the platform's name, the others are
    `<platform>-<architecture>`. `<platform>-all.publish` publishes all that can be built,
    with one index.

    Args:
      **kwargs: what kata_payload takes for all of them.
    """
    for platform in PLATFORMS:
        for arch in architectures_of(platform):
            kata_payload(
                name = payload_name(platform, arch),
                arch = arch,
                platform = platform,
                **kwargs
            )
        built = [arch for arch in architectures_of(platform) if not missing_components(platform, arch)]
        if len(built) > 1:
            payload_publish_all(
                name = platform + "-all.publish",
                payloads = [payload_name(platform, arch) for arch in built],
                tags = ["manual"],
                visibility = kwargs.get("visibility"),
            )
