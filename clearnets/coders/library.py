"""Make and load coders (SAEs and transcoders) of the library sparsify.

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

    from clearnets.families import Selection


def coder_class() -> type[SparseCoder]:
    """Return sparsify's `SparseCoder`, imported without output, on the eager path without a GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    # sparsify prints at import which decoder it takes.
    with contextlib.redirect_stdout(io.StringIO()):
        from sparsify import SparseCoder
    return SparseCoder


def new_coder(
    name: str,
    *,
    transcode: bool = False,
    skip: bool = False,
    selection: Selection | None = "topk",
    d_in: int,
    num_latents: int,
    k: int,
    seed: int,
    multi_topk: bool = False,
) -> SparseCoder:
    """Return a coder with sparsify's initial weights, float32 on the CPU, biases still at zero.

    The weights depend on `seed` and `name` (the hookpoint) only, so that the coders of one layer
    begin with the same ones in every family. A skip begins at zero.

    Args:
        name: the hookpoint.
        transcode: whether it goes from a feedforward's input to its output.
        skip: whether a linear path runs beside its latents.
        selection: how its active latents are chosen.
    """
    coder = coder_class()
    from sparsify import SparseCoderConfig

    config = SparseCoderConfig(
        activation=selection,  # pyright: ignore
        num_latents=num_latents,
        k=k,
        multi_topk=multi_topk,
        transcode=transcode,
        skip_connection=skip,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "coder", name))
        return coder(d_in, config, dtype=torch.float32)


def load_coder(folder: Path, device: torch.device | str = "cpu") -> SparseCoder:
    """Return the coder in `folder`, which is in sparsify's format.

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
