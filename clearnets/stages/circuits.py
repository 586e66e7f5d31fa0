"""`clearnets circuits`: which latents, at which positions, make a model answer questions.

The questions are those of `data.storybook.tasks`. On one half of a task's pairs the effects of all
nodes are computed; on the other half circuits of the largest effects run.

answers.jsonl   a record per task: `pairs` and `length` of its prompts; `accuracy` and
                `difference`, the mean logit of the right minus the wrong answer, with its 95 %
                interval over pairs, `low` and `high`; whether the model can do it (`done`). Of
                tasks that it can do, and of the control, also: `whole` and `none`, the difference
                on the first half of the model and with all nodes at their mean; `integrated`, the
                sum of integrated gradients, and `errors`, the part of error nodes; `nodes`, how
                many latents have an effect; `integrated_rank` and `patching_rank`, rank
                correlations of effects with true ablation; `tokens` of one prompt, and its
                `answers`, the right and the wrong one
circuits.jsonl  a record per task, kind of circuit and number of latents (`nodes`): `difference`
                by pair of the second half. Kinds: `whole`, the model as it is; `none`, all nodes
                at their mean; `kept`, the largest effects and all errors; `without`, all but the
                largest effects; `random`, latents at random and all errors; and where there are
                errors: `errors` alone, all `latents` without errors, and `alone`, the largest
                effects without errors
nodes.jsonl     the latents of the largest effects, as many as in the largest circuit: task, layer,
                position, latent, `integrated` and `patching`, effects in logits

A killed run continues behind the last finished task.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    Work,
    build_all,
    read_json,
    write_json,
    write_jsonl,
)
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import CIRCUITS, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

    from clearnets.coders.circuits import Questions, Subject
    from clearnets.coders.written import Written
    from clearnets.config import Config
    from clearnets.data.prompts import Prompts

FILES = ("answers", "circuits", "nodes")
NOTHING = dict.fromkeys(
    (
        *("accuracy", "difference", "low", "high", "whole", "none", "integrated", "errors"),
        *("nodes", "integrated_rank", "patching_rank", "tokens", "answers"),
    )
)


STAGE = Stage(
    name="circuits",
    does="Find the latents that make a model answer questions, and run it on them alone.",
    example="clearnets circuits --aux transcoder",
    over=CIRCUITS,
    params=("seeds", "threads", "model.k", "circuits"),
    reads=("artifacts/data", "artifacts/match", "{source}"),
    writes=("artifacts/circuits/{item}",),
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="circuits",
            out=paths.circuits(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs=paths.read_by(FAMILIES[family], seed),
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write answers and circuits of a family's model for every seed."""
    from clearnets.data.storybook.tasks import TASKS
    from clearnets.latents.readers import open_model

    for unit, work in build_all(units(config, family=family)):
        seed = unit.settings["seed"]
        model = open_model(family, seed, runtime.torch_device()).model.requires_grad_(False)
        written = _written(config, unit, model)
        with progress(f"circuits {family} seed {seed}", len(TASKS), "tasks") as bar:
            for task in TASKS:
                _task(config, work, task, model, written)
                bar.advance(1, task)
        found = [read_json(_done(work, task)) for task in TASKS]
        for name in FILES:
            rows = [row for part in found for row in part[name]]
            write_jsonl(work.out / f"{name}.jsonl", rows)


def _written(config: Config, unit: Unit, model: Any) -> list[Written]:
    """Return what the latents write; of neurons all count, and so they leave out nothing."""
    from clearnets.coders.written import open_written
    from clearnets.models import hookpoints

    spec = FAMILIES[unit.settings["family"]]
    if spec.kind != "neurons":
        return open_written(model, spec, unit.inputs.get("coders"), k=config.model.k)
    every = open_written(model, spec, None, k=hookpoints.projections(model)[1])
    return [replace(written, whole=True) for written in every]


def _done(work: Work, task: str) -> Path:
    return work.state / f"{task}.json"


