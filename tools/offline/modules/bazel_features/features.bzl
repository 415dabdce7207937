"""What the Bazel of .bazelversion can do, in the form that rule sets ask for it.

Only the questions that the modules of the offline set ask are answered. The
answers are those for Bazel 7.7.
"""

bazel_features = struct(
    external_deps = struct(
        extension_metadata_has_reproducible = True,
        is_bzlmod_enabled = True,
        module_extension_has_os_arch_dependent = True,
    ),
    proto = struct(
        starlark_proto_info = True,
    ),
    rules = struct(
        # Bazel writes baseline coverage by itself until version 8.
        instrumented_files_info_has_baseline_coverage_files = False,
    ),
)
