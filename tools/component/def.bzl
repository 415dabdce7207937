"""Rules that make components, and the provider that describes one."""

load("//tools/component/private:component_info.bzl", _ComponentInfo = "ComponentInfo")
load("//tools/component/private:kata_component.bzl", _kata_component = "kata_component")
load("//tools/component/private:root_component.bzl", _root_component = "root_component")

ComponentInfo = _ComponentInfo
kata_component = _kata_component
root_component = _root_component
