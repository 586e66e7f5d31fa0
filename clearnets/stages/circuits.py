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
                correlations of effects with true ablation, and `links_rank`, of links with cutting
                them; `tokens` of one prompt, and its `answers`, the right and the wrong one
circuits.jsonl  a record per task, kind of circuit and number of latents (`nodes`): `difference`
                by pair of the second half. Kinds: `whole`, the model as it is; `none`, all nodes
                at their mean; `kept`, the largest effects and all errors; `without`, all but the
                largest effects; `random`, latents at random and all errors; and where there are
                errors: `errors` alone, all `latents` without errors, and `alone`, the largest
                effects without errors
nodes.jsonl     the latents of the largest effects, as many as in the largest circuit: task, layer,
                position, latent, `integrated` and `patching`, effects in logits
links.jsonl     the links among the first of these: task, the numbers of `source` and `target` among
                the task's nodes, null for the answer, and `weight` in logits

training.jsonl  of latents that nothing is fitted for: a record per checkpoint (`step` and
                `valid_loss`) and task: `pairs`, `accuracy`, `difference` and `done` as above, and
                where it is done `whole` and `none` of the second half, `nodes`, how many latents
                have an effect, and `kept`, pairs of a number of latents and the difference with
                these

A killed run continues behind the last finished task or checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
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

    # The prompts of a task, all of them as questions, and those of the two halves.
    Asked = tuple[Prompts, Questions, Questions, Questions]

