"""Training of small coders on the tiny pair, to its end or up to a step; importable by a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tiny_pair import BOS, CTX, EOS, VOCAB, build_models, packed_rows, tiny_config

from clearnets.coders import library, training
from clearnets.coders.batches import make_batch
from clearnets.data.tokens import TokenStore
from clearnets.families import FAMILIES

STORE = TokenStore(Path(), VOCAB, CTX, 0, BOS, EOS, ())
NAMES = ("layers.0.mlp", "layers.1.mlp")
STEPS, ROWS, PER_READ = 12, 4, 3
REVIVAL = {"bias_step": 0.1, "silent_steps": 2}


def batches(which: range):
    rows = packed_rows(STEPS * ROWS, 0)
    return make_batch(STORE, rows[which.start * ROWS : which.stop * ROWS], "cpu")


def batch(step: int):
    return batches(range(step, step + 1))


def new_coders(family: str, seed: int = 0):
    return {
        name: library.new_coder(
            name, **FAMILIES[family].coder_kind, d_in=16, num_latents=64, k=4, seed=seed
        )
        for name in NAMES
    }


def trained(
    family: str, state: Path, *, steps: int = STEPS, optimizer="adam", on_step=None, **pieces
):
    """Coders after a run of some steps; `test_coder_training` does the same with a kill."""
    coders = new_coders(family)
    (report,) = training.train(
        build_models(tiny_config())["dense"],
        [training.Chain(coders, state / "coders.pt")],
        batches,
        training.Schedule(optimizer, 5e-3, 2, steps, **REVIVAL | pieces),
        per_read=PER_READ,
        on_step=on_step or (lambda step: None),
        save_every=5,
    )
    return coders, report


def tensors(coders) -> dict[str, torch.Tensor]:
    return {f"{n}.{p}": t for n, coder in coders.items() for p, t in coder.state_dict().items()}


def assert_same_bits(left, right):
    left, right = tensors(left), tensors(right)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


class Stopped(Exception):
    """A run was interrupted."""


def stop_at(last: int) -> Callable[[int], None]:
    """Return what interrupts a run within a step, as its `on_step`."""

    def on_step(step: int) -> None:
        if step == last:
            raise Stopped

    return on_step
