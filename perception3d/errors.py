"""The one exception that speaks to users of the tools, and how it speaks of misspelt names."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """A mistake the user can repair; its text is one line that names the thing and the fix.

    Command-line tools print the text and exit with code 1; a traceback appears with --debug only.
    """


def unknown(name: str, known: Sequence[str], noun: str) -> str:
    """Say that a name is not known, and which one was probably meant."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"no {noun} {name!r}; {hint}"
