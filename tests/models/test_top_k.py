"""The k largest of each row, against torch's own."""

from __future__ import annotations

import pytest
import torch

from clearnets.models import top_k as module
from clearnets.models.top_k import top_k


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_k_largest(pre_NL: torch.Tensor, k: int) -> None:
    values_NK, indices_NK = top_k(pre_NL, k)
    expected_NK = pre_NL.topk(k, dim=-1).values
    assert torch.equal(values_NK.sort(dim=-1, descending=True).values, expected_NK)
    assert torch.equal(pre_NL.gather(1, indices_NK), values_NK)
    assert all(len(set(row)) == k for row in indices_NK.tolist())


@pytest.mark.parametrize(
    ("length", "k"), [(1024, 8), (4096, 32), (512, 1), (1024, 3), (96, 4), (64, 8), (40, 3), (8, 8)]
)
def test_the_k_largest(length, k):
    assert_k_largest(rows(50, length), k)


def test_the_k_largest_in_one_group():
    """All in the same column of groups, and neighbours: the groups' maxima say nothing of k."""
    pre_NL = rows(4, 1024)
    pre_NL[0, 5::64] += 100
    pre_NL[1, :8] += 100
    pre_NL[2, -8:] += 100
    assert_k_largest(pre_NL, 8)


@pytest.mark.parametrize("special", ["tie of maxima", "tie in a row", "infinite", "no rows"])
def test_ties_and_infinities(special):
    pre_NL = rows(0 if special == "no rows" else 20, 1024)
    if special == "tie of maxima":
        pre_NL[3] = 1.0
    elif special == "tie in a row":
        pre_NL[3] = pre_NL[3].clamp(max=1.0)
        pre_NL[3, :3] = 2.0
    elif special == "infinite":
        pre_NL[3, 7], pre_NL[4] = torch.inf, -torch.inf
    assert_k_largest(pre_NL, 8)


def test_groups_are_used_where_they_are_worth_it(monkeypatch):
    assert module._groups(1024, 8) == 64
    assert module._groups(16384, 32) == 512
    for length, k in ((1000, 100), (37, 4), (64, 64)):
        assert module._groups(length, k) == 0
    monkeypatch.setattr(torch.Tensor, "topk", None)
    top_k(rows(5, 1024), 8)
