"""Components that upstream builds, taken by the digests of `stack/imports.lock`."""

load("//stack/imports/private:imported.bzl", _imported_component = "imported_component", _imported_files = "imported_files", _unpinned_import = "unpinned_import")

imported_component = _imported_component
imported_files = _imported_files
unpinned_import = _unpinned_import
