"""Measure what a training step of each sparse feedforward costs, relative to the dense model's.

    python benchmarks/sparse_step.py [--params params.yaml] [--threads 2] [--steps 30]
    python benchmarks/sparse_step.py --device cuda --precision bfloat16 --hidden-size 256 \
        --expansion 32 --k 32 --batch-size 256

One step is forward, backward and AdamW on a batch of random tokens. All models are in one process
and take turns step by step, so that other load on the machine slows them equally; the table has
medians and their ratios. The exit code is 1 where GroupMax costs more than `--limit` times dense.

`use` is the model's FLOPs per second (`clearnets compute`) over those of a large matrix product in
the same precision on the same device. On CUDA each sparse model runs by Triton's kernels and, as
`/torch`, by torch's, and `memory` is what a step adds to the device's at its peak.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args
from unittest import mock

import torch

from clearnets import config as settings
from clearnets.models import budget, triton_ops
from clearnets.models import flops as compute
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline.runtime import Runtime, autocast


@dataclass
class Step:
    """A training step, as a function without arguments, and its measurements."""

    run: Callable[[], None]
    flops: int
    """FLOPs for all tokens of the step."""
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    """Peak device memory that the step adds to what is allocated between steps, in bytes."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds[2:])  # the first two are for warming up


def stepper(
    config: settings.Config, mlp: settings.Mlp, tokens_BS: torch.Tensor, *, triton: bool
) -> Step:
    """Return a training step of a new model."""
    model = build_model(
        config.model,
        mlp=mlp,
        vocab_size=config.data.vocab_size,
        ctx_len=config.data.ctx_len,
        pad=0,
        bos=1,
        eos=2,
        seed=0,
    )
    model = model.to(tokens_BS.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def forward_and_backward() -> None:
        with autocast(tokens_BS.device, config.train.precision):
            loss = model(input_ids=tokens_BS, labels=tokens_BS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def by_torch() -> None:
        with mock.patch.object(triton_ops, "usable", return_value=False):
            forward_and_backward()

    flops = compute.model(budget.architecture(config, mlp)).training * tokens_BS.numel()
    return Step(forward_and_backward if triton else by_torch, flops)


def measure(steps: list[Step], rounds: int, device: torch.device) -> None:
    """Time the steps in turns, after two rounds of warm-up."""
    for _ in range(rounds + 2):
        for step in steps:
            held = _memory(device, reset=True)
            step.seconds.append(timed(step.run, device))
            step.memory = max(step.memory, _memory(device) - held)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds until the device has finished the work of `call`."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def product_rate(device: torch.device, precision: settings.Precision) -> float:
    """Return the FLOPs per second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    seconds = [timed(lambda: matrix @ matrix, device) for _ in range(10)]
    return 2 * size**3 / statistics.median(seconds)


def _memory(device: torch.device, *, reset: bool = False) -> int:
    """Return the peak device memory since the last reset, in bytes."""
    if device.type != "cuda":
        return 0
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.max_memory_allocated(device)


def main() -> int:
    """Measure, print the table, and say whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--limit", type=float, default=2.5)
    parser.add_argument("--device", default="cpu")
    in_params = {
        "model": ("hidden_size", "num_layers", "expansion", "k"),
        "train": ("batch_size",),
        "data": ("ctx_len",),
    }
    for name in (name for names in in_params.values() for name in names):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, help="instead of the value in --params")
    parser.add_argument("--precision", choices=get_args(settings.Precision))
    args = parser.parse_args()

    device = Runtime(args.device, args.threads).torch_device()
    over = {
        section: {name: vars(args)[name] for name in names if vars(args)[name] is not None}
        for section, names in in_params.items()
    }
    if args.precision:
        over["train"]["precision"] = args.precision
    config = settings.parse(settings.overlay(settings.read_yaml(args.params), over), "options")
    precision = config.train.precision
    shape = (config.train.batch_size, config.data.ctx_len)
    generator = torch.Generator().manual_seed(0)
    tokens_BS = torch.randint(3, config.data.vocab_size, shape, generator=generator).to(device)

    steps = {mlp: stepper(config, mlp, tokens_BS, triton=True) for mlp in get_args(settings.Mlp)}
    if device.type == "cuda":
        for mlp in [mlp for mlp in steps if mlp != "dense"]:
            steps[f"{mlp}/torch"] = stepper(config, mlp, tokens_BS, triton=False)
    measure(list(steps.values()), args.steps, device)
    rate = product_rate(device, precision)
    model = config.model
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{model.num_layers} layers, width {model.hidden_size}, {model.num_latents} latents, "
        f"k = {model.k}, batch {shape[0]} x {shape[1]}, {precision}, {args.threads} threads, "
        f"{where}, {rate / 1e12:.2f} TFLOP/s in a large product"
    )
    head = ("ms/step", "tokens/s", "x dense", "use", "memory")
    print(f"{'feedforward':<22}" + "".join(f"{title:>11}" for title in head))
    dense = steps["dense"].median
    for name, step in steps.items():
        seconds = step.median
        memory = f"{step.memory / 2**20:,.0f} MiB" if step.memory else "-"
        cells = (
            f"{seconds * 1e3:.1f}",
            f"{tokens_BS.numel() / seconds:,.0f}",
            f"{seconds / dense:.2f}",
            f"{step.flops / seconds / rate:.1%}",
            memory,
        )
        print(f"{name:<22}" + "".join(f"{cell:>11}" for cell in cells))
    return int(steps["sparse"].median > args.limit * dense)


if __name__ == "__main__":
    sys.exit(main())
