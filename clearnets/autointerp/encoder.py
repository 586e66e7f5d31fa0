"""A small sentence encoder, offline: unit vectors of texts that are close where texts mean alike.

The default's is all-MiniLM-L6-v2, which a package of the registry carries. Importing
sentence-transformers takes seconds and torch; only stages that embed do, and lazily.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets import UserError
from clearnets.pipeline.artifacts import sha256
from clearnets.pipeline.processes import cores

if TYPE_CHECKING:
    import torch

    from clearnets.config import Embed

WEIGHTS = "model.safetensors"
# What of a folder may be read: weights, settings, vocabularies.
READ = (".json", ".txt", ".model", ".safetensors")
# Texts per forward pass.
BATCH = 64


def locate(model: str) -> Path:
    """Return the folder that a parameter names: a path, or `package:NAME` for an installed package
    with the model in its folder `model`.

    Raises:
        UserError: there is no model in safetensors.
    """
    package = model.removeprefix("package:")
    if package == model:
        folder, cure = Path(model), "correct the parameter embed.model"
    else:
        # Only its folder is needed: it is not imported.
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(f"the package {package} with the model is missing; run `make env`")
        folder, cure = Path(spec.origin).parent / "model", "install the package anew"
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}; {cure}")
    return folder


def identity(folder: Path) -> str:
    """Return the SHA-256 of a model's weights, settings and tokenizer.

    It is that of the lines which `sha256sum` prints for the files of these kinds, sorted by their
    paths in the folder.
    """
    paths = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix in READ and path.is_file()
    )
    lines = "".join(f"{sha256(path)}  {name}\n" for name, path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


class Encoder:
    """A model that has been loaded."""

    def __init__(self, settings: Embed, device: torch.device) -> None:
        """Load it.

        Raises:
            UserError: it is missing, another one, or none that sentence-transformers reads.
        """
        folder = locate(settings.model)
        found = identity(folder)
        if found != settings.sha256:
            raise UserError(
                f"{folder} holds another model: its SHA-256 is {found}, not {settings.sha256}; if "
                "you mean this one, set the parameter embed.sha256"
            )
        self._model = _load(folder, device)
        self._on_cpu = device.type == "cpu"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (texts, D) in float16, which moves a cosine similarity by 1e-4 or
        so. No bit of them depends on the number of threads."""
        return self.exact(texts).astype(np.float16)

    def exact(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (texts, D) in float32.

        A batch is the work of one thread, so that every sum has one order; on a CPU as many batches
        run at once as there are cores.
        """
        import torch

        # Padding is work: texts of one batch have nearly the same number of tokens.
        tokens_x = self._count_tokens(texts)
        longest_first = sorted(range(len(texts)), key=lambda text: -tokens_x[text])
        batches = [longest_first[i : i + BATCH] for i in range(0, len(texts), BATCH)]

        def vectors(batch: list[int]) -> np.ndarray:
            return self._model.encode(
                [texts[text] for text in batch],
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )

        threads = torch.get_num_threads()
        workers = cores() if self._on_cpu else 1
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                found_xD = np.concatenate(list(pool.map(vectors, batches)))
        finally:
            torch.set_num_threads(threads)
        vector_xD = np.empty_like(found_xD)
        vector_xD[longest_first] = found_xD
        return vector_xD

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        encoded = self._model.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        return [len(tokens) for tokens in encoded]


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
    # A file may be wrong in any way, and tokenizers raises bare exceptions.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} does not load as a model of sentences ({reason})") from None
