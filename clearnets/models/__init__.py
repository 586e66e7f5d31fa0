"""The sparse GPT-NeoX. Importing this registers it with transformers' Auto classes."""

from clearnets.models.sparse_gptneox import (
    SparseGPTNeoXConfig,
    SparseGPTNeoXForCausalLM,
    SparseGPTNeoXModel,
    build_model,
    load,
)

__all__ = [
    "SparseGPTNeoXConfig",
    "SparseGPTNeoXForCausalLM",
    "SparseGPTNeoXModel",
    "build_model",
    "load",
]
