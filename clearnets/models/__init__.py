"""The sparse GPT-NeoX, and loading it or a model that was taken over.

Importing this registers the former with transformers' Auto classes.
"""

from clearnets.models.loading import load
from clearnets.models.sparse_gptneox import (
    SparseGPTNeoXConfig,
    SparseGPTNeoXForCausalLM,
    SparseGPTNeoXModel,
    build_model,
    initialized,
)

__all__ = [
    "SparseGPTNeoXConfig",
    "SparseGPTNeoXForCausalLM",
    "SparseGPTNeoXModel",
    "build_model",
    "initialized",
    "load",
]
