"""Make and load coders (SAEs and transcoders) of the library sparsify.

Importing sparsify takes seconds, so it happens inside functions; coders are saved and loaded in
its own folder format (`<hookpoint>/cfg.json` and `sae.safetensors`). For the selections that it
does not know, `threshold.safetensors` beside them holds what each latent has to exceed; sparsify
loads the rest as a top-k coder.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clearnets import UserError
from clearnets.coders import selection as selections
from clearnets.pipeline.artifacts import missing, read_json, remake, write_json
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder

    from clearnets.families import Selection


THRESHOLD = "threshold.safetensors"
_OF_SPARSIFY = ("topk", "groupmax")


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
    frozen: Literal["encoder", "decoder"] | None = None,
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
        frozen: the half whose weights are not trained; a decoder then begins with random rows of
            norm one, because a transcoder's own is zero.
    """
    coder = coder_class()
    from sparsify import SparseCoderConfig

    config = SparseCoderConfig(
        activation=selection,  # pyright: ignore[reportArgumentType]
        num_latents=num_latents,
        k=k,
        multi_topk=multi_topk,
        transcode=transcode,
        skip_connection=skip,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "coder", name))
        made = coder(d_in, config, dtype=torch.float32)
        if frozen == "decoder":
            made.W_dec.data.normal_()  # pyright: ignore
            made.set_decoder_norm_to_unit_norm()
    if frozen:
        (made.encoder.weight if frozen == "encoder" else made.W_dec).requires_grad_(False)  # pyright: ignore
    selections.add_thresholds(made)
    return made


def save_coder(coder: SparseCoder, folder: Path) -> None:
    """Write a coder in sparsify's format."""
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in coder.state_dict().items()
        if name not in ("threshold", "log_threshold")
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae.safetensors")
    cfg: dict[str, Any] = {**coder.cfg.to_dict(), "d_in": coder.d_in}
    if cfg["activation"] not in _OF_SPARSIFY:
        cfg |= {"activation": "topk", "selection": cfg["activation"]}
    write_json(folder / "cfg.json", cfg)
    least = selections.threshold(coder)
    if least is not None:
        each = least.detach().cpu().float().expand(coder.num_latents).contiguous()
        save_file({"threshold": each}, folder / THRESHOLD)


def load_coder(folder: Path, device: torch.device | str = "cpu") -> SparseCoder:
    """Return the coder in `folder`, which is in sparsify's format.

    Raises:
        UserError: the folder is missing or its safetensors file is damaged.
    """
    if not (folder / "cfg.json").exists():
        raise UserError(missing(folder))
    path = folder / "sae.safetensors"
    try:
        coder = coder_class().load_from_disk(folder, device=device)
        if selection := read_json(folder / "cfg.json").get("selection"):
            coder.cfg.activation = selection
            path = folder / THRESHOLD
            coder.register_buffer("threshold", load_file(path, device=str(device))["threshold"])
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged ({error}); {remake(path)}") from None
    return coder
