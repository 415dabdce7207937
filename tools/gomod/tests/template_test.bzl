"""Unit tests of templates."""

load("@bazel_skylib//lib:unittest.bzl", "asserts", "unittest")
load("//tools/gomod/private:template.bzl", "render")

def _render_impl(ctx):
    env = unittest.begin(ctx)
    for template, want in {
        "": "",
        "@A@": "1",
        "@A@@B_2@": "1two",
        "@A@B_2@": "1B_2@",
        "@a@ @A@": "@a@ 1",
        "\nx\n": "\nx\n",
        "mail me@B_2.org": "mail me@B_2.org",
        "var a = \"@A@\"\nvar b = '@B_2@' // @A@\n": "var a = \"1\"\nvar b = 'two' // 1\n",
    }.items():
        used = {name: value for name, value in {"A": "1", "B_2": "two"}.items() if "@%s@" % name in template and want != template}
        if template == "@A@B_2@":
            used.pop("B_2")
        rendered = render(template, used, "x.in")
        asserts.equals(env, None, rendered.error)
        asserts.equals(env, want, rendered.text)
    return unittest.end(env)

render_test = unittest.make(_render_impl)

def _errors_impl(ctx):
    env = unittest.begin(ctx)
    unknown = render("a\n\"@A@ @B@\"\n", {"A": "1"}, "x.in")
    asserts.equals(env, "x.in:2: variable @B@ has no value; give it one in `substitutions`", unknown.error)
    asserts.equals(env, None, unknown.text)
    unused = render("@A@", {"A": "1", "B": "2", "C": "3"}, "x.in")
    asserts.equals(env, "x.in: no such variable: @B@, @C@", unused.error)
    return unittest.end(env)

errors_test = unittest.make(_errors_impl)

def template_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    unittest.suite(name, render_test, errors_test)
