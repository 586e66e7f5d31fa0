"""Compare tokens per second of training coders with sparsify's `Trainer`.

    python benchmarks/coder_speed.py [--steps 96] [--runs 5] [--params params.yaml]

SAEs and transcoders of all layers, of the sizes and with the settings of `params.yaml`, are trained
on the same rows of the embedded corpus, from the same weights and with the same optimizer, by
sparsify's `Trainer`, by this package alone, and by this package all in one pass. They read the
dense model, trained for `--model-steps` steps before. All take turns in one process on one thread;
seconds are processor time, and the ratios are of the runs of one turn. The held-out fvu is the mean
over layers on rows that no coder has seen. The last lines say where the limit lies: tokens per
second of the model's forward pass alone, and of the encoders' matrix products alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F

from clearnets import config as settings
from clearnets.coders import batches, feedforward, library, objective, training
from clearnets.data.tokens import TokenStore
from clearnets.families import FAMILIES
from clearnets.models import hookpoints
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline.runtime import Runtime

KINDS = ("transcoder", "sae", "skip-transcoder")
HELD_OUT = 64
"""Rows for the fvu, and for the product of the encoders."""


@dataclass(frozen=True)
class Task:
    """What all alternatives train on."""

    config: settings.Config
    model: Any
    store: TokenStore
    rows_RS: np.ndarray
    """The training rows in their order, and `HELD_OUT` more."""
    steps: int

    @property
    def batch_size(self) -> int:
        return self.config.coders.batch_size

    @property
    def tokens(self) -> int:
        """Tokens that a coder sees."""
        return self.steps * self.batch_size * self.store.ctx_len

    def new_coders(self, family: str) -> dict[str, Any]:
        """Return the coders of a family at their initial weights."""
        model = self.config.model
        sizes = {"d_in": model.hidden_size, "num_latents": model.num_latents, "k": model.k}
        return {
            name: library.new_coder(name, **FAMILIES[family].coder_kind, **sizes, seed=0)
            for name in hookpoints.names(self.model)
        }

    def batch(self, first: int, last: int) -> batches.Batch:
        """Return some rows."""
        return batches.make_batch(self.store, self.rows_RS[first:last], "cpu")


Coders = dict[str, dict[str, Any]]
"""By family, then by hookpoint."""


def ours(task: Task, families: Sequence[str]) -> Coders:
    """Train some families in one pass."""
    coders = {family: task.new_coders(family) for family in families}
    size = task.batch_size
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            task.model,
            [training.Chain(made, Path(folder) / f"{name}.pt") for name, made in coders.items()],
            lambda some: task.batch(some.start * size, some.stop * size),
            training.Schedule.of(task.config.coders, task.steps, "transcoder"),
            per_read=max(1, training.READ_TOKENS // (size * task.store.ctx_len)),
        )
    return coders


def theirs(task: Task, family: str) -> Coders:
    """Train one family by sparsify."""
    from datasets import Dataset

    library.coder_class()  # Without a GPU it turns Triton off, before the import.
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    kind, how, model = FAMILIES[family], task.config.coders, task.config.model
    rows = {"input_ids": task.rows_RS[: task.steps * task.batch_size].astype(np.int64)}
    with tempfile.TemporaryDirectory() as folder, _silent():
        trainer = Trainer(
            TrainConfig(
                SparseCoderConfig(
                    num_latents=model.num_latents,
                    k=model.k,
                    transcode=kind.transcode,
                    skip_connection=kind.skip,
                ),
                batch_size=how.batch_size,
                optimizer="adam",
                lr=how.learning_rate,
                lr_warmup_steps=how.warmup_steps,
                exclude_tokens=[task.store.pad, task.store.bos, task.store.eos],
                hookpoints=hookpoints.names(task.model),
                save_every=10**9,
                save_dir=folder,
                log_to_wandb=False,
            ),
            Dataset.from_dict(rows).with_format("torch"),
            task.model,
        )
        for name, coder in task.new_coders(family).items():
            trainer.saes[name].load_state_dict(coder.state_dict())
        trainer.fit()
    return {family: trainer.saes}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


@torch.no_grad()
def held_out_fvu(task: Task, coders: Coders) -> dict[str, float]:
    """Return by family the fvu on rows that were not trained on, averaged over layers."""
    batch = task.batch(-HELD_OUT, len(task.rows_RS))
    reading, _ = feedforward.read(task.model, batch.tokens_BS)
    found = {}
    for family, made in coders.items():
        reads = reading.inputs if FAMILIES[family].transcode else reading.outputs
        fvus = []
        for coder, x_BSD, y_BSD in zip(made.values(), reads, reading.outputs, strict=True):
            x_ND, y_ND = x_BSD[batch.counted_BS], y_BSD[batch.counted_BS]
            residual = (objective.reconstruct(coder, x_ND).output_ND - y_ND).pow(2).sum()
            fvus.append(float(residual / objective.variation(y_ND)))
        found[family] = statistics.mean(fvus)
    return found


def prepare(config: settings.Config, folder: Path, model_steps: int, steps: int) -> Task:
    """Return text of the embedded corpus, and a dense model that was trained on it."""
    from clearnets.data.tokens import open_tokens
    from clearnets.pipeline import paths
    from clearnets.stages import data

    assert isinstance(config.model, settings.GPTNeoX)
    with contextlib.chdir(folder), _silent():
        data.run(config, runtime=Runtime("cpu"))
        store = open_tokens(paths.data())
        rows_RS = np.array(store.split("train"))
    model: Any = build_model(
        config.model,
        mlp="dense",
        vocab_size=store.vocab_size,
        ctx_len=store.ctx_len,
        pad=store.pad,
        bos=store.bos,
        eos=store.eos,
        seed=0,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    size = config.train.batch_size
    for step in range(model_steps):
        batch = torch.from_numpy(rows_RS[step * size : (step + 1) * size].astype(np.int64))
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # Coders are trained on what the model has not seen.
    rows_RS = rows_RS[model_steps * size :]
    needed = steps * config.coders.batch_size
    assert len(rows_RS) >= needed + HELD_OUT
    rows_RS = np.concatenate([rows_RS[:needed], rows_RS[-HELD_OUT:]])
    return Task(config, model.eval().requires_grad_(False), store, rows_RS, steps)


def limits(task: Task, runs: int) -> dict[str, float]:
    """Return tokens per second of the model's forward pass, and of all encoders' products."""
    batch = task.batch(0, HELD_OUT)
    reading, _ = feedforward.read(task.model, batch.tokens_BS)
    weights = [coder.encoder.weight.detach() for coder in task.new_coders("sae").values()]
    size = task.batch_size * task.store.ctx_len
    read = [x_BSD.flatten(0, 1).split(size) for x_BSD in reading.inputs]

    def products() -> None:
        for pieces, weight_LD in zip(read, weights, strict=True):
            for x_ND in pieces:
                F.linear(x_ND, weight_LD)

    calls = {
        "the model's forward pass": lambda: feedforward.read(task.model, batch.tokens_BS),
        "the encoders' products of one family": products,
    }
    times = common.in_turns(calls, runs)
    tokens = batch.tokens_BS.numel()
    return {name: tokens / statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--model-steps", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    Runtime("cpu").torch_device()
    read = settings.read_yaml(options.params)
    size, ctx_len = read["train"]["batch_size"], read["data"]["ctx_len"]
    rows = options.model_steps * size + options.steps * read["coders"]["batch_size"] + 2 * HELD_OUT
    over = {"data": {"tokens": {"train": rows * ctx_len}}}
    config = settings.parse(settings.overlay(read, over), "options")
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(config, Path(folder), options.model_steps, options.steps)
    made: dict[str, Coders] = {}

    def of(name: str, train: Any, *arguments: Any) -> Any:
        return lambda: made.__setitem__(name, train(task, *arguments))

    calls = {
        f"{who}, {kind}": of(f"{who}, {kind}", *how)
        for kind in KINDS
        for who, how in (("sparsify", (theirs, kind)), ("alone", (ours, [kind])))
    }
    calls["together"] = of("together", ours, KINDS)
    times = common.in_turns(calls, options.runs)
    show(task, times, {name: held_out_fvu(task, coders) for name, coders in made.items()})
    for name, rate in limits(task, options.runs).items():
        print(f"{name}: {rate:,.0f} tokens/s")


def show(task: Task, times: dict[str, list[float]], fvu: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    model, how = task.config.model, task.config.coders
    assert isinstance(model, settings.GPTNeoX)
    print(
        f"{common.machine()}; {model.num_layers} layers of width {model.hidden_size}, "
        f"{model.num_latents} latents, k {model.k}; {task.steps} steps of {how.batch_size} rows of "
        f"{task.store.ctx_len} tokens; one thread; {len(times['together'])} runs in turns\n"
    )
    print("| coders of all layers | sparsify | here, alone | ratio | fvu there | fvu here |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        there, here = times[f"sparsify, {kind}"], times[f"alone, {kind}"]
        print(
            f"| {kind} | {_rate(task.tokens, there)} | {_rate(task.tokens, here)} "
            f"| {common.ratios(there, here)} | {fvu[f'sparsify, {kind}'][kind]:.4f} "
            f"| {fvu[f'alone, {kind}'][kind]:.4f} |"
        )
    there = [sum(turn) for turn in zip(*(times[f"sparsify, {kind}"] for kind in KINDS))]
    here, tokens = times["together"], task.tokens * len(KINDS)
    print(
        f"| all three, in one pass here | {_rate(tokens, there)} | {_rate(tokens, here)} "
        f"| {common.ratios(there, here)} | | |"
    )
    for kind in KINDS:
        assert fvu["together"][kind] == fvu[f"alone, {kind}"][kind]
    print("\ntokens/s (× families): median; ratios: median (least–greatest)")


def _rate(tokens: int, seconds: Sequence[float]) -> str:
    return f"{tokens / statistics.median(seconds):,.0f}"


if __name__ == "__main__":
    main()
