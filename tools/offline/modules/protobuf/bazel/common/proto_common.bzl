"""proto_common, which is built into Bazel 7."""

load("//bazel/private:native.bzl", "native_proto_common")

proto_common = native_proto_common
