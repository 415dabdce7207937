"""Module extension that fetches foreign Go modules by checksum."""

load("//tools/gomod/private:go_modules.bzl", _go_modules = "go_modules")

go_modules = _go_modules
