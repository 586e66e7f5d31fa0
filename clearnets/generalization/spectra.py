"""Singular values of weight matrices, and of their change since the first checkpoint.

Shape: S singular values of a matrix, largest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clearnets.generalization import metrics
from clearnets.generalization.tasks import Run, Task


def of_matrices(
    weights: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str, metrics.Floats]]:
    """Yield each matrix's name, `weight` or `change`, and its singular values (S,).

    A change is that since `initial`. A weight's dimensions of size 1 do not count; biases are left
    out.
    """
    for name, weight in weights.items():
        matrix = weight.squeeze().astype(np.float64)
        if matrix.ndim >= 2:
            start = initial[name].reshape(matrix.shape)
            yield name, "weight", metrics.singular_values(matrix)
            yield name, "change", metrics.singular_values(matrix - start)


def table(task: Task, run: Run, folder: Path, *, count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each checkpoint of a run, each of its weight matrices, and `of` which of the
    two kinds it is: the weight itself, or its change since the first checkpoint.

    `norm` is the Frobenius norm, `share` what the listed singular values (`sigma_1`, ...) have of
    its square. A measure that has no value, such as the rank of no change, is None.

    Args:
        count: singular values that are listed; a smaller matrix has fewer.
    """
    initial: dict[str, np.ndarray] = {}
    for step in task.checkpoints(run, folder):
        model = task.model(run, folder, step)
        weights = {name: w.detach().numpy() for name, w in model.named_parameters()}
        initial = initial or weights
        for name, kind, values_S in of_matrices(weights, initial):
            found = _measures(values_S, count)
            finite = {k: value if math.isfinite(value) else None for k, value in found.items()}
            yield {"step": step, "weight": name, "of": kind, **finite}


def _measures(values_S: metrics.Floats, count: int) -> dict[str, float]:
    squares_S = np.square(values_S)
    total = float(squares_S.sum())
    listed = {f"sigma_{i}": float(value) for i, value in enumerate(values_S[:count], 1)}
    return {
        "effective_rank": metrics.effective_rank(values_S),
        "stable_rank": metrics.stable_rank(values_S),
        "norm": total**0.5,
        "share": float(squares_S[:count].sum()) / total if total else math.nan,
        **listed,
    }