FILES = ("answers", "circuits", "nodes", "links")
TRAINING = "training.jsonl"
NOTHING = dict.fromkeys(
    (
        *("accuracy", "difference", "low", "high", "whole", "none", "integrated", "errors"),
        *("nodes", "integrated_rank", "patching_rank", "links_rank", "tokens", "answers"),
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

    device = runtime.torch_device()
    # The same for all seeds and checkpoints.
    asked = cache(lambda task: _asked(config, task, device))
    for unit, work in build_all(units(config, family=family)):
        seed = unit.settings["seed"]
        model = open_model(family, seed, device).model.requires_grad_(False)
        written = _written(config, unit, model)
        with progress(f"circuits {family} seed {seed}", len(TASKS), "tasks") as bar:
            for task in TASKS:
                _task(config, work, task, asked, model, written)
                bar.advance(1, task)
        found = [read_json(_done(work, task)) for task in TASKS]
        for name in FILES:
            rows = [row for part in found for row in part[name]]
            write_jsonl(work.out / f"{name}.jsonl", rows)
        write_jsonl(work.out / TRAINING, _training(config, unit, work, asked, device))


def _written(config: Config, unit: Unit, model: Any) -> list[Written]:
    """Return what the latents write; of neurons all count, and so they leave out nothing."""
    from clearnets.coders import cross_layer
    from clearnets.coders.circuits import of_coders
    from clearnets.coders.written import open_written
    from clearnets.models import hookpoints

    spec = FAMILIES[unit.settings["family"]]
    if spec.is_coder:
        names, device = hookpoints.names(model), next(model.parameters()).device
        return of_coders(cross_layer.load(unit.inputs["coders"], names, device))
    if spec.kind != "neurons":
        return open_written(model, spec, None, k=config.model.k)
    every = open_written(model, spec, None, k=hookpoints.projections(model)[1])
    return [replace(written, whole=True) for written in every]


def _done(work: Work, name: str) -> Path:
    return work.state / f"{name}.json"


def _asked(config: Config, task: str, device: torch.device) -> Asked:
    """Return the prompts of a task, all of them as questions, and those of the two halves."""
    from clearnets.data.prompts import open_prompts
    from clearnets.data.tokens import open_tokens

    settings = config.circuits
    prompts = open_prompts(open_tokens(paths.data()), task, settings.pairs, settings.seed)
    half = min(settings.shown, prompts.pairs // 2)
    every = _questions(prompts, slice(None), device)
    shown = _questions(prompts, slice(half), device)
    return prompts, every, shown, _questions(prompts, slice(half, 2 * half), device)


def _task(
    config: Config,
    work: Work,
    task: str,
    asked: Callable[[str], Asked],
    model: Any,
    written: list[Written],
) -> None:
    """Write what is found about one task, unless it is there."""
    from clearnets.coders.circuits import Subject, answers
    from clearnets.data.storybook.tasks import CONTROL
    from clearnets.data.tokens import open_tokens

    if _done(work, task).exists():
        return
    prompts, every, shown, others = asked(task)
    record: dict[str, Any] = {"task": task, "pairs": prompts.pairs, "length": prompts.length}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES}
    if prompts.pairs >= 2:
        record |= _answered(answers(model, every))
    record["done"] = record.get("difference", -inf) >= config.circuits.min_difference
    if prompts.pairs >= 2 and (record["done"] or task == CONTROL):
        subject = Subject.of(model, written, shown)
        effects, found["nodes"], order_Z = _effects(config, task, subject, shown)
        links, found["links"] = _links(config, task, subject, shown, order_Z)
        found["circuits"] = _circuits(config, task, subject, others, order_Z)
        strings = open_tokens(paths.data()).strings()
        record |= effects | links
        record["tokens"] = [strings[token] for token in prompts.tokens_2PS[0, 0]]
        record["answers"] = [strings[token] for token in prompts.right_2P[:, 0]]
    write_json(_done(work, task), found | {"answers": [NOTHING | record]})


def _training(
    config: Config, unit: Unit, work: Work, asked: Callable[[str], Asked], device: torch.device
) -> list[dict[str, Any]]:
    """Return what is found at some checkpoints of the family's model; nothing where latents are
    fitted to one of them."""
    from clearnets.config.circuits import is_followed
    from clearnets.data.storybook.tasks import TASKS
    from clearnets.generalization.tasks import chosen, spaced
    from clearnets.models.loading import load
    from clearnets.models.matching import checkpoint_losses

    family, seed = unit.settings["family"], unit.settings["seed"]
    count, rows = config.circuits.checkpoints, []
    if not (is_followed(family) and count):
        return rows
    run = unit.inputs[str(FAMILIES[family].model)]
    losses = checkpoint_losses(run)
    steps = chosen(list(losses), spaced("log", max(losses), max(count, 2)))
    with progress(f"circuits {family} seed {seed} over training", len(steps), "steps") as bar:
        for step in steps:
            done = _done(work, f"step-{step}")
            if not done.exists():
                model: Any = load(run / "checkpoints" / f"step-{step:06d}")
                model = model.to(device).requires_grad_(False)
                written = _written(config, unit, model)
                told = [_followed(config, task, asked(task), model, written) for task in TASKS]
                write_json(done, told)
            found = {"step": step, "valid_loss": losses[step]}
            rows += [found | row for row in read_json(done)]
            bar.advance(1, f"step {step}")
    return rows


def _followed(
    config: Config, task: str, asked: Asked, model: Any, written: list[Written]
) -> dict[str, Any]:
    """Return how a model answers at one checkpoint, and what circuits of its latents do."""
    from clearnets.coders import circuits

    settings, (prompts, every, shown, others) = config.circuits, asked
    record: dict[str, Any] = {"task": task, "pairs": prompts.pairs, "accuracy": None}
    record |= {"difference": None, "done": False, "whole": None, "none": None, "nodes": None}
    if prompts.pairs < 2:
        return record | {"kept": []}
    told = _answered(circuits.answers(model, every))
    record |= {name: told[name] for name in ("accuracy", "difference")}
    record["done"] = record["difference"] >= settings.min_difference
    if not record["done"]:
        return record | {"kept": []}
    subject = circuits.Subject.of(model, written, shown)
    order_Z = circuits.ranked(circuits.effects(subject, shown, settings.steps).integrated)
    kept = [
        [size, float(circuits.run(subject, others, part).mean())]
        for size in settings.sizes
        if size < len(order_Z)
        for part in [circuits.circuit(subject, order_Z[:size], errors=True)]
    ]
    return record | {
        "whole": float(circuits.answers(model, others).mean()),
        "none": float(circuits.run(subject, others, subject.everything(0.0)).mean()),
        "nodes": len(order_Z),
        "kept": kept,
    }


def _effects(
    config: Config, task: str, subject: Subject, shown: Questions
) -> tuple[dict[str, float | None], list[dict[str, Any]], torch.Tensor]:
    """Return what is told of effects, the nodes with the largest, and all latents by effect."""
    import numpy as np

    from clearnets.coders import circuits

    settings = config.circuits
    effects = circuits.effects(subject, shown, settings.steps)
    integrated = effects.integrated
    order_Z = circuits.ranked(integrated)
    largest = order_Z[: max(settings.sizes)].tolist()
    ablated = [largest[place] for place in _sample(len(largest), settings.ablated)]
    true = circuits.ablations(subject, shown, ablated)
    record: dict[str, float | None] = {
        "whole": float(circuits.answers(subject.model, shown).mean()),
        "none": float(circuits.run(subject, shown, subject.everything(0.0)).mean()),
        "integrated": float(sum(part.sum() for part in integrated)),
        "errors": float(integrated.errors_YS.sum()),
        "nodes": len(order_Z),
    }
    flat = {way: found.latents_YSL.flatten().tolist() for way, found in effects._asdict().items()}
    for way, values in flat.items():
        record[f"{way}_rank"] = _rank(true, [values[z] for z in ablated])
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


def _links(
    config: Config, task: str, subject: Subject, shown: Questions, order_Z: torch.Tensor
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Return the rank correlation of links with cutting them, and the links of the largest
    effects."""
    import numpy as np

    from clearnets.coders import circuit_links

    settings = config.circuits
    nodes = circuit_links.nodes(subject, order_Z[: settings.linked].tolist())
    weights = circuit_links.links(subject, shown, nodes)
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")[: np.count_nonzero(weights)]
    pairs = [tuple(map(int, np.unravel_index(place, weights.shape))) for place in order]
    ends = [*nodes, None]
    sample = [pairs[place] for place in _sample(len(pairs), settings.ablated)]
    true = circuit_links.cut_links(subject, shown, [(nodes[u], ends[v]) for u, v in sample])
    rows = [
        {
            "task": task,
            "source": u,
            "target": v if v < len(nodes) else None,
            "weight": float(weights[u, v]),
        }
        for u, v in pairs
    ]
    return {"links_rank": _rank(true, [weights[pair] for pair in sample])}, rows


def _sample(size: int, count: int) -> list[int]:
    """Return places from the first to the last, ever farther apart."""
    import numpy as np

    return (np.unique(np.geomspace(1, size, count).astype(int)) - 1).tolist() if size else []


def _rank(true: np.ndarray, found: list[float]) -> float | None:
    """Return their rank correlation; None where one of them does not vary."""
    import numpy as np
    from scipy.stats import spearmanr

    if len(true) < 2 or not (np.ptp(true) and np.ptp(found)):
        return None
    rank: Any = spearmanr(true, found)
    return float(rank.statistic)


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
        own = np.array(values_2P[:, pairs], order="C")
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
