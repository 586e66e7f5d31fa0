"""What a training step of each sparse feedforward costs, as a multiple of the dense model's.

    python benchmarks/sparse_step.py [--params params.yaml] [--threads 2] [--steps 30]

One step is forward, backward and AdamW on a batch of random tokens. All models live in one
process and take turns step by step, so that a busy machine slows them alike; the table holds
medians and their ratios. The exit code is 1 where GroupMax costs more than `--limit` times dense.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from clearnets import config as settings
from clearnets.models import build_model


def stepper(config: settings.Config, mlp: settings.Mlp, tokens_BS: torch.Tensor) -> Callable:
    """One training step of a fresh model, as a function without arguments."""
    model = build_model(
        config.model,
        mlp=mlp,
        vocab_size=config.data.vocab_size,
        ctx_len=config.data.ctx_len,
        pad=0,
        bos=1,
        eos=2,
        seed=0,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        model(input_ids=tokens_BS, labels=tokens_BS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(steps: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds per step; the steps take turns, after two rounds of warming up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def main() -> int:
    """Measure, print the table, and say whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--limit", type=float, default=2.5)
    for name in ("hidden-size", "num-layers", "expansion", "k"):
        parser.add_argument(f"--{name}", type=int, help="instead of the value in --params")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    config = settings.load(args.params)
    names = ("hidden_size", "num_layers", "expansion", "k")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    config = config.model_copy(update={"model": config.model.model_copy(update=changes)})
    shape = (config.train.batch_size, config.data.ctx_len)
    generator = torch.Generator().manual_seed(0)
    tokens_BS = torch.randint(3, config.data.vocab_size, shape, generator=generator)

    steps = {mlp: stepper(config, mlp, tokens_BS) for mlp in get_args(settings.Mlp)}
    seconds = measure(steps, args.steps)
    model = config.model
    print(
        f"{model.num_layers} layers, width {model.hidden_size}, {model.num_latents} latents, "
        f"k = {model.k}, batch {shape[0]} x {shape[1]}, {args.threads} threads"
    )
    print(f"{'feedforward':<16}{'ms/step':>9}{'tokens/s':>10}{'x dense':>9}")
    for name, value in seconds.items():
        ratio = value / seconds["dense"]
        print(f"{name:<16}{value * 1e3:>9.1f}{tokens_BS.numel() / value:>10,.0f}{ratio:>9.2f}")
    return int(seconds["sparse"] > args.limit * seconds["dense"])


if __name__ == "__main__":
    sys.exit(main())
