"""Finding the Debian mirrors that a machine is set up to use.

The same as package archive of the Go tool does, since a repository rule
cannot run that tool.
"""

_RELEASES = ["buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "stable", "oldstable", "oldoldstable", "testing", "unstable"]
_KINDS = ["", "-updates", "-backports", "-proposed-updates"]
_SUITES = {release + kind: True for release in _RELEASES for kind in _KINDS}

def _words(text):
    for space in ["\t", "\r", "\n"]:
        text = text.replace(space, " ")
    return [w for w in text.split(" ") if w]

def one_line_sources(text):
    """Reads the format of sources.list.

    Args:
      text: the content of the file.

    Returns:
      The addresses of Debian archives in it.
    """
    mirrors = []
    for line in text.split("\n"):
        line = line.partition("#")[0]
        before, bracket, rest = line.partition("[")
        if bracket:
            # Options may hold spaces.
            line = before + " " + rest.partition("]")[2]
        words = _words(line)
        if len(words) >= 4 and words[0] in ("deb", "deb-src") and words[2] in _SUITES and "main" in words[3:]:
            mirrors.append(words[1])
    return mirrors

def deb822_sources(text):
    """Reads the format of *.sources files.

    Args:
      text: the content of the file.

    Returns:
      The addresses of Debian archives in it.
    """
    mirrors = []
    fields = {}
    name = ""
    for line in text.split("\n") + [""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            mirrors.extend(_deb822_stanza(fields))
            fields = {}
            name = ""
        elif line[0] in (" ", "\t"):
            if name:
                fields[name] += " " + line.strip()
        else:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()
    return mirrors

def _deb822_stanza(fields):
    if fields.get("enabled", "yes").lower() in ("no", "false", "without", "off", "disable", "0"):
        return []
    if "main" not in _words(fields.get("components", "")):
        return []
    if not [s for s in _words(fields.get("suites", "")) if s in _SUITES]:
        return []
    return _words(fields.get("uris", ""))

def _mirror_list(text):
    """Reads a file that lists mirrors, as cloud images have."""
    lines = [_words(line) for line in text.split("\n")]
    return [words[0] for words in lines if words and not words[0].startswith("#")]

def find_mirrors(variable, read, list_dir):
    """Finds the mirrors to try, in order.

    Args:
      variable: the value of KILN_DEBIAN_MIRROR.
      read: a function that gives the content of a file, or None.
      list_dir: a function that gives the paths of the files in a folder.

    Returns:
      Base addresses without a slash at the end.
    """
    found = _words(variable)
    for file in ["/etc/apt/sources.list"] + sorted(list_dir("/etc/apt/sources.list.d")):
        text = None
        if file.endswith(".list") or file.endswith(".sources"):
            text = read(file)
        if not text:
            continue
        for mirror in one_line_sources(text) if file.endswith(".list") else deb822_sources(text):
            if mirror.startswith("mirror+file:"):
                found.extend(_mirror_list(read(mirror[len("mirror+file:"):]) or ""))
            else:
                found.append(mirror)
    mirrors = []
    for mirror in found:
        mirror = mirror.rstrip("/")
        if mirror not in mirrors and (mirror.startswith("http://") or mirror.startswith("https://")):
            mirrors.append(mirror)
    return mirrors
