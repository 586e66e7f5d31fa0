"""The `train` stage: one language model per seed, dense or sparse, trained or taken over."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, Work, read_json, write_json, write_text
from clearnets.pipeline.runtime import Runtime, seed_for
from clearnets.pipeline.stage import MODELS, Source, Stage

if TYPE_CHECKING:
    import torch

    from clearnets.config import Config, GPTNeoX, Pretrained
    from clearnets.data.tokens import TokenStore
    from clearnets.models.pretrained import Base


STAGE = Stage(
    name="train",
    does="Train a transformer with dense or sparse feedforward layers.",
    example="clearnets train --mlp sparse",
    over=MODELS,
    params=("seeds", "threads", "model.{item}", "train"),
    reads=("artifacts/data",),
    writes=("artifacts/train/{item}",),
    metrics=True,
    on_device=True,
)


def units(config: Config, *, mlp: str) -> list[Unit]:
    """One training run per seed. A pretrained model is known by its files, or its commit."""
    settings: dict[str, Any] = {"mlp": mlp, **config.dump("threads")}
    settings["train"] = config.train.of(mlp).model_dump(mode="json")
    settings["model"] = config.model.made_with(mlp)
    if config.model.kind == "pretrained":
        from clearnets.models import pretrained

        if processes.count() > 1:
            raise UserError("a pretrained model is not trained; start `clearnets train` alone")
        del settings["threads"], settings["train"]  # It is not trained.
        member = config.model.member(mlp)
        # A change of the one does not concern the other.
        settings["model"] |= {"sparse": None, **_origin(member)}
        settings["base"] = pretrained.checked_identity(member, config.experiment)
    return [
        Unit(
            stage="train",
            out=paths.train(mlp, seed),
            settings={"seed": seed, **settings},
            inputs={"data": paths.data()},
        )
        for seed in config.seeds
    ]


def sources(config: Config) -> Iterator[Source]:
    """Yield the pretrained models that take the place of trained ones."""
    if config.model.kind == "pretrained":
        yield Source(("model",), "name", partial(_identity, config.model, "dense"), "dense")
        if config.model.sparse is not None:
            twin = config.models[1]
            identity = partial(_identity, config.model, twin)
            yield Source(("model", "sparse"), "name", identity, twin)


def _identity(model: Pretrained, mlp: str) -> Mapping[str, str]:
    """Check that a pretrained model fits, and return what its content follows from."""
    from clearnets.models import pretrained

    pretrained.check(model, mlp)
    return pretrained.identity(model.member(mlp))


def run(config: Config, *, runtime: Runtime, mlp: str) -> None:
    """Train what is stale, and write the metrics. All processes of a torchrun train together."""
    from clearnets.data.tokens import open_tokens

    log: list[str] = []
    for unit, work in processes.build_together(units(config, mlp=mlp), runtime.torch_device):
        seed, tokens = unit.settings["seed"], open_tokens(unit.inputs["data"])
        if config.model.kind == "pretrained":
            log += _take_over(config.model, runtime, mlp, seed, tokens, work)
        else:
            log += _train(config, config.model, runtime, mlp, seed, tokens, work)
        if not processes.is_main():
            continue
        write_text(paths.log(f"train-{mlp}"), "\n".join(log) + "\n")
    if not processes.is_main():
        return
    summaries = {
        f"seed-{seed}": read_json(paths.train(mlp, seed) / "summary.json") for seed in config.seeds
    }
    write_json(paths.metrics(f"train-{mlp}"), summaries)


def _origin(member: Base) -> dict[str, Any]:
    return member.model_dump(mode="json", include={"name", "revision", "fingerprint"})


def _take_over(
    base: Pretrained, runtime: Runtime, mlp: str, seed: int, tokens: TokenStore, work: Work
) -> list[str]:
    """Write a model that others trained as a run of no step; return lines for the log."""
    from clearnets.training.adopt_pretrained import add_untrained, take_over

    # Nothing is resumed: files that a killed run left are in the way.
    shutil.rmtree(work.out)
    work.out.mkdir()
    device = runtime.torch_device()
    name = base.member(mlp).name
    label = f"take over {name}, seed {seed}"
    summary = take_over(base, tokens, mlp=mlp, out=work.out, device=device, label=label)
    if mlp != "dense":
        untrained = work.out / paths.untrained(mlp, seed).name
        add_untrained(work.out / "final", untrained, seed_for(seed, "init"))
    return [f"{mlp}, seed {seed}: {name}, valid loss {summary['valid_loss']:.4f}", ""]


def _train(
    config: Config,
    settings: GPTNeoX,
    runtime: Runtime,
    mlp: str,
    seed: int,
    tokens: TokenStore,
    work: Work,
) -> list[str]:
    """Train one model; return lines for the log."""
    # Seconds to import, so not before there is something to train.
    from clearnets.training import language

    device = runtime.torch_device()
    resumed = any(work.state.iterdir())
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()  # Another seed may have trained before.
    start = time.monotonic()
    where = language.Run(seed, work.out, work.state, device, f"train {mlp}, seed {seed}")
    model, summary = language.train_new(
        mlp,  # type: ignore[arg-type]  # The CLI has checked it.
        settings,
        config.train,
        tokens,
        where,
    )
    seconds = time.monotonic() - start
    if not processes.is_main():
        return []
    memory = _memory(device)
    samples = language.sample(model, bos=tokens.bos, count=3, length=tokens.ctx_len - 1, seed=seed)
    speed = _speed(summary, seconds, resumed=resumed) + memory
    return [f"{mlp}, seed {seed}: {speed}", *_report(summary, tokens, samples)]


def _speed(summary: dict[str, Any], seconds: float, *, resumed: bool) -> str:
    if resumed:
        return f"{summary['tokens']:,} tokens, the last {seconds:,.0f} s of a resumed run"
    rate = summary["tokens"] / seconds
    return f"{summary['tokens']:,} tokens in {seconds:,.0f} s, {rate:,.0f} tokens/s"


def _memory(device: torch.device) -> str:
    """The most that training has taken of the GPU of the main process, for the log."""
    if device.type != "cuda":
        return ""
    import torch

    return f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU at the peak"


def _report(
    summary: dict[str, Any], tokens: TokenStore, samples: Sequence[Sequence[int]]
) -> list[str]:
    """Lines for the untracked log: losses, and stories of the model's own."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokens.root / "tokenizer" / "tokenizer.json"))
    losses = f"train loss {summary['train_loss']:.4f}, valid loss {summary['valid_loss']:.4f}"
    lines = [losses]
    for number, ids in enumerate(samples, 1):
        story = list(ids)
        if tokens.eos in story:
            story = story[: story.index(tokens.eos)]
        lines.append(f"sample {number}: {tokenizer.decode(story)}")
    return [*lines, ""]
