"""Compare a training step of the sparse model with the dense one's and with plain autograd's.

    python benchmarks/sparse_step.py [--widths 64 256 768] [--runs 7]
    python benchmarks/sparse_step.py --device cuda --precision bfloat16 --widths 256 \
        --expansion 32 --k 32 --batch-size 256

A step is forward, backward, clipping and the optimizer, on a batch of random tokens, at the sizes
of `params.yaml` but for the width. The models take turns in one process on one thread; each run
times a few steps of each by processor time (on a GPU by the clock). `plain autograd` is the same
sparse model with its feedforward written in a few lines of torch. `arithmetic` is the model's FLOPs
per second (`clearnets compute`) over those of a large matrix product in the same run.
"""

from __future__ import annotations

import clearnets  # isort: skip  # noqa: F401  # It sets the arithmetic of torch, so before it.

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import get_args
from unittest import mock

import torch
from common import in_turns, machine, processor_seconds, ratios
from torch import Tensor

from clearnets import config as settings
from clearnets.models import budget, sparse_ops
from clearnets.models import flops as compute
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline.runtime import Runtime, autocast
from clearnets.training.schedule_free import ExactScheduleFree

PLAIN = "sparse, plain autograd"
LEAST_SECONDS = 0.5
"""Of processor time per run and alternative."""


def plain_encode(
    x_ND: Tensor, W_LD: Tensor, b_L: Tensor, *, k: int, selection: str
) -> tuple[Tensor, Tensor]:
    """Encode with nothing but torch's own derivatives."""
    del selection
    pre_NKG = torch.nn.functional.linear(x_ND, W_LD, b_L).unflatten(1, (k, -1))
    acts_NK, within_NK = pre_NKG.relu().max(dim=-1)
    return acts_NK, within_NK + torch.arange(k, device=x_ND.device) * pre_NKG.shape[-1]


def plain_decode(acts_NK: Tensor, indices_NK: Tensor, W_LD: Tensor) -> Tensor:
    """Decode with nothing but torch's own derivatives."""
    return (W_LD[indices_NK] * acts_NK.unsqueeze(-1)).sum(1)


def stepper(
    config: settings.Config, mlp: settings.Mlp, tokens_BS: Tensor, *, plain: bool = False
) -> Callable[[], None]:
    """Return a training step of a new model."""
    assert isinstance(config.model, settings.GPTNeoX)
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
    model.to(tokens_BS.device).train()  # pyright: ignore[reportArgumentType]
    params = [*model.parameters()]
    optimizer = ExactScheduleFree(params, lr=0.01)
    optimizer.train()
    plainly = {"encode": plain_encode, "decode": plain_decode}

    def step() -> None:
        with mock.patch.multiple(sparse_ops, **plainly) if plain else nullcontext():
            with autocast(tokens_BS.device, config.train.precision):
                loss = model(input_ids=tokens_BS, labels=tokens_BS).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(params, config.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def by_clock(call: Callable[[], object]) -> float:
    """Return the seconds until the GPU has finished the work of `call`."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def product(device: torch.device, precision: settings.Precision) -> tuple[Callable[[], None], int]:
    """Return a large matrix product, done a few times, and its FLOPs."""
    size, times = (8192, 10) if device.type == "cuda" else (1024, 20)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    matrix = torch.ones(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(matrix, matrix)

    return multiply, 2 * size**3 * times


def repeated(call: Callable[[], None], seconds: Callable[..., float]) -> tuple[Callable, int]:
    """Return a call that repeats this one until it takes long enough to be timed, and how often."""
    call()
    times = max(1, round(LEAST_SECONDS / seconds(call)))
    return lambda: [call() for _ in range(times)], times


def measure(config: settings.Config, device: torch.device, runs: int) -> list[str]:
    """Return the rows of the table for one width."""
    seconds = by_clock if device.type == "cuda" else processor_seconds
    shape = (config.train.batch_size, config.data.ctx_len)
    generator = torch.Generator().manual_seed(0)
    tokens_BS = torch.randint(3, config.data.vocab_size, shape, generator=generator).to(device)
    steps = {
        "dense": stepper(config, "dense", tokens_BS),
        "sparse": stepper(config, "sparse", tokens_BS),
        PLAIN: stepper(config, "sparse", tokens_BS, plain=True),
    }
    calls, counts = {}, {}
    for name, step in steps.items():
        calls[name], counts[name] = repeated(step, seconds)
    calls["product"], product_flops = product(device, config.train.precision)
    times = in_turns(calls, runs, seconds)
    each = {name: [spent / counts[name] for spent in times[name]] for name in steps}
    rows = []
    for name in steps:
        mlp = "dense" if name == "dense" else "sparse"
        flops = compute.model(budget.architecture(config, mlp)).training * tokens_BS.numel()
        # FLOPs per second over those of the product.
        needed = [product * flops / product_flops for product in times["product"]]
        cells = (
            str(config.model.hidden_size),
            name,
            f"{sorted(each[name])[runs // 2] * 1e3:,.0f}",
            ratios(each[name], each["dense"]),
            ratios(each[name], each["sparse"]),
            ratios(needed, each[name]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=get_args(settings.Precision), default="float32")
    for name in ("expansion", "k", "batch-size"):
        parser.add_argument(f"--{name}", type=int, help="instead of the value in --params")
    args = parser.parse_args()

    device = Runtime(args.device, 1).torch_device()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    over = {
        "model": {name: vars(args)[name] for name in ("expansion", "k") if vars(args)[name]},
        "train": {"precision": args.precision},
    }
    if args.batch_size:
        over["train"]["batch_size"] = args.batch_size
    print(f"{where}; {args.precision}, one thread, {args.runs} runs; median (least–largest)\n")
    print("| width | model | ms a step | × dense | × sparse | arithmetic |")
    print("|---:|---|---:|---:|---:|---:|")
    for width in args.widths:
        over["model"]["hidden_size"] = width
        config = settings.parse(settings.overlay(settings.read_yaml(args.params), over), "options")
        print("\n".join(measure(config, device, args.runs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
