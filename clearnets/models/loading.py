"""Load a checkpoint folder of any kind of model, ours or of others.

Importing this registers the sparse GPT-NeoX with transformers' Auto classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

import clearnets.models.sparse_gptneox  # noqa: F401  # Registers it.
from clearnets import UserError


def load(path: Path, cure: str = "delete it and train again") -> PreTrainedModel:
    """Return the model in a checkpoint folder, in float32 and eval mode, on the CPU.

    Raises:
        UserError: the folder holds no model, or a damaged one; the message ends with `cure`.
    """
    if not (path / "config.json").exists():
        raise UserError(f"{path} holds no model; train one first (`clearnets train`)")
    try:
        with silence():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {cure}") from None
    model, found = loaded
    # transformers would fill what is missing with random weights.
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError(f"{path} lacks {missing[0]}; {cure}")
    alias_tokens(model)
    return model.eval()


@contextmanager
def silence() -> Iterator[None]:
    """Suppress transformers' progress bars and its table of weights that do not fit."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def alias_tokens(model: Any) -> None:
    """Let the embedding read each token of `config.token_aliases` as the one it stands for.

    A model that was taken over may know neither bos nor pad; then the text's own lie beyond its
    vocabulary. They are inputs only, never targets, so the unembedding needs no row for them.
    """
    aliases = {int(a): b for a, b in (getattr(model.config, "token_aliases", None) or {}).items()}
    if not aliases:
        return

    def read_as(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        ids, *rest = args
        for alias, token in aliases.items():
            ids = ids.masked_fill(ids == alias, token)
        return (ids, *rest)

    model.get_input_embeddings().register_forward_pre_hook(read_as)


def embedding_parameters(model: PreTrainedModel) -> int:
    """Return parameters of the embedding and, where it is another tensor, of the unembedding."""
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    tensors = {id(part.weight): part.weight for part in parts if part is not None}
    return sum(weight.numel() for weight in tensors.values())  # type: ignore[operator]
