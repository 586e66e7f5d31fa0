"""`clearnets sparsify`: one coder per layer of a dense model: trained, untrained, trained
on the model at step 0, or taken over from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, Work, build_groups, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import CODERS, Source, Stage

if TYPE_CHECKING:
    from clearnets.config import Config, Existing


STAGE = Stage(
    name="sparsify",
    does="Train SAEs or transcoders on a dense model, one per layer.",
    example="clearnets sparsify --aux transcoder",
    over=CODERS,
    # Not `coders.existing`, which concerns single families: see `clearnets.pipeline.dvc`.
    params=(
        *("seeds", "threads", "model.expansion", "model.k"),
        *("coders.tokens", "coders.batch_size", "coders.grad_acc_steps"),
        *("coders.micro_acc_steps", "coders.multi_topk", "coders.precision", "coders.optimizer"),
        *("coders.learning_rate", "coders.warmup_steps"),
        *("coders.bias_step", "coders.silent_steps", "coders.end_to_end_fvu"),
    ),
    reads=("artifacts/data", "artifacts/match", "{source}"),
    writes=("artifacts/coders/{item}",),
    metrics=True,
    on_device=True,
    together=lambda _, family: FAMILIES[family].model_state,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed. Existing coders are known by their files, or their commit."""
    settings = {"family": family, **config.dump("threads", "model.expansion", "model.k", "coders")}
    model = str(FAMILIES[family].model)
    # Of what concerns single families, only that of this one.
    own = {"existing": None, "learning_rate": config.coders.rate(family)}
    settings["coders"] = {**settings["coders"], **own}
    if source := _existing(config, family):
        from clearnets.coders import existing

        settings["coders"]["existing"] = {
            "name": source.name,
            **existing.checked_identity(source, config.experiment),
        }
    return [
        Unit(
            stage="sparsify",
            out=paths.coders(family, seed),
            settings={"seed": seed, **settings},
            inputs={
                "data": paths.data(),
                "match": paths.match(seed),
                model: paths.train(model, seed),
            },
        )
        for seed in config.seeds
    ]


def sources(config: Config) -> Iterator[Source]:
    """Yield the coders that take the place of trained ones."""
    from clearnets.coders import existing

    for family, coders in config.coders.existing.items():
        identity = partial(existing.identity, coders)
        yield Source(("coders", "existing", family), "name", identity, family)


def run(config: Config, *, runtime: Runtime, families: Sequence[str]) -> None:
    """Write the coders of families for every seed, and how their training ended.

    All families read one model, which is run once for those that are trained. Layers are shared
    out among the devices or cores that are there; no result depends on how many.
    """
    wanted = {family: units(config, family=family) for family in families}
    for stale in build_groups(zip(*wanted.values(), strict=True)):
        seed, trained, untrained = stale[0][0].settings["seed"], {}, {}
        for unit, work in stale:
            family = unit.settings["family"]
            if source := _existing(config, family):
                _take_over(source, family, seed, work)
            else:
                (trained if FAMILIES[family].trained else untrained)[family] = work
        if trained:
            _build(config, seed, trained, runtime.side_by_side())
        if untrained:  # Their work is to read one batch.
            _build(config, seed, untrained, [runtime])
    for family, made in wanted.items():
        metrics = {
            f"seed-{unit.settings['seed']}": _metrics(read_json(unit.out / "training.json"))
            for unit in made
        }
        write_json(paths.metrics(f"sparsify-{family}"), metrics)


def _existing(config: Config, family: str) -> Existing | None:
    return {str(name): source for name, source in config.coders.existing.items()}.get(family)


def _take_over(source: Existing, family: str, seed: int, work: Work) -> None:
    """Write coders that others trained in place of trained ones; their training is not known."""
    from clearnets.coders import existing
    from clearnets.coders.library import save_coder
    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import checkpoint_of

    model: Any = load(checkpoint_of(FAMILIES[family], seed))
    names = hookpoints.names(model)
    coders = existing.take_over(source, FAMILIES[family], names, d_in=model.config.hidden_size)
    for name, coder in coders.items():
        save_coder(coder, work.out / name)
    write_json(work.out / "training.json", {"steps": 0, "tokens": None, "existing": source.name})


def _build(
    config: Config, seed: int, works: Mapping[str, Work], workers: Sequence[Runtime]
) -> None:
    """Train the coders of families that read one model, or write untrained ones."""
    layers = config.model.layers
    apart = {family: work for family, work in works.items() if not FAMILIES[family].joint}
    # All layers of a family that are trained together are one job, and the longest one.
    shares: list[tuple[Mapping[str, Work], Sequence[int]]] = [
        ({family: work}, layers) for family, work in works.items() if family not in apart
    ]
    shares += [(apart, layers[n :: len(workers)]) for n in range(len(workers)) if apart]
    jobs = [
        (config, seed, *share, runtime)
        for share, runtime in zip(shares, cycle(workers))
        if share[1]
    ]
    preload = "clearnets.coders.training"
    parts = list(processes.each(_build_layers, jobs, workers=len(workers), preload=preload))
    for family, work in works.items():
        told = [part[family] for part in parts if family in part]
        found = {name: values for part in told for name, values in part["layers"].items()}
        ordered = {name: found[name] for name in config.hookpoints(family)}
        write_json(work.out / "training.json", told[0] | {"layers": ordered})


def _build_layers(
    config: Config, seed: int, works: Mapping[str, Work], layers: Sequence[int], runtime: Runtime
) -> dict[str, dict[str, Any]]:
    """Write the coders of some layers; return by family what is told of their training."""
    from clearnets.coders import cross_layer, fitting

    states = {family: work.state / _state_of(layers) for family, work in works.items()}
    fitted = fitting.fit(config, seed, states, layers, runtime, label=_label(works, seed, layers))
    for family, work in works.items():
        cross_layer.save(fitted[family].coders, work.out)
    return {family: found.told for family, found in fitted.items()}


def _state_of(layers: Sequence[int]) -> str:
    """Return the name of the resume state of some layers' coders."""
    return f"layers-{'-'.join(map(str, layers))}.pt"


def _label(works: Mapping[str, Work], seed: int, layers: Sequence[int]) -> str:
    return f"sparsify {', '.join(works)} seed {seed} layers {', '.join(map(str, layers))}"


def _metrics(training: dict) -> dict[str, float | int | None]:
    """Return training tokens, and fvu and dead share on the last steps, averaged over layers."""
    if not training["steps"]:
        return {"tokens": training["tokens"]}
    layers = training["layers"].values()
    means = {
        f"training_{key}": sum(layer[key] for layer in layers) / len(layers)
        for key in ("fvu", "dead")
    }
    return {"tokens": training["tokens"], **means}
