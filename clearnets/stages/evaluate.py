"""`clearnets evaluate`: the models' losses, and how well their coders reconstruct, on `valid`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    Work,
    build_all,
    read_json,
    settings_of,
    write_json,
    write_table,
)
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    import torch
    from sparsify import SparseCoder

    from clearnets.coders.baselines import Baselines
    from clearnets.coders.batches import HeldOut
    from clearnets.coders.evaluation import Row, Survey
    from clearnets.config import Config
    from clearnets.data.tokens import TokenStore
    from clearnets.models.matching import Pair

# Losses are in nats per predicted token; those of coders are on the intervened rows.
ABLATION_COLUMNS = ("model", "layer", "loss_clean", "loss_ablate", "cost")
DEPTH_COLUMNS = ("model", "joint", "joint_all")
SPLICE_COLUMNS = ("loss_clean", "loss_ablate", "loss_splice", "loss_recovered")
CODER_COLUMNS = (
    *("family", "layer", "reads", "reconstructs", "num_latents", "k"),
    *("fvu", "fvu_token_mean", "fvu_pca", "fvu_linear", "l0", "dead"),
    *SPLICE_COLUMNS,
)
NATIVE_COLUMNS = ("family", "layer", "num_latents", "k", "l0", "dead")

Table = Sequence[Mapping[str, Any]]


STAGE = Stage(
    name="evaluate",
    does="Measure the models and their coders on held-out text: losses, ablations, fvu, FLOPs.",
    example="clearnets evaluate",
    params=("seeds", "threads", "models", "model.expansion", "model.k", "families"),
    reads=(
        "artifacts/data",
        "artifacts/match",
        "artifacts/train",
        "artifacts/coders",
        "artifacts/equalize",
    ),
    small=("artifacts/evaluate",),
    metrics=True,
    on_device=True,
)


def units(config: Config) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="evaluate",
            out=paths.evaluate(seed),
            settings={"seed": seed, **config.dump(*STAGE.settings)},
            inputs={
                "data": paths.data(),
                "match": paths.match(seed),
                **{mlp: paths.train(mlp, seed) for mlp in config.models},
                **{family: paths.coders(family, seed) for family in config.coder_families},
                **{family: paths.equalize(family, seed) for family in _early(config)},
            },
        )
        for seed in config.seeds
    ]


def _early(config: Config) -> list[str]:
    """Return the families of sparse models at equal end-to-end loss."""
    return [family for family in config.families if FAMILIES[family].equal_loss]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the tables of every seed."""
    wanted = units(config)
    for unit, work in build_all(wanted):
        _build(config, unit.settings["seed"], work, runtime.torch_device())
    metrics = {f"seed-{unit.settings['seed']}": _metrics(unit.out) for unit in wanted}
    write_json(paths.metrics("evaluate"), metrics)


def _build(config: Config, seed: int, work: Work, device: torch.device) -> None:
    from clearnets.coders import cross_layer, evaluation
    from clearnets.coders.batches import HeldOut
    from clearnets.data.tokens import open_tokens
    from clearnets.models import hookpoints
    from clearnets.models.matching import load_pair

    pair, store = load_pair(seed), open_tokens(paths.data())
    models = {mlp: _frozen(pair.trained[mlp], device) for mlp in config.models}
    points = hookpoints.names(models["dense"])
    coders = {
        family: cross_layer.load(paths.coders(family, seed), points, device)
        for family in config.coder_families
    }
    with progress(f"evaluate seed {seed}", None, "rows") as bar:
        held_out = HeldOut.of(store, "valid", device, bar.advance)
        surveys = {name: evaluation.survey(model, held_out.all()) for name, model in models.items()}
        ablations = {
            name: evaluation.ablate(model, held_out.intervened(), surveys[name].means)
            for name, model in models.items()
        }
        together = [
            {"model": name}
            | evaluation.ablate_together(model, list(held_out.intervened()), surveys[name].means)
            for name, model in models.items()
        ]
        other = {
            name: evaluation.survey(_frozen(path, device), held_out.all())
            for name, path in _other_checkpoints(config, pair, seed).items()
        }
        measured = _OnHeldOut(pair, seed, store, held_out, config.model.k)
        per_layer, spliced = [], []
        for mlp, model in models.items():
            own = {name: chain for name, chain in coders.items() if FAMILIES[name].model == mlp}
            rows = measured.coders(mlp, model, own, surveys[mlp].means, ablations[mlp])
            per_layer += rows[0]
            spliced += rows[1]
    ablated = [{"model": name, **row} for name, table in ablations.items() for row in table]
    write_table(work.out / "ablation.csv", ABLATION_COLUMNS, ablated)
    write_table(work.out / "depth.csv", DEPTH_COLUMNS, together)
    write_table(work.out / "coders.csv", CODER_COLUMNS, per_layer)
    write_table(work.out / "splice_all.csv", ("family", *SPLICE_COLUMNS), spliced)
    native = _native(surveys | other, config)
    write_table(work.out / "native.csv", NATIVE_COLUMNS, native)
    losses = {name: found.nll.value for name, found in surveys.items()}
    summary = {
        "split": "valid",
        "predicted_tokens": surveys["dense"].nll.count,
        "intervention_rows": len(held_out.chosen),
        **_costs(seed, store.ctx_len, models, losses, coders),
    }
    write_json(work.out / "summary.json", summary)


