"""proto_common, which is built into Bazel 7."""

# buildifier: disable=native-proto-common
_proto_common = proto_common_do_not_use

proto_common = _proto_common
