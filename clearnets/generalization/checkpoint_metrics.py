"""Every metric of a run's checkpoints: of weights, predictions, activations and latents.

SAEs are trained on the activations of training data; latents and activations are then measured on
test data. Margins, sharpness and mixup accuracy are of training data, as a prediction of the
generalization gap has nothing else.

Shapes: N predictions, C classes, M positions, D width, L latents, K active latents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from clearnets.coders import objective
from clearnets.config import CheckpointCoders
from clearnets.config.generalize import Reads
from clearnets.generalization import coders, complexity, metrics, spectra
from clearnets.generalization.tasks import Batch, Run, Task
from clearnets.latents.hooks import capture
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder

# Sharpness is the rise of the loss when weights move by this share of their size.
SHARPNESS = 0.1
DRAWS = 2
PAIRS = 50
"""Pairs of each class whose midpoints are classified (mixup)."""
_SPLITS = ("train", "test")
WHOLE_MODEL = ""
"""The hookpoint of a metric that is of the whole model."""


@dataclass(frozen=True)
class _Activations:
    """The activations of a module on a split, and the sparse code where it has latents itself."""

    acts_MD: Tensor
    code_MK: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class _Latents:
    """The latents of a module at one checkpoint; no coder where they are the module's own."""

    directions_LD: Tensor
    metrics: dict[str, float]
    coder: SparseCoder | None


