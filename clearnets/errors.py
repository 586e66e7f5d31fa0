"""The error that a user of the package can cure."""


class UserError(Exception):
    """A mistake that its user can cure. The message is one line and names the cure."""
