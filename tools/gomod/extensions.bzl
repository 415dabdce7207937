"""Module extension that fetches foreign Go modules by checksum.

A foreign program has a folder with a go.mod and go.sum of its own, so that its
dependencies never mix with Kiln's. In go.mod, its main packages are `tool`s:

    module github.com/kiln-build/kiln/stack/shim

    require example.org/program v1.2.3
    tool example.org/program/cmd/program

`go mod tidy` there writes the rest. Where a checksum is in no public database,
begin with the go.sum that the program's own module carries. Then, in
MODULE.bazel:

    go_modules.program(name = "program", go_mod = "//stack/x:go.mod", go_sum = "//stack/x:go.sum")
    use_repo(go_modules, "go_program")

and in the folder's BUILD.bazel a go_module_binary of `@go_program//:src`. The
tags patch, render and export change or expose files of its modules. Modules
come from where the machine's Go settings (GOPROXY, ...) say; what they must be
is in go.sum alone. Those that programs are really linked from are what
go_module_binary lists, for the `source_lists` of a component.
"""

load("//tools/gomod/private:go_modules.bzl", _go_modules = "go_modules")

go_modules = _go_modules