def measure_run(
    task: Task, run: Run, folder: Path, settings: CheckpointCoders, *, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Yield a row for each checkpoint of a run, in the order of steps, and each hookpoint of it.

    The keys are `step`, `hookpoint` (`WHOLE_MODEL` comes first) and the metrics' names. A metric is
    None where it has no value, such as the fvu of a module whose output is constant.
    """
    initial: dict[str, np.ndarray] = {}
    previous: dict[str, _Latents] = {}
    progress = task.progress(run, folder)
    steps = task.checkpoints(run, folder)
    for part, step in enumerate(steps):
        model = task.model(run, folder, step).to(device).requires_grad_(False)
        weights = {name: w.detach().cpu().numpy() for name, w in model.named_parameters()}
        initial = initial or weights
        of_model = {
            **weight_metrics(weights, initial),
            **_prediction_metrics(task, model, run, device),
            **progress.get(step, {}),
        }
        yield _row(step, WHOLE_MODEL, of_model)
        train, test = (
            _activations(task, model, run, split, device, settings.reads) for split in _SPLITS
        )
        for point in test:
            before = previous.get(point)
            seen_MD = train[point].acts_MD
            if settings.data == "own" and test[point].code_MK is None:
                seen_MD = coders.own_part(seen_MD, part, len(steps), name=point, seed=run.seed)
            latents = _latents(point, seen_MD, test[point], model, settings, run, before)
            yield _row(step, point, {**latents.metrics, "stability": _stability(latents, before)})
            previous[point] = latents


def _row(step: int, hookpoint: str, values: Mapping[str, float]) -> dict[str, Any]:
    found = {k: float(value) if math.isfinite(value) else None for k, value in values.items()}
    return {"step": step, "hookpoint": hookpoint, **found}


def _stability(latents: _Latents, before: _Latents | None) -> float:
    if before is None:
        return math.nan
    pair = (one.directions_LD.cpu().numpy() for one in (latents, before))
    return metrics.matched_cosine(*pair)


def weight_metrics(
    weights: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the norm of all weights and the ranks and largest singular values of matrices.

    Ranks and singular values are means over the matrices and, with the prefix `change_`, over their
    changes since `initial`; see `spectra.of_matrices`.
    """
    values: dict[str, list[float]] = {}
    for _, kind, values_S in spectra.of_matrices(weights, initial):
        of_matrix = {
            "effective_rank": metrics.effective_rank(values_S),
            "stable_rank": metrics.stable_rank(values_S),
            "spectral_norm": float(values_S[0]),
        }
        for metric, value in of_matrix.items():
            values.setdefault(f"{kind}_{metric}", []).append(value)
    means = {name: float(np.mean(of_matrices)) for name, of_matrices in values.items()}
    return {"parameter_norm": metrics.parameter_norm(weights.values()), **means}


def _prediction_metrics(
    task: Task, model: nn.Module, run: Run, device: torch.device
) -> dict[str, float]:
    """Return margins, sharpness and, where inputs can be mixed, the PGDL measure."""
    batches = [_on(batch, device) for batch in task.batches(run, "train")]
    labels_N = torch.cat([batch.labels_N for batch in batches])
    with torch.no_grad():
        logits_NC = torch.cat([task.logits(model, batch) for batch in batches])
    rng = torch.Generator().manual_seed(seed_for(run.seed, "sharpness"))

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the training data with other weights."""
        with torch.no_grad(), _replaced(model, weights):
            sums = [
                nn.functional.cross_entropy(
                    task.logits(model, batch).double(), batch.labels_N, reduction="sum"
                )
                for batch in batches
            ]
        return torch.stack(sums).sum() / len(labels_N)

    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    found = {
        **complexity.margin_quantiles(logits_NC, labels_N),
        "sharpness": complexity.average_sharpness(
            loss, weights, size=SHARPNESS, draws=DRAWS, rng=rng
        ),
    }
    # Pictures have midpoints, tokens have none.
    if batches[0].inputs.is_floating_point():
        found |= _pgdl(task, model, run, batches)
    return found


@contextmanager
def _replaced(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model's weights other values, in place, inside the block."""
    own = dict(model.named_parameters())
    old = {name: weight.detach().clone() for name, weight in own.items()}
    for name, weight in own.items():
        weight.copy_(weights[name])
    try:
        yield
    finally:
        for name, weight in own.items():
            weight.copy_(old[name])


def _pgdl(task: Task, model: nn.Module, run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the measure that won PGDL, on the first hookpoint, and its two factors."""
    inputs_N = torch.cat([batch.inputs for batch in batches])
    labels_N = torch.cat([batch.labels_N for batch in batches])
    first = task.hookpoints(model)[0]
    features = []
    with torch.no_grad(), capture(model, [first]) as seen:
        for batch in batches:
            task.logits(model, batch)
            output: Any = seen[first]
            given: Any = output[0] if isinstance(output, tuple) else output
            features.append(given.flatten(1))
    separation = complexity.davies_bouldin(torch.cat(features), labels_N)
    mixup = complexity.mixup_accuracy(
        lambda inputs: task.logits(model, Batch(inputs, labels_N)),
        inputs_N,
        labels_N,
        pairs=PAIRS,
        rng=torch.Generator().manual_seed(seed_for(run.seed, "mixup")),
    )
    return {
        "davies_bouldin": separation,
        "mixup_accuracy": mixup,
        "pgdl": complexity.pgdl(separation, mixup),
    }


def blocks(points: Sequence[str]) -> list[str]:
    """Return the blocks whose parts the hookpoints are, by their numbers in names.

    Without numbers the model is one block, which begins with the first hookpoint.

    >>> blocks(["layers.0.attention.o_proj", "layers.0.mlp", "layers.1.mlp"])
    ['layers.0', 'layers.1']
    >>> blocks(["attention", "mlp"])
    ['attention']
    """
    found = (re.match(r".*\.\d+(?=\.)", point) for point in points)
    return list(dict.fromkeys(at[0] for at in found if at)) or list(points[:1])


def _activations(
    task: Task, model: nn.Module, run: Run, split: str, device: torch.device, reads: Reads
) -> dict[str, _Activations]:
    """Return the outputs of every hookpoint on a split, or the inputs of every block, by name."""
    points, native = task.hookpoints(model), task.native(model)
    if reads == "input":
        points, native = blocks(points), {}
    acts: dict[str, list[Tensor]] = {point: [] for point in points}
    codes: dict[str, list[tuple[Tensor, Tensor]]] = {point: [] for point in native}
    with torch.no_grad(), capture(model, [*points, *native.values()], inputs=True) as seen:
        for batch in task.batches(run, split):
            batch = _on(batch, device)
            task.logits(model, batch)
            for point in points:
                read, output = seen[point]
                given = _channels_last(read) if reads == "input" else output
                acts[point].append(batch.activations(given).float())
            for point, name in native.items():
                values, indices = seen[name][1]
                codes[point].append((batch.activations(values), batch.activations(indices)))
    return {
        point: _Activations(
            torch.cat(acts[point]), _joined(codes[point]) if point in codes else None
        )
        for point in points
    }


def _channels_last(read: Tensor) -> Tensor:
    """Return a block's input with the width as last axis: that of ConvNeXtV2 is (B, D, H, W)."""
    return read.movedim(1, -1) if read.ndim == 4 else read


def _joined(codes: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    values, indices = zip(*codes)
    return torch.cat(values), torch.cat(indices)


def _latents(
    point: str,
    train_MD: Tensor,
    test: _Activations,
    model: nn.Module,
    settings: CheckpointCoders,
    run: Run,
    before: _Latents | None,
) -> _Latents:
    """Return a module's own latents, or those of an SAE trained on it, and their metrics."""
    acts_MD = test.acts_MD.cpu().numpy()
    coder, of_coder = None, {}
    if test.code_MK is not None:
        values_MK, indices_MK = test.code_MK
        directions_LD = _decoder_of(model, point)
    else:
        old = before.coder if before is not None else None
        coder = coders.fit(train_MD, settings, name=point, seed=run.seed, before=old)
        made = objective.reconstruct(coder, test.acts_MD)
        values_MK, indices_MK = made.acts_Nk, made.indices_Nk
        assert coder.W_dec is not None
        directions_LD = coder.W_dec
        of_coder = {"fvu": metrics.fvu(acts_MD, made.output_ND.cpu().numpy())}
    of_latents = metrics.latent_metrics(
        values_MK.cpu().numpy(), indices_MK.cpu().numpy(), num_latents=len(directions_LD)
    )
    found = {**of_coder, **of_latents, **metrics.activation_metrics(acts_MD)}
    return _Latents(directions_LD, found, coder)


def _decoder_of(model: nn.Module, point: str) -> Tensor:
    """Return the decoder directions (L, D) of a feedforward that is sparse by construction."""
    base: Any = getattr(model, "base_model", model)
    decoder = base.get_submodule(point).decoder
    rows_LW = decoder.weight.detach().flatten(0, -2)
    # The low-rank kind writes through a projection.
    up = getattr(decoder, "up", None)
    return rows_LW if up is None else up(rows_LW)


def _on(batch: Batch, device: torch.device) -> Batch:
    counted = None if batch.counted_BS is None else batch.counted_BS.to(device)
    return Batch(batch.inputs.to(device), batch.labels_N.to(device), counted)
