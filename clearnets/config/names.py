"""The names that parameters take: feedforwards, splits of the text, families of latents."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from clearnets.families import FAMILIES

Mlp = Literal["dense", "sparse", "sparse_topk", "sparse_low_rank"]
Split = Literal["train", "valid", "explain", "score", "concept_fit", "concept_test"]


def _known(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"unknown family; there are: {', '.join(FAMILIES)}")
    return name


Family = Annotated[str, AfterValidator(_known)]

MLPS: tuple[Mlp, ...] = get_args(Mlp)
SPLITS: tuple[Split, ...] = get_args(Split)

# --- until the rooms read the table itself ---
from clearnets.families import DIRECTIONS as DIRECTIONS  # noqa: E402

CODER_FAMILIES = tuple(n for n, f in FAMILIES.items() if f.is_coder)
NATIVE_FAMILIES = ("native", "random-native")
TRAINED_CODERS = ("sae", "transcoder", "skip-transcoder")
UNTRAINED_CODERS = ("random-sae", "random-transcoder")
STEP0_CODERS = ("step0-transcoder", "step0-sae")
TWINS = {n: f.untrained_twin for n, f in FAMILIES.items() if f.untrained_twin}
STEP0_TWINS = {n: f.untrained_model_twin for n, f in FAMILIES.items() if f.untrained_model_twin}
NULLS = {n: f.null for n, f in FAMILIES.items() if f.null}
