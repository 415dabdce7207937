"""What judges the code of this repository."""

load("//tools/lint/private:go_lint.bzl", _GoLintInfo = "GoLintInfo", _go_lint = "go_lint")
load("//tools/lint/private:go_origin_info.bzl", _GoOriginInfo = "GoOriginInfo")

GoLintInfo = _GoLintInfo
GoOriginInfo = _GoOriginInfo
go_lint = _go_lint
