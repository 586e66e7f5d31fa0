"""clearnets: are networks that are sparse by construction more interpretable?"""

from clearnets import arithmetic


class UserError(Exception):
    """A mistake that its user can cure. The message is one line and names the cure."""


# Before torch, numpy and scipy are imported.
arithmetic.settle()
