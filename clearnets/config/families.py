"""What the parameters name: feedforwards, splits, families, and how families belong together."""

from __future__ import annotations

from typing import Literal, get_args

Mlp = Literal["dense", "sparse", "sparse_topk", "sparse_low_rank"]
Split = Literal["train", "valid", "explain", "score", "concept_fit", "concept_test"]
Family = Literal[
    "native",
    "transcoder",
    "sae",
    "skip-transcoder",
    "neurons",
    "random-native",
    "random-transcoder",
    "random-sae",
    "step0-transcoder",
    "step0-sae",
    "token-unigram",
]

MLPS: tuple[Mlp, ...] = get_args(Mlp)
SPLITS: tuple[Split, ...] = get_args(Split)
FAMILIES: tuple[Family, ...] = get_args(Family)
# Families whose coders `clearnets sparsify` writes: trained; as controls, untrained; or trained on
# the dense model before its own training (step 0, as Heap et al. 2025 call it).
TRAINED_CODERS: tuple[Family, ...] = ("sae", "transcoder", "skip-transcoder")
UNTRAINED_CODERS: tuple[Family, ...] = ("random-sae", "random-transcoder")
STEP0_CODERS: tuple[Family, ...] = ("step0-transcoder", "step0-sae")
CODER_FAMILIES: tuple[Family, ...] = TRAINED_CODERS + UNTRAINED_CODERS + STEP0_CODERS
# The untrained twin of each family that has one.
TWINS: dict[Family, Family] = {
    "native": "random-native",
    "transcoder": "random-transcoder",
    "skip-transcoder": "random-transcoder",
    "sae": "random-sae",
}
# Coders of the same kind on the untrained model.
STEP0_TWINS: dict[Family, Family] = {
    "transcoder": "step0-transcoder",
    "skip-transcoder": "step0-transcoder",
    "sae": "step0-sae",
}
# What stands for a family where the native latents' null is meant.
DIRECTIONS = "random-directions"
# The null of concept recovery: random directions of the space that a family's latents read, of
# which as many are active per token. Untrained SAEs and transcoders are just that.
NULLS: dict[Family, str] = {
    "native": DIRECTIONS,
    "transcoder": "random-transcoder",
    "skip-transcoder": "random-transcoder",
    "sae": "random-sae",
    "neurons": "random-transcoder",
}

# Families whose latents a sparse model computes with.
NATIVE_FAMILIES: tuple[Family, ...] = ("native", "random-native")


# Stages that also write `artifacts/metrics/`.
STAGES_WITH_METRICS = (
    *("data", "train", "match", "sparsify", "evaluate"),
    *("cache", "score", "similarity", "concepts"),
)
