"""What tests have in common that run Bazel; see //tools/nested/nestedtest."""

# Bazel must find its caches, and bazelw says how it is called.
ENV_INHERIT = [
    "HOME",
    "KILN_NESTED_BAZEL",
    "USER",
]

# Such a test runs Bazel, which brings its own sandbox and cannot run in one, and
# shares an output base with the others.
TAGS = [
    "exclusive",
    "local",
    "requires-network",
]
