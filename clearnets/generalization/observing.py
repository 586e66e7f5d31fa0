"""All metrics of the checkpoints of a run.

Coders are trained on what a checkpoint's modules give on training data; latents and activations are
then measured on test data. What is read off predictions (margins, sharpness, mixup) is measured on
training data, as those who want to know how a network generalizes have nothing else.

Shapes: N predictions, C classes, M positions, D width, L latents, K active latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from clearnets.coders import objective
from clearnets.config import CheckpointCoders
from clearnets.generalization import coders, complexity, metrics
from clearnets.generalization.tasks import Batch, Run, Task
from clearnets.latents.hooks import capture
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder

# Relative size of the moves of weights under which sharpness is the rise of the loss.
SHARPNESS = 0.1
DRAWS = 2
PAIRS = 50
"""Pairs of each class whose midpoints are classified (mixup)."""
WHOLE = ""
"""Stands for the hookpoint where a metric is of the whole model."""


@dataclass(frozen=True)
class Measure:
    """One metric of one checkpoint."""

    step: int
    hookpoint: str
    metric: str
    value: float | None
    """None where there is none, such as the fvu of a module that gives a constant."""


@dataclass(frozen=True)
class _Latents:
    """The latents of a module at one checkpoint."""

    directions_LD: Tensor
    measured: dict[str, float]
    coder: SparseCoder | None


def observe(
    task: Task, run: Run, folder: Path, settings: CheckpointCoders, *, device: torch.device
) -> Iterator[list[Measure]]:
    """The metrics of a run, a list for each of its checkpoints in the order of their steps."""
    initial: dict[str, np.ndarray] = {}
    before: dict[str, _Latents] = {}
    progress = task.progress(run, folder)
    for step in task.checkpoints(run, folder):
        model = task.model(run, folder, step).to(device).requires_grad_(False)
        weights = {name: w.detach().cpu().numpy() for name, w in model.named_parameters()}
        initial = initial or weights
        own = {
            **weight_metrics(weights, initial),
            **_predictions(task, model, run, device),
            **progress.get(step, {}),
        }
        found = [_measure(step, WHOLE, name, value) for name, value in own.items()]
        read = _read(task, model, run, device)
        for point, (train, test) in read.items():
            latents = _latents(point, train, test, model, settings, run, before.get(point))
            stability = (
                metrics.matched_cosine(
                    latents.directions_LD.cpu().numpy(), before[point].directions_LD.cpu().numpy()
                )
                if point in before
                else float("nan")
            )
            values = {**latents.measured, "stability": stability}
            found += [_measure(step, point, name, value) for name, value in values.items()]
            before[point] = latents
        yield found


def _measure(step: int, hookpoint: str, metric: str, value: float) -> Measure:
    return Measure(step, hookpoint, metric, float(value) if isfinite(value) else None)


def weight_metrics(
    weights: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Norm of all weights; ranks and largest singular value of each matrix and of its change since
    the first checkpoint, means over the matrices."""
    found: dict[str, list[float]] = {}
    for name, weight in weights.items():
        for kind, start in (("weight", None), ("change", initial[name])):
            for matrix, begun in _matrices(weight, start):
                values_S = metrics.singular_values(matrix, begun)
                of_matrix = {
                    "effective_rank": metrics.effective_rank(values_S),
                    "stable_rank": metrics.stable_rank(values_S),
                    "spectral_norm": float(values_S[0]),
                }
                for metric, value in of_matrix.items():
                    found.setdefault(f"{kind}_{metric}", []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {"parameter_norm": metrics.parameter_norm(weights.values()), **means}


def _matrices(
    weight: np.ndarray, start: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Two-dimensional pieces of a weight: none of a bias."""
    squeezed = weight.reshape([size for size in weight.shape if size > 1])
    if squeezed.ndim > 1:
        yield squeezed, None if start is None else start.reshape(squeezed.shape)


def _predictions(task: Task, model: nn.Module, run: Run, device: torch.device) -> dict[str, float]:
    """Margins, sharpness and, of models that read numbers and not tokens, the measure of PGDL."""
    batches = [_on(batch, device) for batch in task.batches(run, "train")]
    labels_N = torch.cat([batch.labels_N for batch in batches])
    with torch.no_grad():
        logits_NC = torch.cat([task.logits(model, batch) for batch in batches])
    rng = torch.Generator().manual_seed(seed_for(run.seed, "sharpness"))

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the training data with other weights."""
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
    return {**found, **_pgdl(task, model, run, batches)} if _mixable(batches) else found


def _mixable(batches: Sequence[Batch]) -> bool:
    """Midpoints exist of pictures, not of tokens."""
    return batches[0].inputs.is_floating_point()


class _replaced:
    """Other values for a model's weights inside, in place."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._pairs = [(own, weights[name]) for name, own in model.named_parameters()]

    def __enter__(self) -> None:
        self._old = [own.detach().clone() for own, _ in self._pairs]
        for own, new in self._pairs:
            own.copy_(new)

    def __exit__(self, *error: object) -> None:
        for (own, _), old in zip(self._pairs, self._old):
            own.copy_(old)


def _pgdl(task: Task, model: nn.Module, run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """The winners' measure of PGDL on the first module that is read, and its two factors."""
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


@dataclass(frozen=True)
class _Reading:
    """What a module gives on a split, and its own latents where it has some."""

    acts_MD: Tensor
    codes_MK: tuple[Tensor, Tensor] | None


def _read(
    task: Task, model: nn.Module, run: Run, device: torch.device
) -> dict[str, tuple[_Reading, _Reading]]:
    """By hookpoint, readings of the train and of the test split."""
    points, native = task.hookpoints(model), task.native(model)
    by_split = []
    for split in ("train", "test"):
        acts: dict[str, list[Tensor]] = {point: [] for point in points}
        codes: dict[str, list[tuple[Tensor, Tensor]]] = {point: [] for point in native}
        with torch.no_grad(), capture(model, [*points, *native.values()]) as seen:
            for batch in task.batches(run, split):
                batch = _on(batch, device)
                task.logits(model, batch)
                for point in points:
                    acts[point].append(batch.activations(seen[point]).float())
                for point, name in native.items():
                    values, indices = seen[name]
                    codes[point].append((batch.activations(values), batch.activations(indices)))
        by_split.append(
            {
                point: _Reading(
                    torch.cat(acts[point]),
                    _joined(codes[point]) if point in codes else None,
                )
                for point in points
            }
        )
    train, test = by_split
    return {point: (train[point], test[point]) for point in points}


def _joined(codes: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    values, indices = zip(*codes)
    return torch.cat(values), torch.cat(indices)


def _latents(
    point: str,
    train: _Reading,
    test: _Reading,
    model: nn.Module,
    settings: CheckpointCoders,
    run: Run,
    before: _Latents | None,
) -> _Latents:
    """Metrics of a module's own latents, or of those of an SAE that is trained on it."""
    spread = metrics.Latents(test.acts_MD.shape[1])
    spread.add(test.acts_MD.cpu().numpy())
    of_acts = {
        name: value
        for name, value in spread.summary().items()
        if name.startswith("norm_") or name == "variance_trace"
    }
    if test.codes_MK is not None:
        values_MK, indices_MK = test.codes_MK
        directions_LD = _decoder_of(model, point)
        coder, of_coder = None, {}
    else:
        old = before.coder if before is not None else None
        coder = coders.fit(train.acts_MD, settings, name=point, seed=run.seed, before=old)
        made = objective.reconstruct(coder, test.acts_MD)
        values_MK, indices_MK = made.acts_Nk, made.indices_Nk
        assert coder.W_dec is not None
        directions_LD = coder.W_dec
        reconstruction = metrics.Reconstruction(test.acts_MD.shape[1])
        reconstruction.add(test.acts_MD.cpu().numpy(), made.output_ND.cpu().numpy())
        of_coder = {"fvu": reconstruction.fvu()}
    sparsity = metrics.Latents(len(directions_LD))
    sparsity.add_sparse(values_MK.cpu().numpy(), indices_MK.cpu().numpy())
    of_latents = {name: value for name, value in sparsity.summary().items() if name not in of_acts}
    return _Latents(directions_LD, {**of_coder, **of_latents, **of_acts}, coder)


def _decoder_of(model: nn.Module, point: str) -> Tensor:
    """What each latent of a sparse feedforward writes, (L, D)."""
    base: Any = getattr(model, "base_model", model)
    decoder = base.get_submodule(point).decoder
    rows_LW = decoder.weight.detach().flatten(0, -2)
    # The low-rank kind writes through a projection.
    up = getattr(decoder, "up", None)
    return rows_LW if up is None else up(rows_LW)


def _on(batch: Batch, device: torch.device) -> Batch:
    counted = None if batch.counted_BS is None else batch.counted_BS.to(device)
    return Batch(batch.inputs.to(device), batch.labels_N.to(device), counted)
