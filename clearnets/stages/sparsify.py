"""`clearnets sparsify`: one coder per layer of the pair's dense model: trained, untrained, trained
on the model at step 0, or taken over from others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, read_json, write_json
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import CODERS, Source, Stage

if TYPE_CHECKING:
    import torch

    from clearnets.config import Config, Existing


STAGE = Stage(
    name="sparsify",
    does="Train SAEs or transcoders on the pair's dense model, one per layer.",
    example="clearnets sparsify --aux transcoder",
    over=CODERS,
    # Not `coders.existing`, which concerns single families: see `clearnets.pipeline.dvc`.
    params=(
        *("seeds", "threads"),
        *("coders.tokens", "coders.batch_size", "coders.grad_acc_steps"),
        *("coders.micro_acc_steps", "coders.multi_topk", "coders.precision", "coders.optimizer"),
        *("coders.learning_rate", "coders.warmup_steps"),
    ),
    reads=("artifacts/data", "artifacts/match", "artifacts/train/dense"),
    writes=("artifacts/coders/{item}",),
    metrics=True,
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed. Existing coders are known by their files, or their commit."""
    settings = {"family": family, **config.dump("threads", "coders")}
    # Of what takes the place of trained coders, only that of this family.
    settings["coders"] = {**settings["coders"], "existing": None}
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
                "dense": paths.train("dense", seed),
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


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write the coders of a family for every seed, and how their training ended."""
    wanted = units(config, family=family)
    for unit, work in build_all(wanted):
        seed = unit.settings["seed"]
        if source := _existing(config, family):
            _take_over(source, family, seed, work)
        else:
            _build(config, family, seed, work, runtime.torch_device())
    metrics = {
        f"seed-{unit.settings['seed']}": _metrics(read_json(unit.out / "training.json"))
        for unit in wanted
    }
    write_json(paths.metrics(f"sparsify-{family}"), metrics)


def _existing(config: Config, family: str) -> Existing | None:
    return {str(name): source for name, source in config.coders.existing.items()}.get(family)


def _take_over(source: Existing, family: str, seed: int, work: Work) -> None:
    """Write coders that others trained in place of trained ones; their training is not known."""
    from clearnets.coders import existing
    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import load_pair

    dense: Any = load(load_pair(seed).dense)
    names = hookpoints.names(dense)
    coders = existing.take_over(source, FAMILIES[family], names, d_in=dense.config.hidden_size)
    for name, coder in coders.items():
        coder.save_to_disk(work.out / name)
    write_json(work.out / "training.json", {"steps": 0, "tokens": None, "existing": source.name})


def _build(config: Config, family: str, seed: int, work: Work, device: torch.device) -> None:
    """Train the coders of a family for one seed, or write untrained ones."""
    from clearnets.coders import batches, library, training
    from clearnets.data.tokens import open_tokens
    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import attention_within, load_pair
    from clearnets.models.untrained import untrained

    spec, settings = FAMILIES[family], config.coders
    store = open_tokens(paths.data())
    split = store.split("train")
    rows = batches.plan_rows(
        len(split),
        tokens=settings.tokens,
        batch_size=settings.batch_size,
        grad_acc_steps=settings.grad_acc_steps,
        ctx_len=store.ctx_len,
        seed=seed,
    )
    dense, within = load_pair(seed).dense, attention_within(seed)
    model: Any = untrained(dense, seed) if spec.untrained_model else load(dense)
    model.to(device).requires_grad_(False)
    coders = {
        # The models of a pair share one config, so this is also the sparse one's width and k.
        name: library.new_coder(
            name,
            **spec.coder_kind,
            d_in=model.config.hidden_size,
            num_latents=model.config.num_latents,
            k=model.config.k,
            seed=seed,
            multi_topk=settings.multi_topk,
        ).to(device)
        for name in hookpoints.names(model)
    }
    steps = len(rows) // settings.grad_acc_steps if spec.trained else 0
    tokens_per_step = settings.batch_size * settings.grad_acc_steps * store.ctx_len
    label = f"sparsify {family} seed {seed}"
    with progress(label, steps * tokens_per_step, "tokens") as bar:
        report = training.train(
            model,
            coders,
            lambda index: batches.make_batch(store, split[rows[index]], device, within=within),
            training.Schedule.of(settings, steps),
            state=work.state,
            on_step=lambda _: bar.advance(tokens_per_step),
            save_every=training.SAVE_EVERY,
        )
    for name, coder in coders.items():
        coder.cpu().save_to_disk(work.out / name)
    numbers = {"steps": steps, "tokens": steps * tokens_per_step, "layers": report.layers()}
    write_json(work.out / "training.json", numbers)


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
