"""What is slow to import and every process that observes needs: imported once, before they fork."""

from clearnets.coders import library
from clearnets.generalization import observing

__all__ = ["observing"]

library.coder_class()
