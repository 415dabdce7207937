"""Patches that were written for a module's root, applied inside vendor/."""

def _strip(name, count, file):
    # What follows a tab is a time stamp.
    name = name.split("\t")[0].strip()
    if name == "/dev/null":
        return name, None
    parts = name.split("/")
    if len(parts) <= count:
        return None, "%s: cannot strip %d leading components from %s" % (file, count, name)
    return "/".join(parts[count:]), None

def _length(span):
    # "-12,7" and "+12" say where a hunk is and how many lines it has there.
    parts = span[1:].split(",")
    return int(parts[1]) if len(parts) == 2 else 1

def relocate(patch, directory, strip, file, absent = None):
    """Rewrites a patch's file names so that it applies from elsewhere.

    Args:
      patch: the text of a unified diff.
      directory: where its root lies, relative to where it will be applied.
      strip: how many leading components its file names have too many.
      file: what to call the patch in errors.
      absent: a function that says of a file, in the form
        `<directory>/<name>`, whether it is left out of the tree on purpose.
        What the patch changes in such a file is left out as well.

    Returns:
      A struct of `text` and `error`, of which one is None. The text holds
      the hunks only, for `strip = 0`.
    """
    out = []
    old_left, new_left = 0, 0
    hunks, left_out = 0, 0
    skip = False
    for line in patch.removesuffix("\n").split("\n"):
        if old_left > 0 or new_left > 0:
            # Inside a hunk a line may well look like a file name.
            if line.startswith("-"):
                old_left -= 1
            elif line.startswith("+"):
                new_left -= 1
            elif not line.startswith("\\"):
                old_left -= 1
                new_left -= 1
            if not skip:
                out.append(line)
        elif line.startswith("--- ") or line.startswith("+++ "):
            name, error = _strip(line[4:], strip, file)
            if error:
                return struct(text = None, error = error)
            if name != "/dev/null":
                name = directory + "/" + name

            # The first of the two names is the file as it is in the tree.
            if line.startswith("--- "):
                skip = bool(absent) and name != "/dev/null" and absent(name)

                # Bazel takes the file for a part of the one before, unless
                # there is something between them.
                if not skip:
                    out.append("diff -u")
            if not skip:
                out.append(line[:4] + name)
        elif line.startswith("@@ "):
            spans = line.split(" ")
            if len(spans) < 4:
                return struct(text = None, error = "%s: malformed hunk header: %s" % (file, line))
            old_left, new_left = _length(spans[1]), _length(spans[2])
            if skip:
                left_out += 1
            else:
                hunks += 1
                out.append(line)
        elif line.startswith("\\") and not skip:
            out.append(line)
    if old_left > 0 or new_left > 0:
        return struct(text = None, error = "%s: the last hunk is cut short" % file)
    if not hunks and left_out:
        return struct(text = None, error = "%s: nothing of what it changes is used by a program" % file)
    if not hunks:
        return struct(text = None, error = "%s: there is no hunk in it; is it a unified diff?" % file)
    return struct(text = "\n".join(out) + "\n", error = None)

def _find(lines, wanted, near, first):
    """Finds lines in a file, as close to an index as possible, from first on."""
    for distance in range(len(lines) + 1):
        for at in [near - distance, near + distance] if distance else [near]:
            if first <= at and at + len(wanted) <= len(lines) and lines[at:at + len(wanted)] == wanted:
                return at
    return None

def settle(patch, read, file):
    """Corrects the line numbers of a patch's hunks.

    A patch that is older than its file is off by some lines. Not every Bazel
    looks for the place.

    Args:
      patch: the text of a patch, as relocate gives it.
      read: a function that gives the text of a file by its name in the patch.
      file: what to call the patch in errors.

    Returns:
      A struct of `text` and `error`, of which one is None.
    """
    out = []
    name, lines = None, []

    # Where the last hunk of the file ended, how far it was off, and by how many
    # lines the hunks so far lengthen the file.
    end, off, growth = 0, 0, 0
    old_left, new_left, start, header = 0, 0, 0, 0
    wanted = []
    for line in patch.removesuffix("\n").split("\n"):
        out.append(line)
        if old_left == 0 and new_left == 0:
            if line.startswith("--- "):
                name = line[4:]
                lines = [] if name == "/dev/null" else read(name).removesuffix("\n").split("\n")
                end, off, growth = 0, 0, 0
            elif line.startswith("@@ "):
                spans = line.split(" ")
                old_left, new_left = _length(spans[1]), _length(spans[2])
                start, header, wanted = int(spans[1][1:].split(",")[0]), len(out) - 1, []
            continue
        if line.startswith("\\"):
            continue
        if not line.startswith("+"):
            wanted.append(line[1:])
            old_left -= 1
        if not line.startswith("-"):
            new_left -= 1
        if old_left > 0 or new_left > 0 or not wanted:
            continue
        at = _find(lines, wanted, start - 1 + off, end)
        if at == None:
            return struct(text = None, error = "%s: what it changes near line %d is not in %s" % (file, start, name))
        off, end = at - (start - 1), at + len(wanted)
        length = _length(out[header].split(" ")[2])
        out[header] = "@@ -%d,%d +%d,%d @@" % (at + 1, len(wanted), at + 1 + growth, length)
        growth += length - len(wanted)
    return struct(text = "\n".join(out) + "\n", error = None)
