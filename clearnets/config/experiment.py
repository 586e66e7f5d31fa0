"""One complete setting of the pipeline."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from clearnets.config.autointerp import Explain, Overlap, Qualify, Score
from clearnets.config.browse import Browse
from clearnets.config.coders import Cache, Coders
from clearnets.config.data import Data, Storybook
from clearnets.config.embeddings import Embed, Similarity
from clearnets.config.families import (
    CODER_FAMILIES,
    MLPS,
    NATIVE_FAMILIES,
    TRAINED_CODERS,
    Family,
    Mlp,
    Split,
)
from clearnets.config.fields import Count, Frozen
from clearnets.config.generalize import Generalize
from clearnets.config.models import Match, Model, Pretrained, Train
from clearnets.config.results import Collate, Concepts


class Config(Frozen):
    """One experiment: the whole of `params.yaml`."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name; its tables go to `paper/results/<experiment>/`."""
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Training seeds; each is trained and carried into every table."""
    models: tuple[Mlp, ...]
    """Feedforwards of the models that are trained: `dense`, and after it at most one that is sparse
    by construction, its twin. A model is called by its feedforward in paths and tables. None at
    all, and no families: the experiment compares nothing, and only `generalize` runs."""
    families: dict[Family, str]
    """Kinds of latent that are compared, controls among them, in the order of tables. The values
    are the artifacts with their weights: dvc.yaml needs them; they cannot be chosen."""
    data: Data
    model: Model
    train: Train
    match: Match
    coders: Coders
    cache: Cache
    embed: Embed
    explain: Explain
    score: Score
    overlap: Overlap
    similarity: Similarity
    concepts: Concepts
    qualify: Qualify
    generalize: Generalize
    browse: Browse
    collate: Collate

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.data.ctx_len % self.explain.window:
            raise ValueError("data.ctx_len must be a multiple of explain.window")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        if self.score.rules and self.explain.explainer.kind != "tokens":
            raise ValueError(
                "the scorer `rules` executes sentences of the explainer `tokens` only; choose "
                "score.scorers of kind delphi"
            )
        if not self.models:
            return self._only_observed()
        if not self.families:
            raise ValueError("families must name at least one kind of latent")
        scored = "explain" if self.explain.protocol == "delphi" else "score"
        for key, kind, split in (
            ("explain", self.explain.non_activating, "explain"),
            ("score", self.score.non_activating, scored),
        ):
            if kind == "similar" and split not in self.embed.splits:
                raise ValueError(f"{key}.non_activating similar needs {split} in embed.splits")
        if self.models[:1] != ("dense",) or len(self.models) > 2 or self.models[1:] == ("dense",):
            modes = ", ".join(MLPS[1:])
            raise ValueError(f"models must be dense alone, or dense and then one of {modes}")
        if isinstance(self.model, Pretrained):
            if self.sparse is not None and self.model.sparse is None:
                raise ValueError(
                    "a pretrained model has no sparse twin: set `models: [dense]`, or name one "
                    "with model.sparse"
                )
            if self.sparse is None and self.model.sparse is not None:
                modes = ", ".join(MLPS[1:])
                raise ValueError(f"model.sparse is not used: add its mode to `models` ({modes})")
        for family, weights in self.families.items():
            if family in NATIVE_FAMILIES and self.sparse is None:
                modes = ", ".join(MLPS[1:])
                raise ValueError(
                    f"families.{family} needs a sparse model: add one of {modes} to `models`, or "
                    f"remove the family with `{family}: null`"
                )
            if weights != self.weights(family):
                raise ValueError(f"families.{family} must be {self.weights(family)}")
        coders = {family for family in self.families if family in CODER_FAMILIES}
        if coders != set(self.coders.families):
            listed = ", ".join(sorted(coders)) or "none"
            raise ValueError(f"coders.families must be those of families with coders: {listed}")
        for family in self.coders.existing:
            if family not in self.coders.families or family not in TRAINED_CODERS:
                trained = [name for name in self.coders.families if name in TRAINED_CODERS]
                listed = ", ".join(trained) or "none"
                raise ValueError(f"coders.existing.{family}: families that it may name: {listed}")
        return self

    def _only_observed(self) -> Config:
        if self.families or self.coders.families or self.coders.existing:
            raise ValueError(
                "without models there is nothing to compare: remove every family (`FAMILY: null`) "
                "and set `coders.families: []`, or set models"
            )
        if "artifacts/train" in self.generalize.tasks.values():
            raise ValueError(
                "generalize.tasks.checkpoints reads the models that are trained here, and `models` "
                "is empty: set generalize.checkpoints.name, or remove the task"
            )
        return self

    @property
    def compares(self) -> bool:
        """Whether there are models, and latents of them, to compare."""
        return bool(self.models)

    @property
    def sparse(self) -> Mlp | None:
        """Feedforward of the sparse model, where there is one."""
        return self.models[1] if len(self.models) > 1 else None

    def weights(self, family: Family) -> str:
        """The artifact that holds the weights of a family."""
        if family in CODER_FAMILIES:
            return f"coders/{family}"
        if family in NATIVE_FAMILIES:
            return f"train/{self.sparse}"
        return "train/dense" if family == "neurons" else "data"

    @property
    def concept_splits(self) -> tuple[Split, ...]:
        """The splits on which concepts are chosen and measured; none where the corpus has no
        labels or one of them holds no tokens."""
        sizes = self.data.tokens
        there = sizes.concept_fit > 0 and sizes.concept_test > 0
        labelled = isinstance(self.data.corpus, Storybook)
        return ("concept_fit", "concept_test") if labelled and there else ()

    def dump(self, *keys: str) -> dict[str, Any]:
        """The values under dotted `keys` as JSON values, for settings and fingerprints."""
        whole = self.model_dump(mode="json")
        return {key: _get(whole, key) for key in keys}


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
