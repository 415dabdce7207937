"""Analysis tests of the rules that make manifests."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//deploy/manifests:def.bzl", "payload_manifest")
load("//payload/tests:payload_test.bzl", "refused_test")

def _action(env, mnemonic):
    actions = analysistest.target_actions(env)
    asserts.equals(env, [mnemonic], [a.mnemonic for a in actions])
    return actions[0]

def _after(argv, flag):
    return [argv[i + 1] for i in range(len(argv)) if argv[i] == flag]

def _filled_impl(ctx):
    """A page of text is made from a receipt and a template: no layer is needed."""
    env = analysistest.begin(ctx)
    action = _action(env, "FillManifest")
    inputs = [f.basename for f in action.inputs.to_list()]
    for name in inputs:
        asserts.false(env, name.endswith(".tar.zst"), "a layer is an input: " + name)
    for wanted in ["fake.receipt.json", "ccruntime.yaml.in"]:
        asserts.true(env, wanted in inputs, "%s is not an input: %s" % (wanted, inputs))
    asserts.equals(env, ["filled.yaml"], [f.basename for f in action.outputs.to_list()])
    asserts.equals(env, ["qemu=amd64,s390x", "remote=amd64"], _after(action.argv, "--shim"))
    asserts.true(env, "fill" in action.argv)
    return analysistest.end(env)

filled_test = analysistest.make(_filled_impl)

def _packed_impl(ctx):
    """Everything of the chart is packed, and nothing that makes it."""
    env = analysistest.begin(ctx)
    action = _action(env, "HelmPackage")
    asserts.equals(env, ["deploy/chart"], _after(action.argv, "--root"))
    packed = [a[len("deploy/chart/"):] for a in action.argv if a.startswith("deploy/chart/")]
    for wanted in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_check.tpl", "templates/daemonset.yaml"]:
        asserts.true(env, wanted in packed, "%s is not packed: %s" % (wanted, packed))
    for name in packed:
        asserts.false(env, name.endswith(".in") or name.endswith(".bazel"), "%s is packed" % name)
    asserts.equals(env, ["kata-deploy.tgz"], [f.basename for f in action.outputs.to_list()])
    return analysistest.end(env)

packed_test = analysistest.make(_packed_impl)

def manifests_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    payload_manifest(
        name = "filled",
        testonly = True,
        payload = "//payload/tests:fake",
        shims = {"qemu": ["amd64", "s390x"], "remote": ["amd64"]},
        tags = ["manual"],
        template = "//deploy/operator:ccruntime.yaml.in",
    )
    filled_test(
        name = "filled_test",
        target_under_test = ":filled",
    )
    packed_test(
        name = "packed_test",
        target_under_test = "//deploy/chart",
    )
    payload_manifest(
        name = "not_of_a_payload",
        testonly = True,
        payload = "//deploy/chart",
        shims = {"qemu": ["amd64"]},
        tags = ["manual"],
        template = "//deploy/operator:ccruntime.yaml.in",
    )
    refused_test(
        name = "not_of_a_payload_test",
        message = "does not have mandatory providers",
        target_under_test = ":not_of_a_payload",
    )
    native.test_suite(
        name = name,
        tests = [":filled_test", ":packed_test", ":not_of_a_payload_test"],
    )
