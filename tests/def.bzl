"""The tests of a platform, stamped from the table of runtime classes."""

load("@rules_go//go:def.bzl", "go_library", "go_test")
load("@test_machine//:machine.bzl", "NODE", "NODE_OR_CLUSTER")
load("//payload:def.bzl", "payload_name")
load("//stack:architectures.bzl", "ARCHITECTURES", "for_architecture", "foreign_tests")
load("//stack:platforms.bzl", "PLATFORMS", "TEE", "TEE_LABEL", "WITHOUT_GUEST", "architectures_of", "firmware", "guest_kind", "has_guest", "hypervisor", "is_emulated", "missing_components")
load("//tests/private:suite_source.bzl", "suite_source")

# The tag of the tests that a platform's verdict is made of: `kiln plan` asks
# the cache for them. What needs hardware is not among them.
VERDICT = "platform"

def _bundle(payload):
    return "//payload:%s.bundle" % payload

def _payload_env(payload):
    return {"KILN_PAYLOAD_BUNDLE": "$(rlocationpath %s)" % _bundle(payload)}

def suite(name, src, deps):
    """Makes a library of a suite's source, which plain `go test` leaves out.

    The platforms' tests embed it. It is judged where it is, once, and also where no
    test of it can run.

    Args:
      name: name of the library.
      src: the source, which begins with `//go:build payload`.
      deps: what it imports.
    """
    suite_source(
        name = name + "_source",
        testonly = True,
        src = src,
        visibility = ["//visibility:private"],
    )
    go_library(
        name = name,
        testonly = True,
        srcs = [name + "_source"],
        importpath = "github.com/kiln-build/kiln/%s/%s" % (native.package_name(), name),
        visibility = [
            "//payload:__subpackages__",
            "//tests:__subpackages__",
        ],
        deps = deps,
    )

def _available(platform, arch):
    return arch in architectures_of(platform) and not missing_components(platform, arch)

def _contract_test(platform, arch):
    """Makes the test of what a platform's payload for an architecture consists of."""
    payload = payload_name(platform, arch)
    data, env = [_bundle(payload)], {}
    compatible = []
    if not _available(platform, arch):
        compatible = ["@platforms//:incompatible"]
    elif arch != "amd64":
        emulator = "//tests/suite/contract:" + for_architecture("emulator", arch)
        data.append(emulator)
        env = {
            "KILN_EMULATOR": "$(rlocationpath %s)" % emulator,
            "KILN_EMULATOR_NAME": ARCHITECTURES[arch].emulator,
        }
        compatible = foreign_tests()
    go_test(
        name = "contract" + payload.removeprefix(platform),
        size = "medium",
        data = data,
        embed = ["//tests/suite/contract:contract_suite"],
        env = _payload_env(payload) | env | {
            "KILN_ARCH": arch,
            "KILN_FIRMWARE": json.encode({c: firmware(c, arch) for c in PLATFORMS[platform] if firmware(c, arch)}),
            "KILN_GUEST": guest_kind(platform, arch),
            "KILN_HYPERVISOR": hypervisor(PLATFORMS[platform][0], arch),
        },
        tags = [VERDICT] if payload == platform else [],
        target_compatible_with = compatible,
    )

def _boot_test(name, platform, runtime_class, unavailable):
    """Makes the test that boots a runtime class's guest under emulation."""
    go_test(
        name = name,
        size = "large",
        data = [
            _bundle(platform),
            "//tests/suite/testtools:root",
        ],
        embed = ["//tests/suite/boot:boot_suite"],
        env = _payload_env(platform) | {
            "KILN_FIRMWARE": firmware(runtime_class),
            "KILN_RUNTIME_CLASS": runtime_class,
            "KILN_TEST_TOOLS": "$(rlocationpath //tests/suite/testtools:root)",
        },
        # Emulation keeps every CPU busy, and a guest that gets none
        # looks like one that hangs.
        tags = [
            VERDICT,
            "cpu:2",
        ],
        target_compatible_with = unavailable,
    )

