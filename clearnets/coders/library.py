"""The border to sparsify: its coder type, the families in its terms, seeded initial weights.

Importing sparsify takes seconds, so it happens inside functions; coders are saved and loaded in
its own folder format (`<hookpoint>/cfg.json` and `sae.safetensors`).
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from clearnets import UserError
from clearnets.pipeline.artifacts import missing, remake
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder


def coder_class() -> type[SparseCoder]:
    """sparsify's `SparseCoder`, imported in silence and on the eager path without a GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    # sparsify prints at import which decoder it takes.
    with contextlib.redirect_stdout(io.StringIO()):
        from sparsify import SparseCoder
    return SparseCoder


def is_transcoder(family: str) -> bool:
    """Transcoders go from a feedforward's input to its output; SAEs reconstruct its output."""
    return family.endswith("transcoder")


def is_untrained(family: str) -> bool:
    """The control families: initial weights, no training step."""
    return family.startswith("random-")


def new_coder(
    family: str,
    name: str,
    *,
    d_in: int,
    num_latents: int,
    k: int,
    seed: int,
    multi_topk: bool = False,
) -> SparseCoder:
    """A coder with sparsify's initial weights, float32 on the CPU, biases still at zero.

    The weights depend on `seed` and `name` (the hookpoint) only, so that a family and its
    untrained twin begin with the same ones, and so do SAEs and transcoders of one layer. The
    twin of the skip-transcoder is the untrained transcoder: the skip begins at zero. Coders of the
    model at step 0 begin with them, too.
    """
    coder = coder_class()
    from sparsify import SparseCoderConfig

    config = SparseCoderConfig(
        num_latents=num_latents,
        k=k,
        multi_topk=multi_topk,
        transcode=is_transcoder(family),
        skip_connection=family == "skip-transcoder",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "coder", name))
        return coder(d_in, config, dtype=torch.float32)


def load_coder(folder: Path, device: torch.device | str = "cpu") -> SparseCoder:
    """The coder in `folder`, in sparsify's format.

    Raises:
        UserError: the folder is missing or its safetensors file is damaged.
    """
    if not (folder / "cfg.json").exists():
        raise UserError(missing(folder))
    try:
        return coder_class().load_from_disk(folder, device=device)
    except SafetensorError as error:
        path = folder / "sae.safetensors"
        raise UserError(f"{path} is damaged ({error}); {remake(path)}") from None
