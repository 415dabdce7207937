"""What of the stack is imported: built and published by upstream, and taken by digest.

`stack/imports.lock` says which digest; `bazel run //stack:imports.update` writes it.
"""

# The release of Kata Containers that the other components are of, see stack/shim/go.mod.
_KATA_RELEASE = "3.20.0"

_KATA = "https://github.com/kata-containers/kata-containers"
_GUEST_COMPONENTS = "https://github.com/confidential-containers/guest-components"

_ALL = ["amd64", "arm64", "ppc64le", "s390x"]
_PC_AND_ARM = ["amd64", "arm64"]
_CONFIDENTIAL = ["amd64", "arm64", "s390x"]

# Below which the archives of Kata's components have what is installed.
_INSTALLED = "opt/kata"

def _kata(component, license, architectures, programs = [], files = [], root = _INSTALLED):
    return struct(
        architectures = architectures,
        files = files,
        license = license,
        programs = programs,
        repository = "kata-containers/cached-artefacts/" + component,
        root = root,
        source = _KATA,
        tag = _KATA_RELEASE + "-{machine}",
    )

# By upstream's name of the component:
#
# * architectures: by Go's names.
# * repository: where the artefact is, without the registry.
# * tag: what is resolved to a digest; {machine} is the architecture as uname calls it. None
#   where upstream names artefacts by commits alone: it is given to the update.
# * root, programs, files: what is taken of the archive: paths below the directory `root`, and
#   which of them are programs. The layer that has the first of them is the archive.
# * license: an SPDX expression, unless the artefact states another.
# * source: the repository that provenance must name.
IMPORTS = {
    "agent": _kata("agent", "Apache-2.0", _ALL, ["usr/bin/kata-agent"], root = ""),
    "cloud-hypervisor": _kata("cloud-hypervisor", "Apache-2.0 AND BSD-3-Clause", _PC_AND_ARM, ["bin/cloud-hypervisor"]),
    "coco-guest-components": struct(
        architectures = _CONFIDENTIAL,
        files = [],
        license = "Apache-2.0",
        programs = [
            "usr/local/bin/attestation-agent",
            "usr/local/bin/confidential-data-hub",
            "usr/local/bin/api-server-rest",
        ],
        repository = "confidential-containers/guest-components/coco-extension",
        root = "",
        source = _GUEST_COMPONENTS,
        tag = None,
    ),
    "firecracker": _kata("firecracker", "Apache-2.0", _PC_AND_ARM, ["bin/firecracker", "bin/jailer"]),
    "genpolicy": _kata(
        "genpolicy",
        "Apache-2.0",
        _PC_AND_ARM,
        ["bin/genpolicy"],
        [
            "share/defaults/kata-containers/genpolicy-settings.json",
            "share/defaults/kata-containers/rules.rego",
        ],
    ),
    "nydus": _kata("nydus", "Apache-2.0 AND BSD-3-Clause", _PC_AND_ARM, ["libexec/nydusd"]),
    "openvmm": _kata("openvmm", "MIT", _PC_AND_ARM, ["bin/openvmm"]),
    "rootfs-image-coco-extension": _kata(
        "rootfs-image-coco-extension",
        "Apache-2.0",
        _CONFIDENTIAL,
        files = [
            "share/kata-containers/kata-containers-coco-extension.img",
            "share/kata-containers/root_hash_coco-extension.txt",
        ],
    ),
    "shim-v2-rust": _kata("shim-v2-rust", "Apache-2.0", _ALL, ["runtime-rs/bin/containerd-shim-kata-v2"]),
}

# Imports that other components are made from. All others are components themselves.
INGREDIENTS = ["agent", "coco-guest-components"]

# How the lock is renewed, for messages.
UPDATE = "bazel run //stack:imports.update"

def paths_of(component):
    """Gives the paths of all that is taken of an import.

    Args:
      component: name of the import.

    Returns:
      Paths in its archive, the one that tells the archive first.
    """
    row = IMPORTS[component]
    below = row.root + "/" if row.root else ""
    return [below + path for path in row.programs + row.files]