def _node_test(name, platform, suites, unavailable, env = {}, machine = NODE):
    """Makes a test that installs a platform's payload on a node of the test's own."""
    labels = {TEE_LABEL[c]: None for c in PLATFORMS[platform] if c in TEE_LABEL}
    go_test(
        name = name,
        size = "enormous",
        data = [
            _bundle(platform),
            "//deploy/chart",
            "//deploy/chart:" + platform,
            "//tests/node:files",
            _LOOK,
        ],
        embed = suites,
        env = _payload_env(platform) | {
            "KILN_CHART": "$(rlocationpath //deploy/chart)",
            "KILN_CHART_VALUES": "$(rlocationpath //deploy/chart:%s)" % platform,
            "KILN_LOOK": "$(rlocationpath %s)" % _LOOK,
            "KILN_NODE_LABELS": " ".join([label + "=true" for label in labels]),
            "KILN_SHIM_REFUSAL": _REFUSAL_WITHOUT_HARDWARE if has_guest(platform) else _REFUSAL_WITHOUT_CLOUD,
        } | env,
        tags = [
            "cpu:2",
            # It makes namespaces, mounts and cgroups.
            "local",
            "node",
        ],
        target_compatible_with = unavailable or machine,
    )

# What looks at a node of a cluster from a pod.
_LOOK = "//tests/suite/install/look/program"

# What the shim says where it has nothing to start a sandbox with.
_REFUSAL_WITHOUT_HARDWARE = "vhost-vsock|/dev/kvm"
_REFUSAL_WITHOUT_CLOUD = "hypervisor.sock"

def fault_tests(platform):
    """Makes the test that puts the installer into trouble, with a platform's payload.

    What goes wrong has nothing to do with the platform, so one is enough.

    Args:
      platform: name of the platform.
    """
    _node_test(
        name = "faults",
        platform = platform,
        suites = ["//tests/suite/install/faults:faults_suite"],
        unavailable = [],
    )

def cluster_tests(platform):
    """Makes the test that uses a throw-away node as if it were one of somebody's cluster.

    It runs what `node` runs where there is a KUBECONFIG. How a cluster is reached has
    nothing to do with the platform, so one is enough.

    Args:
      platform: name of the platform.
    """
    _node_test(
        name = "cluster",
        platform = platform,
        suites = [
            "//tests/suite/install:install_suite",
            "//tests/suite/install/given:given_suite",
        ],
        env = {"KILN_OWN_CLUSTER": "1"},
        unavailable = [],
    )

def snapshotter_tests(platform):
    """Makes the test that sets up a payload's snapshotter for guests that pull images.

    Args:
      platform: name of a platform whose guests do; one is enough, since the snapshotter
        is the same for all.
    """
    _node_test(
        name = "snapshotter",
        platform = platform,
        suites = ["//tests/suite/install/snapshotter:snapshotter_suite"],
        unavailable = [] if _available(platform, "amd64") else ["@platforms//:incompatible"],
    )

def platform_tests(platform):
    """Makes the tests of one platform's payload: contract, boot, node and hardware.

    All but the contract are run where the payload's programs run: on amd64. The tests of
    the contract run programs of other architectures in an emulator, for whoever asks with
    `--config=foreign`; that of an architecture beside the main one is `contract-<arch>`.

    A platform with one runtime class has the targets `boot` and `hardware`,
    one with several has `boot_<class>` and `hardware_<class>`. A runtime class
    whose guest is not on the node has neither, and one whose hypervisor emulates no
    processor has no `boot`. Where a component of the platform is
    missing, all of them are there, and Bazel skips them; what is missing is said by
    the payload's own targets.

    Args:
      platform: name of the platform, which is also that of its payload.
    """
    for arch in architectures_of(platform):
        _contract_test(platform, arch)
    unavailable = [] if _available(platform, "amd64") else ["@platforms//:incompatible"]
    _node_test(
        name = "node",
        platform = platform,
        suites = ["//tests/suite/install:install_suite"],
        unavailable = unavailable,
        machine = NODE_OR_CLUSTER,
    )
    classes = [name for name in PLATFORMS[platform] if name not in WITHOUT_GUEST]
    for class_ in classes:
        suffix = "_" + class_ if len(classes) > 1 else ""
        if is_emulated(class_):
            _boot_test(
                name = "boot" + suffix,
                platform = platform,
                runtime_class = class_,
                unavailable = unavailable,
            )
        go_test(
            name = "hardware" + suffix,
            size = "large",
            data = ["//payload:%s.receipt" % platform],
            embed = ["//tests/suite/hardware:hardware_suite"],
            env = {
                "KILN_PAYLOAD_RECEIPT": "$(rlocationpath //payload:%s.receipt)" % platform,
                "KILN_RUNTIME_CLASS": class_,
                "KILN_TEE": TEE.get(class_, ""),
            },
            env_inherit = [
                "KILN_TEST_IMAGE",
                "KUBECONFIG",
            ],
            # What it tests is outside of Bazel's sight: a result must not
            # be kept.
            tags = [
                "exclusive",
                "external",
                "no-remote",
                "requires-network",
            ],
            target_compatible_with = unavailable or ["//tests/platform:" + TEE.get(class_, "kvm")],
        )
