"""The two ways a command fails, and the one wording for an unknown name.

`UserError`: what the user asked for cannot be done (exit code 2). `RunError`: the run itself failed (exit code 1).
Both carry one message that names the value, the cause and the remedy; `cli.run` prints it without a traceback.
"""

import difflib
from collections.abc import Iterable

MANY = 40  # more names than this fill the screen


class UserError(Exception):
    """The user's mistake: a value, its cause and the remedy in one message. Exit code 2."""


class RunError(Exception):
    """The run failed for a reason that we understand and can name. Exit code 1."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a table: near matches, else all names, unless they are `MANY` and `hint` helps."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    remedy = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if not near and (len(known) <= MANY or not hint):
        remedy = f"Known: {', '.join(known)}."
    return UserError(" ".join(filter(None, (f"No {kind} {name!r}.", remedy, hint))))
