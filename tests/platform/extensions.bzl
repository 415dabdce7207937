"""What the machine that runs Bazel lets tests do.

A test that needs what not every machine gives says so in target_compatible_with.
Whether it is there is found out here, once, so that such a test is SKIPPED by Bazel
and not by itself:

    load("@test_machine//:machine.bzl", "NODE")

    go_test(
        ...
        target_compatible_with = NODE,
    )
"""

_MACHINE = '''\
"""What tests can have of this machine. Made by //tests/platform:extensions.bzl."""

# For target_compatible_with: nothing where there can be a node, a constraint that no
# machine satisfies where not. It was found out by: {command}
# {answer}
NODE = {node}

# The same for a test that can do with a cluster of somebody's, which there is with
# `--config=cluster` (KILN_CLUSTER is {cluster}).
NODE_OR_CLUSTER = {node_or_cluster}
'''

# What //tests/suite/node does with the machine, on a small scale.
_PROBE = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--cgroup", "--fork", "--mount-proc", "true"]

def _test_machine_impl(rctx):
    answer = "there is no unshare (of util-linux) here"
    node = False
    if rctx.which(_PROBE[0]):
        # Namespaces of a user who is not root look alike, but have no cgroups.
        user = rctx.execute(["id", "-u"]).stdout.strip()
        result = rctx.execute(_PROBE)
        node = user == "0" and result.return_code == 0
        answer = "user %s, exit code %d %s" % (user, result.return_code, result.stderr.strip())
    cluster = rctx.getenv("KILN_CLUSTER", "")
    constraint = [] if node else [str(Label("//tests/platform:root_with_namespaces"))]
    if not node:
        # buildifier: disable=print
        print("tests on a node are skipped on this machine, since they need root and its namespaces: %s: %s" % (" ".join(_PROBE), answer))
    rctx.file("BUILD.bazel", "")
    rctx.file("machine.bzl", _MACHINE.format(
        answer = answer.replace("\n", " "),
        command = " ".join(_PROBE),
        cluster = repr(cluster),
        node = constraint,
        node_or_cluster = [] if cluster else constraint,
    ))

_test_machine = repository_rule(
    implementation = _test_machine_impl,
    doc = "Finds out what tests can do on this machine.",
    configure = True,
    local = True,
)

def _machine_impl(_mctx):
    _test_machine(name = "test_machine")

machine = module_extension(
    implementation = _machine_impl,
    doc = "Makes @test_machine, which knows what tests can do on this machine.",
)
