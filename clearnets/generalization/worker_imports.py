"""Slow imports of the worker processes, made once by the server that forks them."""

from clearnets.coders import library
from clearnets.generalization import checkpoint_metrics

__all__ = ["checkpoint_metrics"]

library.coder_class()
