"""`clearnets evaluate`: what the pair and its coders are worth on the `valid` split."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.families import FAMILIES
from clearnets.models import flops as compute
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    Work,
    build_all,
    read_json,
    remake,
    settings_of,
    write_json,
    write_table,
)
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    import torch

    from clearnets.coders.baselines import Baselines
    from clearnets.coders.batches import Batch
    from clearnets.config import Config
    from clearnets.data.tokens import TokenStore

BATCH_ROWS = 64
"""Rows per forward pass; changes no number beyond rounding."""
INTERVENTION_ROWS = 192
"""Losses under interventions are measured on this many rows, evenly spaced over the split (all
where there are fewer): some 20 000 tokens at the default, paired with the clean loss on the same
rows. Losses of the pair, fvu, l0 and dead shares use the whole split."""

# Losses are in nats per predicted token; those of coders are on the intervened rows.
ABLATION_COLUMNS = ("model", "layer", "loss_clean", "loss_ablate", "cost")
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
    does="Measure the pair and its coders on held-out text: losses, ablations, fvu, FLOPs.",
    example="clearnets evaluate",
    params=("seeds", "models", "families"),
    reads=("artifacts/data", "artifacts/match", "artifacts/train", "artifacts/coders"),
    small=("artifacts/evaluate",),
    metrics=True,
    runs_on="device",
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
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the tables of every seed."""
    wanted = units(config)
    for unit, work in build_all(wanted):
        _build(config, unit.settings["seed"], work, runtime.torch_device())
    metrics = {f"seed-{unit.settings['seed']}": _metrics(unit.out) for unit in wanted}
    write_json(paths.metrics("evaluate"), metrics)


def _build(config: Config, seed: int, work: Work, device: torch.device) -> None:
    import numpy as np

    from clearnets.coders import evaluation
    from clearnets.coders.library import load_coder
    from clearnets.data.tokens import open_tokens
    from clearnets.models import hookpoints, load
    from clearnets.models.matching import load_pair
    from clearnets.models.untrained import untrained

    pair = load_pair(seed)
    store = open_tokens(paths.data())
    rows = np.asarray(store.split("valid"))
    # Rows of like length make batches with little padding; the sums are the same in any order.
    rows = rows[np.argsort((rows != store.pad).sum(axis=1), kind="stable")]
    chosen = _evenly_spaced(len(rows), INTERVENTION_ROWS)
    others = np.setdiff1d(np.arange(len(rows)), chosen)

    def model_at(path: Path) -> Any:
        model: Any = load(path)
        return model.to(device).requires_grad_(False)

    dense = model_at(pair.dense)
    models = {"dense": dense}
    if pair.sparse:
        models[str(config.sparse)] = model_at(pair.sparse)
    coders = {
        family: [
            load_coder(paths.coders(family, seed) / name, device)
            for name in hookpoints.names(dense)
        ]
        for family in config.coder_families
    }
    with progress(f"evaluate seed {seed}", None, "rows") as bar:

        def batches(indices: np.ndarray) -> Iterator[Batch]:
            return _batches(store, rows[indices], device, bar.advance)

        def surveyed(model: Any) -> evaluation.Survey:
            return evaluation.survey(model, batches(np.arange(len(rows))))

        surveys = {name: surveyed(model) for name, model in models.items()}
        means = surveys["dense"].means
        native = {}
        if pair.untrained_sparse:
            native["native"] = surveys[str(config.sparse)]
            native["random-native"] = surveyed(model_at(pair.untrained_sparse))
        ablations = {
            name: evaluation.ablate(model, batches(chosen), surveys[name].means)
            for name, model in models.items()
        }

        def baselines(model: Any) -> list[Baselines]:
            rows = _coder_rows(store, next(iter(coders)), seed)
            within = settings_of(paths.train("dense", seed))["model"]["attention"] == "within"
            trained_on = _batches(store, rows, device, bar.advance, within=within)
            sizes = {"k": model.config.k, "vocab_size": store.vocab_size}
            return evaluation.fit_baselines(model, trained_on, **sizes)

        per_layer, spliced = [], []
        of_dense = {
            name: chain for name, chain in coders.items() if not FAMILIES[name].untrained_model
        }
        of_step0 = {name: chain for name, chain in coders.items() if FAMILIES[name].untrained_model}
        if of_dense:
            per_layer = evaluation.evaluate_coders(
                dense,
                of_dense,
                baselines(dense),
                means,
                ablations["dense"],
                intervened=batches(chosen),
                others=batches(others),
            )
            spliced = evaluation.splice_all(dense, of_dense, means, list(batches(chosen)))
        if of_step0:
            initial: Any = untrained(pair.dense, seed)
            initial.to(device).requires_grad_(False)
            per_layer += evaluation.evaluate_coders(
                initial,
                of_step0,
                baselines(initial),
                surveyed(initial).means,
                None,
                intervened=(),
                others=batches(np.arange(len(rows))),
            )

    write_table(
        work.out / "ablation.csv",
        ABLATION_COLUMNS,
        [{"model": name, **row} for name, table in ablations.items() for row in table],
    )
    write_table(work.out / "coders.csv", CODER_COLUMNS, per_layer)
    write_table(work.out / "splice_all.csv", ("family", *SPLICE_COLUMNS), spliced)
    write_table(work.out / "native.csv", NATIVE_COLUMNS, _native(native, dense.config))
    losses = {name: found.nll.value for name, found in surveys.items()}
    match = read_json(paths.match(seed) / "pair.json")
    summary = {
        "split": "valid",
        "predicted_tokens": surveys["dense"].nll.count,
        "intervention_rows": len(chosen),
        "models": {
            mlp: {
                "heldout_loss": losses[mlp],
                **_model_cost(model, mlp, seed, match[mlp]["step"], store.ctx_len),
            }
            for mlp, model in models.items()
        },
        **_difference(losses, match),
        "coders": {
            family: _coder_cost(family, chain, dense, seed, store.ctx_len)
            for family, chain in coders.items()
        },
    }
    write_json(work.out / "summary.json", summary)


