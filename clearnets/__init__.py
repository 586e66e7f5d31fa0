"""clearnets: are networks that are sparse by construction more interpretable?"""


class UserError(Exception):
    """A mistake that its user can cure. The message is one line and names the cure."""
