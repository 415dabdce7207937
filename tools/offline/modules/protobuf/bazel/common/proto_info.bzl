"""ProtoInfo, which is built into Bazel 7."""

# buildifier: disable=native-proto-info
_proto_info = ProtoInfo

ProtoInfo = _proto_info
