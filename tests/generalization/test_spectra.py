"""Singular values of weights and of their change: of matrices that are made of known ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from clearnets.generalization import spectra
from clearnets.generalization.tasks import Run, Task


def rotation(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def matrix(values: Sequence[float], seed: int = 0) -> np.ndarray:
    """A matrix of 4 by 3 with these singular values, and directions that the seed determines."""
    diagonal = np.zeros((4, 3))
    np.fill_diagonal(diagonal, values)
    return rotation(4, seed) @ diagonal @ rotation(3, seed + 10)


class Given:
    """What is read of a task whose checkpoints have the given weights, the first at step 0."""

    def __init__(self, *weights: np.ndarray) -> None:
        self._weights = weights

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        return list(range(len(self._weights)))

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        model = nn.Linear(3, 4).double()
        model.weight.data = torch.from_numpy(self._weights[step])
        return model


def rows(*weights: np.ndarray, count: int) -> list[dict]:
    task = cast(Task, Given(*weights))
    return list(spectra.table(task, Run("a", 0), Path(), count=count))


def test_a_known_spectrum_is_found():
    start = matrix([3, 2, 1])
    found = rows(start, start + matrix([4, 4, 0], seed=5), count=2)
    # Biases are no matrices.
    assert [(row["step"], row["weight"], row["of"]) for row in found] == [
        (step, "weight", of) for step in (0, 1) for of in ("weight", "change")
    ]
    first, unchanged, _, change = found
    shares = np.array([3, 2, 1]) / 6
    expected = {
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "stable_rank": 14 / 9,
        "norm": 14**0.5,
        "share": 13 / 14,
        "sigma_1": 3,
        "sigma_2": 2,
    }
    assert {key: first[key] for key in list(first)[3:]} == pytest.approx(expected)
    expected = {"effective_rank": 2, "stable_rank": 2, "norm": 32**0.5, "share": 1}
    expected |= {"sigma_1": 4, "sigma_2": 4}
    assert {key: change[key] for key in list(change)[3:]} == pytest.approx(expected)
    # Of no change there is a size, but no rank.
    assert (unchanged["norm"], unchanged["sigma_1"]) == (0, 0)
    assert [unchanged[key] for key in ("effective_rank", "stable_rank", "share")] == [None] * 3


def test_no_more_values_are_listed_than_a_matrix_has():
    (row, _) = rows(matrix([3, 2, 1]), count=9)
    assert [key for key in row if key.startswith("sigma")] == ["sigma_1", "sigma_2", "sigma_3"]
    assert row["share"] == 1
