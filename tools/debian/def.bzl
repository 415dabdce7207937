"""Roots made of Debian packages. See private/debian_root.bzl."""

load("//tools/debian/private:debian_root.bzl", _debian_root = "debian_root")
load("//tools/debian/private:debian_root_info.bzl", _DebianRootInfo = "DebianRootInfo")

debian_root = _debian_root
DebianRootInfo = _DebianRootInfo
