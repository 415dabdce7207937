"""What the values of the chart say of shims, from the table of runtime classes."""

load("//stack:platforms.bzl", "PLATFORMS", "RUNTIME_CLASSES", "overhead", "tee_selector")

# Shims of which some payload is made.
_SHIMS = sorted([name for classes in PLATFORMS.values() for name in classes])

def _shim(name):
    return {
        "agent": {"httpsProxy": "", "noProxy": ""},
        "allowedHypervisorAnnotations": [],
        "containerd": {"forceGuestPull": False, "snapshotter": ""},
        "crio": {"guestPull": False},
        "enabled": None,
        "runtimeClass": {
            "nodeSelector": tee_selector(name),
            "overhead": overhead(name),
            "overheadEnabled": None,
        },
        "supportedArches": sorted(RUNTIME_CLASSES[name]),
    }

def _yaml(value):
    """Writes a table with two more levels as YAML; what is deeper stays JSON."""
    lines = []
    for key, inner in value.items():
        if type(inner) != "dict" or not inner:
            lines.append("  %s: %s" % (key, json.encode(inner)))
            continue
        lines.append("  %s:" % key)
        lines.extend(["    %s: %s" % (k, json.encode(v)) for k, v in inner.items()])
    return "\n".join(lines)

def shims_yaml():
    """Writes the section `shims` of the chart's values.

    Returns:
      The section as YAML, without an end of line.
    """
    shims = {"disableAll": False} | {name: _shim(name) for name in _SHIMS}
    return "shims:\n" + _yaml(shims)

def shims_names():
    """Gives what may be in the section `shims` of the chart's values.

    Returns:
      The names, as a list in JSON.
    """
    return json.encode(["disableAll"] + _SHIMS)

def platform_shims(classes):
    """Gives runtime classes as the rule payload_manifest takes them.

    Args:
      classes: names of runtime classes.

    Returns:
      A dict from name to the architectures that it is for.
    """
    return {name: sorted(RUNTIME_CLASSES[name]) for name in classes}
