"""ProtoInfo, which is built into Bazel 7."""

load("//bazel/private:native.bzl", "NativeProtoInfo")

ProtoInfo = NativeProtoInfo
