"""Foreign Go programs, each with a go.mod and go.sum of its own.

`go_module_binary` compiles programs from a source tree that the extension
`go_modules` of extensions.bzl fetched.
"""

load("//tools/gomod/private:go_module_binary.bzl", _go_module_binary = "go_module_binary")

go_module_binary = _go_module_binary
