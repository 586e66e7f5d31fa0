"""`clearnets tune`: search for the recipe of a model or of a family of coders, by its loss alone.

A subject's trials are all combinations of the values that the section `tune` names, the same for
every model and for every family of coders. A trial of a model is a whole training; one of coders
trains them on the pair's dense model. Only numbers are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import TUNED, Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="tune",
    does="Search for the recipe of a model or of coders, by validation loss or fvu.",
    example="clearnets tune transcoder --experiment tuning-coders",
    over=TUNED,
    params=("seeds", "threads", "model", "train", "coders", "tune"),
    reads=("artifacts/data", "{source}"),
    small=("artifacts/tune/{item}",),
    on_device=True,
    without_models=True,
)


def units(config: Config, *, subject: str) -> list[Unit]:
    """One unit per trial and seed."""
    section = config.tune.section(subject)
    inputs = {"data": paths.data()}
    own = config.dump("threads", "model", section)
    return [
        Unit(
            stage="tune",
            out=paths.tune(subject, seed, number),
            settings={"subject": subject, "seed": seed, "trial": dict(trial), **own},
            inputs=inputs | ({"match": paths.match(seed)} if section == "coders" else {}),
        )
        for seed in config.seeds
        for number, trial in enumerate(config.tune.trials(subject))
    ]


def run(config: Config, *, runtime: Runtime, subject: str) -> None:
    """Write `trial.json` of every trial: its values, validation loss or fvu, dead share."""
    section = config.tune.section(subject)
    measure = _train if section == "train" else _fit
    for unit, work in build_all(units(config, subject=subject)):
        trial, seed = unit.settings["trial"], unit.settings["seed"]
        tried = _with(config, section, trial)
        found = measure(tried, runtime, subject, seed, work)
        write_json(work.out / "trial.json", {"values": trial, **found})


def _with(config: Config, section: str, values: Mapping[str, Any]) -> Config:
    """Return the experiment with other values in one section."""
    from clearnets.config import parse

    changed = config.model_dump(mode="json")
    changed[section] |= values
    return parse(changed, f"a trial of {config.experiment}")


def _train(
    config: Config, runtime: Runtime, mlp: str, seed: int, work: Work
) -> dict[str, float | int | None]:
    """Train a model; return its losses, and what its feedforwards are worth."""
    from clearnets.coders import evaluation
    from clearnets.coders.batches import HeldOut
    from clearnets.data.tokens import open_tokens
    from clearnets.training import language

    device, tokens = runtime.torch_device(), open_tokens(paths.data())
    assert config.model.kind == "gptneox", "the configuration has checked it"
    out = work.state / "run"
    out.mkdir(exist_ok=True)
    label = f"tune {mlp}, seed {seed}, {work.out.parent.name}"
    model, summary = language.train_new(
        mlp,  # type: ignore[arg-type]
        config.model,
        config.train,
        tokens,
        language.Run(seed, out, work.state, device, label),
    )
    held_out = HeldOut.of(tokens, "valid", device)
    found = evaluation.survey(model, held_out.all())
    costs = [row["cost"] for row in evaluation.ablate(model, held_out.intervened(), found.means)]
    dead = [activity.dead for activity in found.activity]
    return {
        "tokens": summary["tokens"],
        "valid_loss": summary["valid_loss"],
        "dead": sum(dead) / len(dead) if dead else None,
        "least_cost": min(costs),
    }


def _fit(
    config: Config, runtime: Runtime, family: str, seed: int, work: Work
) -> dict[str, float | int | None]:
    """Train the coders of all layers; return how well they reconstruct held-out text."""
    from clearnets.coders import evaluation, fitting
    from clearnets.coders.batches import HeldOut
    from clearnets.data.tokens import open_tokens

    states = {family: work.state / "coders.pt"}
    label = f"tune {family}, seed {seed}, {work.out.parent.name}"
    (found,) = fitting.fit(config, seed, states, config.model.layers, runtime, label=label).values()
    chain = {family: list(found.coders.values())}
    held_out = HeldOut.of(open_tokens(paths.data()), "valid", runtime.torch_device())
    means = evaluation.survey(found.model, held_out.all()).means
    rows = evaluation.evaluate_coders(
        found.model, chain, None, means, None, intervened=(), others=held_out.all()
    )
    (spliced,) = evaluation.splice_all(found.model, chain, means, list(held_out.intervened()))
    return {
        "tokens": found.told["tokens"],
        **{key: sum(row[key] for row in rows) / len(rows) for key in ("fvu", "l0", "dead")},
        "spliced_nats": spliced["loss_splice"] - spliced["loss_clean"],
    }
