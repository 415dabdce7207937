"""Files that are made, and in the source tree for whoever has no Bazel."""

load("@rules_go//go:def.bzl", "go_binary", "go_test")

def checked_in(name, files, visibility = None):
    """Holds files of this package to what is made for them.

    <name> is a test that fails if one of them is not what is made, and
    <name>.update renews them when it is run.

    Args:
      name: name of the test.
      files: labels of what is made, by the names of the files.
      visibility: visibility of what renews them.
    """
    package = native.package_name()
    go_test(
        name = name,
        size = "small",
        srcs = ["//tools/checkedin:drift_test.go"],
        data = files.keys() + files.values(),
        env = {
            "KILN_CHECKED_IN": " ".join([
                "$(rlocationpath %s)=$(rlocationpath %s)" % (file, made)
                for file, made in files.items()
            ]),
            "KILN_RENEW": "//%s:%s.update" % (package, name),
        },
        gotags = ["bazel"],
        deps = [
            "//tools/checkedin",
            "@com_github_stretchr_testify//require",
            "@rules_go//go/runfiles",
        ],
    )
    go_binary(
        name = name + ".update",
        args = [
            "%s/%s=$(rlocationpath %s)" % (package, file, made)
            for file, made in files.items()
        ],
        data = files.values(),
        embed = ["//tools/checkedin/cmd:cmd_lib"],
        visibility = visibility,
    )
