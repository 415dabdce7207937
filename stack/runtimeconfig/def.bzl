"""Configurations of the Kata runtime.

`runtime_configuration` renders one configuration file, `runtime_config` makes
the component that installs the files of one platform.
"""

load("//stack/runtimeconfig/private:runtime_config.bzl", _runtime_config = "runtime_config")
load("//stack/runtimeconfig/private:runtime_configuration.bzl", _runtime_configuration = "runtime_configuration")

runtime_config = _runtime_config
runtime_configuration = _runtime_configuration
