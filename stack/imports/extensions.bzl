"""The module extension that fetches what is imported."""

load("//stack:architectures.bzl", "for_architecture")
load("//stack/imports/private:import_repository.bzl", "import_repository", "imports_repository")
load(":imports.bzl", "IMPORTS")

_LOCK = Label("//stack:imports.lock")

def _imports_impl(mctx):
    names = [
        for_architecture(component, arch)
        for component, row in IMPORTS.items()
        for arch in row.architectures
    ]
    for component, row in IMPORTS.items():
        for arch in row.architectures:
            import_repository(
                name = "kata_import_" + for_architecture(component, arch),
                arch = arch,
                component = component,
                lock = _LOCK,
            )
    imports_repository(
        name = "kata_imports",
        archives = {name: "@kata_import_%s//:archive" % name for name in names},
        lock = _LOCK,
    )
    return mctx.extension_metadata(reproducible = True)

imports = module_extension(
    doc = """Gives the archives of all imports as `@kata_imports//:<component>`, with `-<arch>` after it for other
architectures than amd64, and what the lock says of them as `PINS` of `@kata_imports//:pins.bzl`. An archive is
fetched when something needs it.""",
    implementation = _imports_impl,
)
