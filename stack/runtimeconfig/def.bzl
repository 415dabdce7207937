"""Configurations of the Kata runtime.

`runtime_configuration` renders one configuration file, `class_configuration` that
of a runtime class of the table, and `runtime_config` makes the component that
installs the files of one platform.
"""

load("//stack/runtimeconfig/private:class_configuration.bzl", _class_configuration = "class_configuration")
load("//stack/runtimeconfig/private:runtime_config.bzl", _runtime_config = "runtime_config")
load("//stack/runtimeconfig/private:runtime_configuration.bzl", _runtime_configuration = "runtime_configuration")

class_configuration = _class_configuration
runtime_config = _runtime_config
runtime_configuration = _runtime_configuration
