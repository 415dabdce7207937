"""What stands for a payload that cannot be built yet."""

def _unavailable_impl(ctx):
    """Says why, to whoever asks for it."""
    fail("%s: %s" % (str(ctx.label).lstrip("@"), ctx.attr.reason))

unavailable = rule(
    implementation = _unavailable_impl,
    doc = "A target that ends the build of whoever needs it with a reason.",
    attrs = {
        "reason": attr.string(doc = "What is missing.", mandatory = True),
    },
)