def _task(config: Config, work: Work, task: str, model: Any, written: list[Written]) -> None:
    """Write what is found about one task, unless it is there."""
    from clearnets.coders.circuits import Subject, answers
    from clearnets.data.prompts import open_prompts
    from clearnets.data.storybook.tasks import CONTROL
    from clearnets.data.tokens import open_tokens

    if _done(work, task).exists():
        return
    settings, store = config.circuits, open_tokens(paths.data())
    prompts = open_prompts(store, task, settings.pairs, settings.seed)
    device = next(model.parameters()).device
    record: dict[str, Any] = {"task": task, "pairs": prompts.pairs, "length": prompts.length}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES}
    if prompts.pairs >= 2:
        record |= _answered(answers(model, _questions(prompts, slice(None), device)))
    record["done"] = record.get("difference", -inf) >= settings.min_difference
    if prompts.pairs >= 2 and (record["done"] or task == CONTROL):
        half = min(settings.shown, prompts.pairs // 2)
        shown = _questions(prompts, slice(half), device)
        others = _questions(prompts, slice(half, 2 * half), device)
        subject = Subject.of(model, written, shown)
        effects, found["nodes"], order_Z = _effects(config, task, subject, shown)
        found["circuits"] = _circuits(config, task, subject, others, order_Z)
        strings = store.strings()
        record |= effects | {"tokens": [strings[token] for token in prompts.tokens_2PS[0, 0]]}
        record["answers"] = [strings[token] for token in prompts.right_2P[:, 0]]
    write_json(_done(work, task), found | {"answers": [NOTHING | record]})


def _effects(
    config: Config, task: str, subject: Subject, shown: Questions
) -> tuple[dict[str, float], list[dict[str, Any]], torch.Tensor]:
    """Return what is told of effects, the nodes with the largest, and all latents by effect."""
    import numpy as np
    from scipy.stats import spearmanr

    from clearnets.coders import circuits

    settings = config.circuits
    effects = circuits.effects(subject, shown, settings.steps)
    integrated = effects.integrated
    order_Z = circuits.ranked(integrated)
    largest = order_Z[: max(settings.sizes)].tolist()
    # From the largest effect to that of the last in the largest circuit.
    places = np.geomspace(1, len(largest), settings.ablated).astype(int) - 1
    ablated = [largest[place] for place in np.unique(places)]
    true = circuits.ablations(subject, shown, ablated)
    record: dict[str, float] = {
        "whole": float(circuits.answers(subject.model, shown).mean()),
        "none": float(circuits.run(subject, shown, subject.everything(0.0)).mean()),
        "integrated": float(sum(part.sum() for part in integrated)),
        "errors": float(integrated.errors_YS.sum()),
        "nodes": len(order_Z),
    }
    flat = {way: found.latents_YSL.flatten().tolist() for way, found in effects._asdict().items()}
    for way, values in flat.items():
        rank: Any = spearmanr(true, [values[z] for z in ablated])
        record[f"{way}_rank"] = float(rank.statistic)
    places_3Z = np.unravel_index(largest, integrated.latents_YSL.shape)
    nodes = [
        {
            "task": task,
            "layer": config.model.layers[layer],
            "position": int(position),
            "latent": int(latent),
            **{way: values[z] for way, values in flat.items()},
        }
        for z, layer, position, latent in zip(largest, *places_3Z)
    ]
    return record, nodes, order_Z


def _circuits(
    config: Config, task: str, subject: Subject, others: Questions, order_Z: torch.Tensor
) -> list[dict[str, Any]]:
    """Run circuits of all kinds and sizes."""
    import numpy as np

    from clearnets.coders.circuits import differences

    settings = config.circuits
    rng = np.random.default_rng(seed_for(settings.seed, "circuits", task))
    chance_Z = order_Z[rng.permutation(len(order_Z))]
    sizes = [size for size in settings.sizes if size < len(order_Z)]
    return [
        {
            "task": task,
            "circuit": kind,
            "nodes": size,
            "difference": difference_N.reshape(2, -1).mean(0).tolist(),
        }
        for kind, size, difference_N in differences(subject, others, order_Z, sizes, chance_Z)
    ]


def _questions(prompts: Prompts, pairs: slice, device: torch.device) -> Questions:
    import numpy as np
    import torch

    from clearnets.coders.circuits import Questions

    def part(values_2P: np.ndarray) -> torch.Tensor:
        own = np.ascontiguousarray(values_2P[:, pairs])
        return torch.from_numpy(own).flatten(0, 1).to(device)

    return Questions(part(prompts.tokens_2PS), part(prompts.right_2P), part(prompts.wrong_2P))


def _answered(difference_N: np.ndarray) -> dict[str, float]:
    """Return how well a model answers."""
    import numpy as np

    by_pair = difference_N.reshape(2, -1).mean(0)
    error = 1.96 * by_pair.std(ddof=1) / np.sqrt(len(by_pair))
    return {
        "accuracy": float((difference_N > 0).mean()),
        "difference": float(by_pair.mean()),
        "low": float(by_pair.mean() - error),
        "high": float(by_pair.mean() + error),
    }
