"""What `clearnets execute` wrote, loaded from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clearnets import UserError
from clearnets.autointerp.execution import ROWS, SUMMARY
from clearnets.config import Config
from clearnets.pipeline import artifacts, paths

Key = tuple[str, int]
"""Family and training seed."""


@dataclass(frozen=True)
class Executed:
    """A model with explanations in the place of one family's latents.

    Shapes: P places (the layers, and then all at once), C stand-ins, R rows of text.

    Attributes:
        stand_ins: names (C).
        nll_PCR, kl_PCR: sums over the predicted tokens of a row.
        clean_R: loss of the model as it is, likewise.
        tokens_R: predicted tokens.
        document_R: number of each row's document.
        layers: by layer's number, how many latents it has (`latents`, `explained`), and of single
            latents' simulations the weighted sums `error` and `variance`.
    """

    stand_ins: Sequence[str]
    nll_PCR: np.ndarray
    kl_PCR: np.ndarray
    clean_R: np.ndarray
    tokens_R: np.ndarray
    document_R: np.ndarray
    layers: Mapping[int, Mapping[str, float]]


def read(config: Config) -> dict[Key, Executed]:
    """Load the results of all families and seeds; none where the stage is left out.

    Raises:
        UserError: a file is missing or broken; it names the stage to run.
    """
    if "execute" in config.skip:
        return {}
    return {
        (family, seed): _read(family, seed, config.model.layers)
        for family, seed in product(config.executed_families, config.seeds)
    }


def _read(family: str, seed: int, numbers: Sequence[int]) -> Executed:
    folder = paths.execute(family, seed)
    summary, path = artifacts.read_json(folder / SUMMARY), folder / ROWS
    try:
        sums = load_file(path)
    except FileNotFoundError:
        raise UserError(artifacts.missing(path)) from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {artifacts.remake(path)}") from None
    return Executed(
        stand_ins=summary["stand_ins"],
        nll_PCR=sums["nll"],
        kl_PCR=sums["kl"],
        clean_R=sums["clean"],
        tokens_R=sums["tokens"],
        document_R=sums["document"],
        layers=dict(zip(numbers, summary["layers"].values(), strict=True)),
    )
