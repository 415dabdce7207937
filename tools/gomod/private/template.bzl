"""Templates with variables of the form @NAME@."""

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

def _is_name(text):
    if not text:
        return False
    for c in text.elems():
        if c not in _NAME:
            return False
    return True

def render(template, substitutions, file):
    """Replaces every @NAME@ of a template.

    Args:
      template: the template's text.
      substitutions: dict from NAME to its value.
      file: what to call the template in errors.

    Returns:
      A struct of `text` and `error`, of which one is None.
    """
    used = {}
    lines = []
    for number, line in enumerate(template.split("\n")):
        pieces = line.split("@")
        out = pieces[0]

        # A piece between two @ is a variable if it looks like a name; the @
        # that closes it cannot open another one.
        closed = True
        for i in range(1, len(pieces)):
            if not closed:
                out += pieces[i]
                closed = True
            elif i < len(pieces) - 1 and _is_name(pieces[i]):
                if pieces[i] not in substitutions:
                    return struct(text = None, error = "%s:%d: variable @%s@ has no value; give it one in `substitutions`" % (file, number + 1, pieces[i]))
                used[pieces[i]] = True
                out += substitutions[pieces[i]]
                closed = False
            else:
                out += "@" + pieces[i]
        lines.append(out)
    unused = [name for name in substitutions if name not in used]
    if unused:
        return struct(text = None, error = "%s: no such variable: %s" % (file, ", ".join(["@%s@" % name for name in unused])))
    return struct(text = "\n".join(lines), error = None)
