"""Reading debian.lock, as package lock of the Go tool does."""

_FIELDS = ["sets", "suite", "package", "version", "architecture", "source", "source-version", "size", "sha256", "path"]

_HEX = {c: True for c in "0123456789abcdef".elems()}

def parse_lock(text, name):
    """Reads the content of a lock.

    Args:
      text: the content.
      name: the name of the file, for errors.

    Returns:
      A struct (entries, snapshots) and None, or None and an error.
    """
    entries = []
    snapshots = {}
    seen = {}
    number = 0
    for line in text.split("\n"):
        number += 1
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("snapshot "):
            words = line.split(" ")
            if len(words) != 3:
                return None, "{}:{}: want `snapshot <suite> <time>`, got {}".format(name, number, repr(line))
            snapshots[words[1]] = words[2]
            continue
        entry, error = parse_entry(line)
        if error:
            return None, "{}:{}: {}".format(name, number, error)
        place = entry.suite + " " + entry.path
        if place in seen:
            return None, "{}:{}: {} is listed already in line {}".format(name, number, entry.path, seen[place])
        seen[place] = number
        entries.append(entry)
    return struct(entries = entries, snapshots = snapshots), None

def parse_entry(line):
    """Reads one line that names a file.

    Args:
      line: the line.

    Returns:
      A struct and None, or None and an error.
    """
    f = line.split(" ")
    if len(f) != len(_FIELDS):
        return None, "want {} fields ({}) separated by single spaces, got {}".format(len(_FIELDS), " ".join(_FIELDS), len(f))
    for i in range(len(f)):
        if not f[i]:
            return None, "field {} ({}) is empty".format(i + 1, _FIELDS[i])
    if not f[7].isdigit() or int(f[7]) == 0:
        return None, "size {} is not a positive number of bytes".format(repr(f[7]))
    if len(f[8]) != 64 or [c for c in f[8].elems() if c not in _HEX]:
        return None, "sha256 {} is not 64 lower-case hexadecimal digits".format(repr(f[8]))
    if not f[9].startswith("pool/") or ".." in f[9].split("/"):
        return None, "path {} is not a clean path below pool/".format(repr(f[9]))
    return struct(
        sets = f[0].split(","),
        suite = f[1],
        package = f[2],
        version = f[3],
        arch = f[4],
        source = f[5],
        source_version = f[6],
        size = int(f[7]),
        sha256 = f[8],
        path = f[9],
        text = line,
    ), None

def source_role(path):
    """Says what a file is in its source package.

    Args:
      path: the path of the file.

    Returns:
      "dsc", "orig", "orig-<component>", "debian" or "diff".
    """
    base = path.split("/")[-1]
    if base.endswith(".dsc"):
        return "dsc"
    if base.endswith(".diff.gz"):
        return "diff"
    stem = base.rpartition(".tar.")[0]
    last = stem.rpartition(".")[2]
    if last == "debian" or last == "orig" or last.startswith("orig-"):
        return last

    # A native source package has one tarball and no Debian part.
    return "orig"
