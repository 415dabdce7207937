"""What the go command's errors about modules mean for who pinned them."""

# What the go command, the HTTP client in it or the proxy say when there is
# nobody, or nobody willing, at the other end.
_UNREACHABLE = [
    "dial tcp",
    "connection refused",
    "connection reset",
    "no such host",
    "i/o timeout",
    "TLS handshake",
    "x509:",
    "network is unreachable",
    "unexpected EOF",
    ": EOF",
    "403 Forbidden",
    "404 Not Found",
    "410 Gone",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway",
    "module lookup disabled by GOPROXY=off",
]

def _find_line(text, prefix):
    for number, line in enumerate(text.split("\n")):
        if line.startswith(prefix):
            return number + 1
    return None

def _module_in(text):
    """Finds the first word of the form path@version."""
    for word in text.replace("\n", " ").split(" "):
        word = word.strip(":\t ,()")
        path, at, version = word.partition("@")
        if at and "/" in path and "://" not in path and version.startswith("v"):
            return path, version.split("/")[0].rstrip(":")
    return None, None

def explain(stderr, go_sum, go_sum_name):
    """Turns an error of the go command into one clear error.

    Args:
      stderr: what the go command wrote.
      go_sum: the text of go.sum.
      go_sum_name: what to call go.sum in the error.

    Returns:
      The error's text.
    """
    text = stderr.strip()
    path, version = _module_in(text)
    module = "%s@%s" % (path, version) if path else "a module"

    if "checksum mismatch" in text:
        got, want = "?", "?"
        in_go_mod = False
        for line in text.split("\n"):
            key, _, value = line.strip().partition(":")
            if key == "downloaded":
                got = value.strip()
            elif key == "go.sum":
                want = value.strip()
            elif line.startswith("verifying ") and "/go.mod: checksum mismatch" in line:
                in_go_mod = True
        prefix = "%s %s%s " % (path, version, "/go.mod" if in_go_mod else "")
        line = _find_line(go_sum, prefix)
        return "%s%s: wrong checksum: %s has %s, but go.sum asks for %s. If the pin is wrong, correct it; if it is not, the module proxy serves something else" % (
            go_sum_name,
            ":%d" % line if line else "",
            module + ("'s go.mod" if in_go_mod else ""),
            got,
            want,
        )
    if "missing go.sum entry" in text:
        return "%s: a checksum is missing; run `go mod tidy` beside it:\n%s" % (go_sum_name, text)
    if "updates to go.mod needed" in text or "updating go.mod" in text:
        return "%s: go.mod and go.sum beside it are not complete; run `go mod tidy` there:\n%s" % (go_sum_name, text)
    for sign in _UNREACHABLE:
        if sign in text:
            return "cannot fetch %s: the module proxy (GOPROXY, as `go env` shows it) did not answer or refused:\n%s" % (module, text)
    if "no space left on device" in text:
        return "cannot store %s: no space left on the disk:\n%s" % (module, text)
    return "the go command failed:\n" + text
