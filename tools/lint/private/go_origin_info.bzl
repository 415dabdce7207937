"""Where generated Go code has its text from."""

GoOriginInfo = provider(
    doc = "Given by a rule whose output is a Go file that somebody wrote, but for its build constraint.",
    fields = {
        "file": "The file that was written. It is judged in place of the output.",
        "tags": "The build tags that its constraint asks for.",
    },
)
