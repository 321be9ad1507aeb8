"""The one exception that speaks to users of the tools."""


class UserError(Exception):
    """A mistake the user can repair; its text is one line that names the thing and the fix.

    Command-line tools print the text and exit with code 1; a traceback appears with --debug only.
    """
