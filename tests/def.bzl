"""The tests of a platform, stamped from the table of runtime classes."""

load("@rules_go//go:def.bzl", "go_test")
load("@test_machine//:machine.bzl", "NODE")
load("//stack:platforms.bzl", "FIRMWARE", "PLATFORMS", "TEE", "TEE_LABEL", "WITHOUT_GUEST", "has_guest", "main_architecture", "missing_components")
load("//tests/private:suite_source.bzl", "suite_source")

# The tag of the tests that a platform's verdict is made of: `kiln plan` asks
# the cache for them. What needs hardware is not among them.
VERDICT = "platform"

def _bundle(platform):
    return "//payload:%s.bundle" % platform

def _payload_env(platform):
    return {"KILN_PAYLOAD_BUNDLE": "$(rlocationpath %s)" % _bundle(platform)}

def suite_test(name, src, **kwargs):
    """Makes a test of a suite's source, which plain `go test` leaves out.

    Args:
      name: name of the test.
      src: label of the source, which begins with `//go:build payload`.
      **kwargs: attributes of go_test.
    """
    suite_source(
        name = name + "_suite",
        testonly = True,
        src = src,
        visibility = ["//visibility:private"],
    )
    go_test(
        name = name,
        srcs = [name + "_suite"],
        **kwargs
    )

def _node_test(name, platform, src, deps, unavailable):
    """Makes a test that installs a platform's payload on a node of the test's own."""
    labels = {TEE_LABEL[c]: None for c in PLATFORMS[platform] if c in TEE_LABEL}
    suite_test(
        name = name,
        size = "enormous",
        src = src,
        data = [
            _bundle(platform),
            "//deploy/chart",
            "//deploy/chart:" + platform,
            "//tests/node:files",
        ],
        env = _payload_env(platform) | {
            "KILN_CHART": "$(rlocationpath //deploy/chart)",
            "KILN_CHART_VALUES": "$(rlocationpath //deploy/chart:%s)" % platform,
            "KILN_NODE_LABELS": " ".join([label + "=true" for label in labels]),
            "KILN_SHIM_REFUSAL": _REFUSAL_WITHOUT_HARDWARE if has_guest(platform) else _REFUSAL_WITHOUT_CLOUD,
        },
        tags = [
            "cpu:2",
            # It makes namespaces, mounts and cgroups.
            "local",
            "node",
        ],
        target_compatible_with = unavailable or NODE,
        deps = deps + [
            "//tests/suite/install",
            "//tests/suite/node",
            "@com_github_stretchr_testify//require",
        ],
    )

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
        deps = [
            "//payload/image",
            "//tests/suite/payloadtest",
            "//tools/exitcode",
        ],
        platform = platform,
        src = "//tests/suite/install/faults:faults_test.go",
        unavailable = [],
    )

def platform_tests(platform):
    """Makes the tests of one platform's payload: contract, boot, node and hardware.

    A platform with one runtime class has the targets `boot` and `hardware`,
    one with several has `boot_<class>` and `hardware_<class>`. A runtime class
    whose guest is not on the node has neither. Where a component of the platform is
    missing, all of them are there, and Bazel skips them; what is missing is said by
    the payload's own targets.

    Args:
      platform: name of the platform, which is also that of its payload.
    """
    unavailable = ["@platforms//:incompatible"] if missing_components(platform, main_architecture(platform)) else []
    suite_test(
        name = "contract",
        size = "medium",
        src = "//tests/suite/contract:contract_test.go",
        data = [_bundle(platform)],
        env = _payload_env(platform) | {
            "KILN_FIRMWARE": json.encode({c: FIRMWARE[c] for c in PLATFORMS[platform] if c in FIRMWARE}),
            "KILN_GUEST": "node" if has_guest(platform) else "elsewhere",
        },
        tags = [VERDICT],
        target_compatible_with = unavailable,
        deps = [
            "//payload/image",
            "//payload/receipt",
            "//stack/runtimeconfig/check",
            "//stack/runtimeconfig/configuration",
            "//tests/suite/boot",
            "//tests/suite/contract",
            "//tests/suite/payloadtest",
            "//tools/component/metadata",
            "//tools/layer",
            "@com_github_burntsushi_toml//:toml",
            "@com_github_stretchr_testify//require",
        ],
    )
    _node_test(
        name = "node",
        deps = [
            "@io_k8s_api//core/v1:core",
            "@io_k8s_apimachinery//pkg/apis/meta/v1:meta",
        ],
        platform = platform,
        src = "//tests/suite/install:install_test.go",
        unavailable = unavailable,
    )
    classes = [name for name in PLATFORMS[platform] if name not in WITHOUT_GUEST]
    for class_ in classes:
        suffix = "_" + class_ if len(classes) > 1 else ""
        suite_test(
            name = "boot" + suffix,
            size = "large",
            src = "//tests/suite/boot:boot_test.go",
            data = [
                _bundle(platform),
                "//tests/suite/testtools:root",
            ],
            env = _payload_env(platform) | {
                "KILN_FIRMWARE": FIRMWARE.get(class_, ""),
                "KILN_RUNTIME_CLASS": class_,
                "KILN_TEST_TOOLS": "$(rlocationpath //tests/suite/testtools:root)",
            },
            # Emulation keeps every CPU busy, and a guest that gets none
            # looks like one that hangs.
            tags = [
                VERDICT,
                "cpu:2",
            ],
            target_compatible_with = unavailable,
            deps = [
                "//stack/agent/healthpb",
                "//stack/agent/report",
                "//tests/suite/boot",
                "//tests/suite/contract",
                "//tests/suite/payloadtest",
                "//tests/suite/testtools",
                "//tests/suite/vm",
                "@com_github_containerd_ttrpc//:ttrpc",
                "@com_github_stretchr_testify//require",
                "@rules_go//go/runfiles",
            ],
        )
        suite_test(
            name = "hardware" + suffix,
            size = "large",
            src = "//tests/suite/hardware:hardware_test.go",
            data = ["//payload:%s.receipt" % platform],
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
            deps = [
                "//deploy/kubernetes/clientset",
                "//payload/receipt",
                "@com_github_stretchr_testify//require",
                "@io_k8s_api//core/v1:core",
                "@io_k8s_apimachinery//pkg/apis/meta/v1:meta",
                "@io_k8s_client_go//tools/clientcmd",
                "@rules_go//go/runfiles",
            ],
        )
