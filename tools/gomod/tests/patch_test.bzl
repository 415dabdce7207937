"""Unit tests of moved patches."""

load("@bazel_skylib//lib:unittest.bzl", "asserts", "unittest")
load("//tools/gomod/private:patch.bzl", "relocate")

_PATCH = """\
Why it is needed.

diff --git a/x/y.go b/x/y.go
index 1..2 100644
--- a/x/y.go\t2020-01-01 00:00:00
+++ b/x/y.go
@@ -1,3 +1,3 @@ func f() {
 same
--- looks like a name
+++ this too
 same
@@ -9 +9 @@
-old
+new
\\ No newline at end of file
--- /dev/null
+++ b/new.go
@@ -0,0 +1 @@
+package x
"""

_WANT = """\
--- vendor/m/x/y.go
+++ vendor/m/x/y.go
@@ -1,3 +1,3 @@ func f() {
 same
--- looks like a name
+++ this too
 same
@@ -9 +9 @@
-old
+new
\\ No newline at end of file
--- /dev/null
+++ vendor/m/new.go
@@ -0,0 +1 @@
+package x
"""

def _relocate_impl(ctx):
    env = unittest.begin(ctx)
    moved = relocate(_PATCH, "vendor/m", 1, "a.patch")
    asserts.equals(env, None, moved.error)
    asserts.equals(env, _WANT, moved.text)

    # Patches for Bazel's own module_override are often written for -p0.
    moved = relocate("--- x.go\n+++ x.go\n@@ -1 +1 @@\n-a\n+b\n", "vendor/m", 0, "a.patch")
    asserts.equals(env, "--- vendor/m/x.go\n+++ vendor/m/x.go\n@@ -1 +1 @@\n-a\n+b\n", moved.text)

    # Parts for files that are not there on purpose are left out, and only those.
    moved = relocate(_PATCH, "vendor/m", 1, "a.patch", absent = lambda name: name == "vendor/m/x/y.go")
    asserts.equals(env, None, moved.error)
    asserts.equals(env, _WANT[_WANT.index("--- /dev/null"):], moved.text)
    moved = relocate(_PATCH, "vendor/m", 1, "a.patch", absent = lambda name: name == "vendor/m/new.go")
    asserts.equals(env, _WANT, moved.text)
    return unittest.end(env)

relocate_test = unittest.make(_relocate_impl)

def _errors_impl(ctx):
    env = unittest.begin(ctx)
    for patch, want in {
        "": "a.patch: there is no hunk in it; is it a unified diff?",
        "--- a/x.go\n+++ b/x.go\n@@ -1,2 +1,2 @@\n a\n-b\n": "a.patch: the last hunk is cut short",
        "--- a/x.go\n+++ b/x.go\n@@ bad @@\n": "a.patch: malformed hunk header: @@ bad @@",
        "--- x.go\n+++ x.go\n@@ -1 +1 @@\n-a\n+b\n": "a.patch: cannot strip 1 leading components from x.go",
    }.items():
        moved = relocate(patch, "vendor/m", 1, "a.patch")
        asserts.equals(env, want, moved.error)
        asserts.equals(env, None, moved.text)
    moved = relocate("--- x.go\n+++ x.go\n@@ -1 +1 @@\n-a\n+b\n", "vendor/m", 0, "a.patch", absent = lambda _: True)
    asserts.equals(env, "a.patch: nothing of what it changes is used by a program", moved.error)
    return unittest.end(env)

errors_test = unittest.make(_errors_impl)

def patch_test_suite(name):
    """Makes all tests of this file.

    Args:
      name: name of the suite.
    """
    unittest.suite(name, relocate_test, errors_test)
