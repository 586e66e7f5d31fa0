"""The names that parameters take: feedforwards, splits of the text, families of latents."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from clearnets.families import FAMILIES

Mlp = Literal[
    "dense",
    "dense_wide",
    "dense_weight_sparse",
    "sparse",
    "sparse_topk",
    "sparse_low_rank",
    "sparse_product_key",
    "sparse_kronecker",
]
# Stages that an experiment may leave out: only tables and the page of latents read their results.
Optional = Literal[
    "overlap",
    "execute",
    "effects",
    "intervene",
    "circuits",
    "stability",
    "similarity",
    "concepts",
    "probes",
    "planted",
    "sample",
    "browse",
]
Split = Literal["train", "valid", "explain", "score", "concept_fit", "concept_test"]


def _known(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"unknown family; there are: {', '.join(FAMILIES)}")
    return name


ALL = "all"


def _known_or_all(name: str) -> str:
    return name if name == ALL else _known(name)


Family = Annotated[str, AfterValidator(_known)]
FamilyOrAll = Annotated[str, AfterValidator(_known_or_all)]

MLPS: tuple[Mlp, ...] = get_args(Mlp)
# Sparse by construction: those whose own latents are a family.
SPARSE = tuple(
    m for m in MLPS if any((f.kind, f.model) == ("native", m) for f in FAMILIES.values())
)
SPLITS: tuple[Split, ...] = get_args(Split)
