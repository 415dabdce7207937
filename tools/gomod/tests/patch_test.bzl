"""Unit tests of moved patches."""

load("@bazel_skylib//lib:unittest.bzl", "asserts", "unittest")
load("//tools/gomod/private:patch.bzl", "relocate", "settle")

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
diff -u
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
diff -u
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
    asserts.equals(env, "diff -u\n--- vendor/m/x.go\n+++ vendor/m/x.go\n@@ -1 +1 @@\n-a\n+b\n", moved.text)

    # Parts for files that are not there on purpose are left out, and only those.
    moved = relocate(_PATCH, "vendor/m", 1, "a.patch", absent = lambda name: name == "vendor/m/x/y.go")
    asserts.equals(env, None, moved.error)
    asserts.equals(env, _WANT[_WANT.rindex("diff -u"):], moved.text)
    moved = relocate(_PATCH, "vendor/m", 1, "a.patch", absent = lambda name: name == "vendor/m/new.go")
    asserts.equals(env, _WANT, moved.text)
    return unittest.end(env)

relocate_test = unittest.make(_relocate_impl)

_FILE = "a\nb\nnew\nc\nd\ne\nf\na\nb\ng\n"

_DRIFTED = """\
diff -u
--- x.go
+++ x.go
@@ -3,2 +3,3 @@ f()
 c
+added
 d
@@ -6,3 +7,2 @@
 f
-a
 b
diff -u
--- /dev/null
+++ y.go
@@ -0,0 +1 @@
+package x
"""

_SETTLED = """\
diff -u
--- x.go
+++ x.go
@@ -4,2 +4,3 @@
 c
+added
 d
@@ -7,3 +8,2 @@
 f
-a
 b
diff -u
--- /dev/null
+++ y.go
@@ -0,0 +1 @@
+package x
"""

def _settle_impl(ctx):
    env = unittest.begin(ctx)
    files = {"x.go": _FILE}
    asserts.equals(env, _SETTLED, settle(_DRIFTED, lambda name: files[name], "a.patch").text)
    asserts.equals(env, _SETTLED, settle(_SETTLED, lambda name: files[name], "a.patch").text)

    # The nearest of several places counts, and no place twice.
    patch = "--- x.go\n+++ x.go\n@@ -%d,2 +%d,2 @@\n a\n-b\n+z\n"
    for near, want in {1: 1, 4: 1, 5: 8, 12: 8}.items():
        settled = settle(patch % (near, near), lambda name: files[name], "a.patch")
        asserts.equals(env, patch % (want, want), settled.text)
    twice = patch % (1, 1) + "@@ -2,2 +2,2 @@\n a\n-b\n+y\n"
    asserts.true(env, "@@ -8,2 +8,2 @@" in settle(twice, lambda name: files[name], "a.patch").text)

    settled = settle("--- x.go\n+++ x.go\n@@ -3,2 +3,1 @@\n c\n-e\n", lambda name: files[name], "a.patch")
    asserts.equals(env, "a.patch: what it changes near line 3 is not in x.go", settled.error)
    return unittest.end(env)

settle_test = unittest.make(_settle_impl)

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
    unittest.suite(name, relocate_test, settle_test, errors_test)
