"""The `train` stage: one language model per seed, dense or sparse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from clearnets import paths, processes
from clearnets.artifacts import Unit, read_json, write_json, write_text
from clearnets.config import Config
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.runtime import Runtime, seed_for


def units(config: Config, *, mlp: str) -> list[Unit]:
    """One training run per seed."""
    return [
        Unit(
            stage="train",
            out=paths.train(mlp, seed),
            settings={"seed": seed, "mlp": mlp, **config.dump("model", "train")},
            inputs={"data": paths.data()},
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, mlp: str) -> None:
    """Train what is stale, and write the metrics. All processes of a torchrun train together."""
    log: list[str] = []
    for unit, work in processes.build_together(units(config, mlp=mlp), runtime.torch_device):
        # Seconds to import, so not before there is something to train.
        from clearnets.models import build_model
        from clearnets.training import language

        seed = unit.settings["seed"]
        tokens = open_tokens(unit.inputs["data"])
        device = runtime.torch_device()
        model = build_model(
            config.model,
            mlp=mlp,  # type: ignore[arg-type]  # The CLI has checked it.
            vocab_size=tokens.vocab_size,
            ctx_len=tokens.ctx_len,
            pad=tokens.pad,
            bos=tokens.bos,
            eos=tokens.eos,
            seed=seed_for(seed, "init"),
        )
        resumed = any(work.state.iterdir())
        start = time.monotonic()
        summary = language.train(
            model,
            settings=config.train,
            train_rows=tokens.split("train"),
            valid_rows=tokens.split("valid"),
            bos=tokens.bos,
            pad=tokens.pad,
            within=config.model.attention == "within",
            seed=seed,
            out=work.out,
            state=work.state,
            device=device,
            label=f"train {mlp}, seed {seed}",
        )
        if not processes.is_main():
            continue
        samples = language.sample(
            model, bos=tokens.bos, count=3, length=tokens.ctx_len - 1, seed=seed
        )
        speed = _speed(summary, time.monotonic() - start, resumed=resumed)
        log += [f"{mlp}, seed {seed}: {speed}", *_report(summary, tokens, samples)]
        write_text(paths.log(f"train-{mlp}"), "\n".join(log) + "\n")
    if not processes.is_main():
        return
    summaries = {
        f"seed-{seed}": read_json(paths.train(mlp, seed) / "summary.json") for seed in config.seeds
    }
    write_json(paths.metrics(f"train-{mlp}"), summaries)


def _speed(summary: dict[str, Any], seconds: float, *, resumed: bool) -> str:
    if resumed:
        return f"{summary['tokens']:,} tokens, the last {seconds:,.0f} s of a resumed run"
    rate = summary["tokens"] / seconds
    return f"{summary['tokens']:,} tokens in {seconds:,.0f} s, {rate:,.0f} tokens/s"


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
