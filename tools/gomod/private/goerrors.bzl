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
    for word in text.split(" "):
        word = word.strip(":\t ,()")
        path, at, version = word.partition("@")
        if at and "/" in path and "://" not in path and version.startswith("v"):
            return path, version.split("/")[0].rstrip(":")
    return None, None

def _line_with(text, sign):
    """Gives the first line with a sign: the go command says the same of every package."""
    for line in text.split("\n"):
        if sign in line:
            return line.strip()
    return None

def _mismatch(text, line, go_sum, go_sum_name):
    path, version = _module_in(line)
    what = "/go.mod" if "/go.mod: checksum mismatch" in line else ""
    sums = {}
    for other in text.split("\n"):
        key, _, value = other.strip().partition(":")
        if key in ["downloaded", "go.sum"] and key not in sums:
            sums[key] = value.strip()
    number = _find_line(go_sum, "%s %s%s " % (path, version, what))
    return "%s%s: wrong checksum: %s@%s%s has %s, but go.sum asks for %s. If the pin is wrong, correct it; if it is not, the module proxy serves something else" % (
        go_sum_name,
        ":%d" % number if number else "",
        path,
        version,
        what,
        sums.get("downloaded"),
        sums.get("go.sum"),
    )

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
    line = _line_with(text, "checksum mismatch")
    if line:
        return _mismatch(text, line, go_sum, go_sum_name)
    line = _line_with(text, "missing go.sum entry")
    if line:
        return "%s: a checksum is missing; run `go mod tidy` beside it: %s" % (go_sum_name, line)
    line = _line_with(text, "updates to go.mod needed") or _line_with(text, "updating go.mod")
    if line:
        return "%s: go.mod beside it is not complete; run `go mod tidy` there: %s" % (go_sum_name, line)
    for sign in _UNREACHABLE:
        line = _line_with(text, sign)
        if line:
            path, version = _module_in(line)
            return "cannot fetch %s: the module proxy (GOPROXY, as `go env` shows it) did not answer or refused: %s" % ("%s@%s" % (path, version) if path else "a module", line)
    line = _line_with(text, "no space left on device")
    if line:
        return "no space left on the disk: %s" % line
    return "the go command failed:\n" + text
