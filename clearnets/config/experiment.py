"""The parameters of one experiment: all of `params.yaml`, and what they imply together."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from math import isqrt
from operator import getitem
from typing import Annotated, Any

from pydantic import Field, model_validator

from clearnets.config.autointerp import (
    Effects,
    Execute,
    Explain,
    Intervene,
    Overlap,
    Qualify,
    Score,
)
from clearnets.config.browse import Browse
from clearnets.config.circuits import Circuits, has_circuits
from clearnets.config.coders import Cache, Coders
from clearnets.config.data import Data, Storybook
from clearnets.config.embeddings import Embed, Similarity
from clearnets.config.fields import Count, Frozen, Positive
from clearnets.config.generalize import Generalize
from clearnets.config.models import Match, Model, Pretrained, Train
from clearnets.config.names import ALL, MLPS, SPARSE, Family, Mlp, Optional, Split
from clearnets.config.results import Collate, Concepts, Planted, Stability
from clearnets.config.tune import Tune
from clearnets.families import FAMILIES, NO_LAYER, TOKENS


class Config(Frozen):
    """One experiment: the whole of `params.yaml`."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name; its tables go to `paper/results/<experiment>/`."""
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Training seeds; each is trained and carried into every table."""
    models: tuple[Mlp, ...]
    """Feedforwards of the models that are trained: `dense`, and after it its twins. A model is
    called by its feedforward in paths and tables."""
    families: tuple[Family, ...]
    """Kinds of latent that are compared, controls among them: rows of `clearnets.families`. None at
    all: the experiment compares nothing, and only `generalize` and `tune` run."""
    skip: tuple[Optional, ...]
    """Stages that are left out, with their tables and figures."""
    threads: Positive
    """Threads of torch in each process. Results depend on it in their last digits."""
    data: Data
    model: Model
    train: Train
    match: Match
    tune: Tune
    coders: Coders
    cache: Cache
    embed: Embed
    explain: Explain
    score: Score
    execute: Execute
    effects: Effects
    intervene: Intervene
    circuits: Circuits
    stability: Stability
    planted: Planted
    overlap: Overlap
    similarity: Similarity
    concepts: Concepts
    qualify: Qualify
    generalize: Generalize
    browse: Browse
    collate: Collate

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._check_text()
        self._check_search()
        if self.models:
            self._check_models()
            self._check_families()
        else:
            self._check_no_comparison()
        return self

    def _check_text(self) -> None:
        if {"similarity", "concepts"} & set(self.skip) and "browse" not in self.skip:
            raise ValueError("skip: browse shows what similarity and concepts find; add it")
        if {"effects", "probes"} & set(self.skip) and "intervene" not in self.skip:
            raise ValueError("skip: intervene starts from what effects and probes find; add it")
        if self.data.ctx_len % self.explain.window:
            raise ValueError("data.ctx_len must be a multiple of explain.window")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        if self.score.rules and self.explain.explainer.kind == "delphi":
            raise ValueError(
                "the scorer `rules` executes sentences of the explainer `tokens` only; choose "
                "score.scorers of kind delphi"
            )

    def _check_search(self) -> None:
        if self.tune.families and not self.models:
            raise ValueError("tune.families: coders need a model to read: set `models: [dense]`")
        if self.tune.models and isinstance(self.model, Pretrained):
            raise ValueError("tune.models: a pretrained model is not trained; remove them")
        for section, values, kind in (
            ("train", self.tune.train, Train),
            ("coders", self.tune.coders, Coders),
        ):
            for key in values:
                if key not in kind.model_fields:
                    raise ValueError(f"tune.{section}: the section {section} has no key {key!r}")

    def _check_models(self) -> None:
        modes = ", ".join(MLPS[1:])
        if self.models[0] != "dense" or len(set(self.models)) != len(self.models):
            raise ValueError(f"models must be dense and then, each once, any of {modes}")
        if "sparse_product_key" in self.models:
            latents = self.model.num_latents
            if isqrt(latents) ** 2 != latents or self.model.hidden_size % 2:
                raise ValueError(
                    f"sparse_product_key needs a square number of latents, not {latents}, and an "
                    "even hidden_size: choose another model.expansion, or take it out of `models`"
                )
        rates = self.train.learning_rate
        if isinstance(rates, dict) and not isinstance(self.model, Pretrained):
            for mlp in self.models:
                if mlp not in rates:
                    raise ValueError(f"train.learning_rate names no rate of {mlp}: add it")
        if isinstance(self.model, Pretrained):
            twins = len(self.models) - 1
            if twins > 1:
                raise ValueError("a pretrained model has one twin: leave two in `models`")
            if twins and self.model.sparse is None:
                raise ValueError(
                    "a pretrained model has no sparse twin: set `models: [dense]`, or name one "
                    "with model.sparse"
                )
            if not twins and self.model.sparse is not None:
                raise ValueError(
                    f"model.sparse is not used: add its mode to `models` ({', '.join(SPARSE)})"
                )

    def _check_families(self) -> None:
        if len(set(self.families)) != len(self.families):
            raise ValueError("families must differ")
        scored = "explain" if self.explain.protocol == "delphi" else "score"
        for key, kind, split in (
            ("explain", self.explain.non_activating, "explain"),
            ("score", self.score.non_activating, scored),
        ):
            if kind == "similar" and split not in self.embed.splits:
                raise ValueError(f"{key}.non_activating similar needs {split} in embed.splits")
        for family in self.families:
            model = FAMILIES[family].model
            if model is not None and model not in self.models:
                raise ValueError(
                    f"families: {family} reads the model {model}: add it to `models`, or remove "
                    "the family"
                )
        for family in self.families:
            coders = FAMILIES[family].equal_loss
            if coders and coders not in self.families:
                raise ValueError(f"families: {family} is chosen by the loss with {coders}: add it")
        rates = self.coders.learning_rate
        for family in self.coder_families:
            if isinstance(rates, dict) and FAMILIES[family].trained and family not in rates:
                raise ValueError(f"coders.learning_rate names no rate of {family}: add it")
        trainable = [
            f for f in self.coder_families if FAMILIES[f].is_subject and not FAMILIES[f].cross_layer
        ]
        for family in self.coders.existing:
            if family not in trainable:
                listed = ", ".join(trainable) or "none"
                raise ValueError(f"coders.existing.{family}: families that it may name: {listed}")

    def _check_no_comparison(self) -> None:
        if self.families or self.coders.existing:
            raise ValueError(
                "without models there is nothing to compare: set `families: []` and "
                "`coders.existing: {}`, or set models"
            )
        if not (self.generalize.tasks or self.tune.subjects):
            raise ValueError(
                "without models there is nothing to run: name generalize.tasks or tune.models"
            )
        if "checkpoints" in self.generalize.tasks and self.generalize.reads_own_models:
            raise ValueError(
                "generalize.tasks: checkpoints reads the models that are trained here, and "
                "`models` is empty: set generalize.checkpoints.name, or remove the task"
            )

    @property
    def compares(self) -> bool:
        """Whether there are models, and latents of them, to compare."""
        return bool(self.families)

    @property
    def coder_families(self) -> tuple[Family, ...]:
        """The families whose latents `clearnets sparsify` trains."""
        return tuple(family for family in self.families if FAMILIES[family].is_coder)

    @property
    def executed_families(self) -> tuple[Family, ...]:
        """The families whose explanations `clearnets execute` executes."""
        wanted = self.execute.families
        there = [name for name in self.families if FAMILIES[name].writes]
        return tuple(name for name in there if name in wanted or ALL in wanted)

    @property
    def circuit_families(self) -> tuple[Family, ...]:
        """The families of which `clearnets circuits` looks for circuits; none where the corpus
        has no tasks."""
        wanted = self.circuits.families if isinstance(self.data.corpus, Storybook) else ()
        there = [name for name in self.families if has_circuits(name)]
        return tuple(name for name in there if name in wanted or ALL in wanted)

    @property
    def reseeded_families(self) -> tuple[Family, ...]:
        """The coders that `clearnets reseed` trains once more."""
        wanted = () if "stability" in self.skip else self.stability.reseeded
        own = [f for f in self.coder_families if f not in self.coders.existing]
        plain = [f for f in own if not (FAMILIES[f].joint or FAMILIES[f].untrained_model)]
        return tuple(f for f in plain if f in wanted or ALL in wanted)

    @property
    def stability_families(self) -> tuple[Family, ...]:
        """The families whose latents are looked for in other runs."""
        several = "stability" not in self.skip and len(self.seeds) > 1
        return tuple(
            family
            for family in self.families
            if family in self.reseeded_families or (several and FAMILIES[family].model)
        )

    def runs(self, stage: str, family: Family) -> bool:
        """Return whether a stage that does not run for all families has results of this one."""
        of = self.circuit_families if stage == "circuits" else self.executed_families
        return stage not in self.skip and family in of

    def hookpoints(self, family: Family, layers: Iterable[int] | None = None) -> list[str]:
        """Return where a family's latents are: at some layers, or at all that are read."""
        chosen = self.model.layers if layers is None else layers
        return FAMILIES[family].hookpoints(self.model.hookpoint(layer) for layer in chosen)

    def hookpoints_by_layer(self, family: Family) -> dict[int, str]:
        """Return a family's hookpoints by layer; that of a family without layers by `NO_LAYER`."""
        points = self.hookpoints(family)
        return (
            dict(zip(self.model.layers, points)) if FAMILIES[family].model else {NO_LAYER: TOKENS}
        )

    @property
    def concept_splits(self) -> tuple[Split, ...]:
        """The splits on which concepts are chosen and measured; none where the corpus has no
        labels or one of them holds no tokens."""
        sizes = self.data.tokens
        there = sizes.concept_fit > 0 and sizes.concept_test > 0
        labelled = isinstance(self.data.corpus, Storybook)
        return ("concept_fit", "concept_test") if labelled and there else ()

    def dump(self, *keys: str) -> dict[str, Any]:
        """Return the values under dotted `keys` as JSON values, for settings and fingerprints."""
        whole = self.model_dump(mode="json")
        return {key: reduce(getitem, key.split("."), whole) for key in keys}
