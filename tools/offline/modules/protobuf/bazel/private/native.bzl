"""Names for what is built into Bazel 7, so that files may export it by its own."""

# buildifier: disable=native-proto-info
NativeProtoInfo = ProtoInfo

# buildifier: disable=native-proto-common
native_proto_common = proto_common_do_not_use