def _difference(losses: Mapping[str, float], match: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out loss of the sparse model minus the dense one's, where there are two."""
    if len(losses) == 1:
        return {}
    dense, sparse = losses.values()
    return {"difference": sparse - dense, "matched": match["matched"]}


def _evenly_spaced(rows: int, count: int) -> np.ndarray:
    """At most `count` row numbers, evenly spaced over all."""
    import numpy as np

    return np.arange(min(rows, count)) * rows // min(rows, count)


def _batches(
    store: TokenStore, rows: np.ndarray, device: torch.device, done: Any, *, within: bool = False
) -> Iterator[Batch]:
    from clearnets.coders.batches import make_batch

    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        yield make_batch(store, part, device, within=within)
        done(len(part))


def _coder_rows(store: TokenStore, family: str, seed: int) -> np.ndarray:
    """The token rows that the coders of this seed were trained on; the same for every family."""
    from clearnets.coders.batches import plan_rows

    settings = settings_of(paths.coders(family, seed))["coders"]
    split = store.split("train")
    rows = plan_rows(
        len(split),
        tokens=settings["tokens"],
        batch_size=settings["batch_size"],
        ctx_len=store.ctx_len,
        seed=seed,
    )
    return split[rows.flatten()]


def _native(surveys: Mapping[str, Any], config: Any) -> Table:
    """Activity of the sparse model's latents; `config` of either model, they share their sizes."""
    return [
        {
            "family": family,
            "layer": layer,
            "num_latents": config.num_latents,
            "k": config.k,
            "l0": activity.l0,
            "dead": activity.dead,
        }
        for family, found in surveys.items()
        for layer, activity in enumerate(found.activity)
    ]


def _model_cost(model: Any, mlp: str, seed: int, step: int, ctx_len: int) -> dict[str, int | None]:
    """Size and compute of a model up to the checkpoint that is paired.

    How long a model was trained that was taken over, as a run of no step, is not known.
    """
    from clearnets.models.loading import embedding_parameters

    curve = paths.train(mlp, seed) / "curve.csv"
    with curve.open(newline="", encoding="utf-8") as file:
        tokens = {int(row["step"]): int(float(row["tokens"])) for row in csv.DictReader(file)}
    if step not in tokens:
        raise UserError(f"{curve} has no step {step}; {remake(curve.parent)}")
    flops = compute.model(compute.Architecture.of(model.config.to_dict(), ctx_len))
    parameters = sum(p.numel() for p in model.parameters())
    trained = None if set(tokens) == {0} else tokens[step]
    return {
        "step": step,
        "parameters": parameters,
        "parameters_without_embeddings": parameters - embedding_parameters(model),
        "flops_per_token_forward": flops.forward,
        "flops_per_token_training": flops.training,
        "training_tokens": trained,
        "training_flops": None if trained is None else trained * flops.training,
    }


def _coder_cost(
    family: str, chain: Sequence[Any], dense: Any, seed: int, ctx_len: int
) -> dict[str, int | None]:
    """Size and compute of the coders of all layers together.

    FLOPs per token are the coders' own; training also runs the model that they read. How long
    coders were trained that were taken over is not known.
    """
    each = [
        compute.coder(
            family,
            d_in=coder.d_in,
            num_latents=coder.num_latents,
            k=coder.cfg.k,
            multi_topk=coder.cfg.multi_topk,
        )
        for coder in chain
    ]
    flops = sum(each, compute.Flops(0, 0))
    reading = compute.trunk(compute.Architecture.of(dense.config.to_dict(), ctx_len)).forward
    tokens = read_json(paths.coders(family, seed) / "training.json")["tokens"]
    return {
        "parameters": sum(p.numel() for coder in chain for p in coder.parameters()),
        "flops_per_token_forward": flops.forward,
        "flops_per_token_training": flops.training,
        "training_tokens": tokens,
        "training_flops": None if tokens is None else tokens * (flops.training + reading),
    }


def _metrics(folder: Path) -> dict[str, Any]:
    """Held-out losses; per trained family fvu, the mean over layers, and loss recovered with all
    layers' coders spliced in."""
    summary = read_json(folder / "summary.json")
    metrics: dict[str, Any] = {
        f"heldout_loss_{name}": part["heldout_loss"] for name, part in summary["models"].items()
    }
    with (folder / "coders.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "splice_all.csv").open(newline="", encoding="utf-8") as file:
        spliced = {row["family"]: row["loss_recovered"] for row in csv.DictReader(file)}
    for family in spliced:
        if FAMILIES[family].is_subject:
            own = [float(row["fvu"]) for row in rows if row["family"] == family]
            metrics[f"fvu_{family}"] = sum(own) / len(own)
            metrics[f"loss_recovered_{family}"] = (
                float(spliced[family]) if spliced[family] else None
            )
    return metrics
