"""A small model of sentences, offline: texts become unit vectors, near where they mean alike.

The default's is all-MiniLM-L6-v2, which a package of the registry carries. Importing
sentence-transformers takes seconds and torch; only stages that embed do, and lazily.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from clearnets.artifacts import UserError, sha256

if TYPE_CHECKING:
    import torch

    from clearnets.config import Embed

WEIGHTS = "model.safetensors"
# Texts per forward pass; changes no number beyond rounding.
BATCH = 64


def locate(model: str) -> Path:
    """The folder that a parameter names: a path, or `package:NAME` for an installed package with
    the model in its folder `model`.

    Raises:
        UserError: there is no model in safetensors.
    """
    package = model.removeprefix("package:")
    if package == model:
        folder, cure = Path(model), "correct the parameter embed.model"
    else:
        # Not imported: only its folder is of interest.
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(f"the package {package} with the model is missing; run `make env`")
        folder, cure = Path(spec.origin).parent / "model", "install the package anew"
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}; {cure}")
    return folder


class Encoder:
    """A model that has been loaded."""

    def __init__(self, settings: Embed, device: torch.device) -> None:
        """Load it.

        Raises:
            UserError: it is missing, another one, or none that sentence-transformers reads.
        """
        folder = locate(settings.model)
        found = sha256(folder / WEIGHTS)
        if found != settings.sha256:
            raise UserError(
                f"{folder / WEIGHTS} is another file: its SHA-256 is {found}, not {settings.sha256}"
            )
        self._model = _load(folder, device)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, D) of texts, in float16.

        The rounding moves a cosine similarity by 1e-4 or so, and takes most of the last bits with
        it, which depend on the number of threads: a number near the middle of two float16 may still
        fall on the other side.
        """
        vector_xD = self._model.encode(
            list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vector_xD).astype(np.float16)


def _load(folder: Path, device: torch.device) -> Any:
    # The tokenizer's own threads gain nothing here, and it warns of them after a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} does not load as a model of sentences ({reason})") from None