def _costs(
    seed: int,
    ctx_len: int,
    models: Mapping[str, Any],
    losses: Mapping[str, float],
    coders: Mapping[str, Sequence[SparseCoder]],
) -> dict[str, Any]:
    """Return loss, size and compute of the models, and size and compute of the coders."""
    from clearnets.coders.costs import coder_cost, model_cost
    from clearnets.models.matching import trained_tokens

    match = read_json(paths.match(seed) / "pair.json")
    by_model, by_family = {}, {}
    for mlp, model in models.items():
        step = match[mlp]["step"]
        tokens = trained_tokens(paths.train(mlp, seed), step)
        cost = model_cost(model, ctx_len, tokens)
        by_model[mlp] = {"heldout_loss": losses[mlp], "step": step, **cost}
    for family, chain in coders.items():
        tokens = read_json(paths.coders(family, seed) / "training.json")["tokens"]
        spec = FAMILIES[family]
        cost = coder_cost(spec, chain, models[str(spec.model)], ctx_len, tokens)
        by_family[family] = cost
    return {"models": by_model, "coders": by_family}


def _other_checkpoints(config: Config, pair: Pair, seed: int) -> dict[str, Path]:
    """Return checkpoints of sparse models whose latents alone are measured, by the `model_state` of
    the families that read them: untrained ones, and those of equal end-to-end loss."""
    from clearnets.models.matching import checkpoint_of

    begun = {f"{mlp}, untrained": path for mlp, path in pair.untrained.items()}
    early = {
        FAMILIES[family].model_state: checkpoint_of(FAMILIES[family], seed)
        for family in _early(config)
    }
    return begun | early


def _frozen(path: Path, device: torch.device) -> Any:
    from clearnets.models.loading import load

    model: Any = load(path)
    return model.to(device).requires_grad_(False)


@dataclass(frozen=True)
class _OnHeldOut:
    """What the coders of one seed are measured with."""

    pair: Pair
    seed: int
    store: TokenStore
    held_out: HeldOut
    k: int

    def coders(
        self,
        mlp: str,
        model: Any,
        coders: Mapping[str, Sequence[SparseCoder]],
        means: Sequence[torch.Tensor],
        ablation: Sequence[Row],
    ) -> tuple[list[Row], list[Row]]:
        """Return of the families of one model a row per family and layer, and one per family with
        all its coders in place.

        Coders of the untrained model are measured on that. It has no loss to lose, so they are put
        in place nowhere.
        """
        from clearnets.coders import evaluation
        from clearnets.models.untrained import untrained

        per_layer: list[Row] = []
        spliced: list[Row] = []
        on_trained = {name: c for name, c in coders.items() if not FAMILIES[name].untrained_model}
        on_untrained = {name: c for name, c in coders.items() if FAMILIES[name].untrained_model}
        if on_trained:
            per_layer = evaluation.evaluate_coders(
                model,
                on_trained,
                self._baselines(model, next(iter(coders))),
                means,
                ablation,
                intervened=self.held_out.intervened(),
                others=self.held_out.others(),
            )
            rows = list(self.held_out.intervened())
            spliced = evaluation.splice_all(model, on_trained, means, rows)
        if on_untrained:
            begun: Any = untrained(self.pair.trained[mlp], self.seed)
            begun.to(self.held_out.device).requires_grad_(False)
            per_layer += evaluation.evaluate_coders(
                begun,
                on_untrained,
                self._baselines(begun, next(iter(coders))),
                evaluation.survey(begun, self.held_out.all()).means,
                None,
                intervened=(),
                others=self.held_out.all(),
            )
        return per_layer, spliced

    def _baselines(self, model: Any, family: str) -> list[Baselines]:
        from clearnets.coders import evaluation
        from clearnets.models.matching import attention_within

        rows = _coder_rows(self.store, family, self.seed)
        batches = self.held_out.batches(rows, within=attention_within(self.seed))
        vocab_size = self.store.vocab_size
        return evaluation.fit_baselines(
            model, batches, k=self.k, rows_RS=rows, vocab_size=vocab_size
        )


def _coder_rows(store: TokenStore, family: str, seed: int) -> np.ndarray:
    """Return the token rows that the coders of this seed were trained on, all families alike."""
    from clearnets.coders.batches import plan_rows

    settings = settings_of(paths.coders(family, seed))["coders"]
    split = store.split("train")
    rows = plan_rows(
        len(split),
        tokens=settings["tokens"],
        batch_size=settings["batch_size"],
        grad_acc_steps=settings["grad_acc_steps"],
        ctx_len=store.ctx_len,
        seed=seed,
    )
    return split[rows.flatten()]


def _native(surveys: Mapping[str, Survey], config: Config) -> Table:
    """Return the activity of sparse models' latents, from surveys of models by `model_state`."""
    return [
        {
            "family": name,
            "layer": layer,
            "num_latents": config.model.num_latents,
            "k": config.model.k,
            "l0": activity.l0,
            "dead": activity.dead,
        }
        for name, family in FAMILIES.items()
        if family.kind == "native" and family.model_state in surveys
        for layer, activity in zip(config.model.layers, surveys[family.model_state].activity)
    ]


def _metrics(folder: Path) -> dict[str, Any]:
    """Return held-out losses; per trained family also the mean fvu over layers, and the loss
    with the coders of all layers in place, in nats above the model's own."""
    summary = read_json(folder / "summary.json")
    metrics: dict[str, Any] = {
        f"heldout_loss_{name}": part["heldout_loss"] for name, part in summary["models"].items()
    }
    with (folder / "coders.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "splice_all.csv").open(newline="", encoding="utf-8") as file:
        spliced = {
            row["family"]: float(row["loss_splice"]) - float(row["loss_clean"])
            for row in csv.DictReader(file)
        }
    for family in spliced:
        if FAMILIES[family].trained:
            own = [float(row["fvu"]) for row in rows if row["family"] == family]
            metrics[f"fvu_{family}"] = sum(own) / len(own)
            metrics[f"nats_splice_{family}"] = spliced[family]
    return metrics
