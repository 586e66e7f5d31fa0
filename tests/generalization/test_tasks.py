"""Where checkpoints lie, and what a batch measures."""

from __future__ import annotations

import doctest
from itertools import pairwise

import torch

from clearnets.generalization import tasks
from clearnets.generalization.tasks import Batch


def test_examples_in_the_docstrings():
    assert doctest.testmod(tasks).failed == 0


def test_log_spaced_steps_keep_their_ratio_and_hold_both_ends():
    steps = tasks.spaced("log", 25_000, 20)
    assert steps[:2] == [0, 1]
    assert steps[-1] == 25_000
    late = [b / a for a, b in pairwise(steps[10:])]
    assert max(late) / min(late) < 1.02
    assert tasks.spaced("log", 4, 100) == [0, 1, 2, 3, 4]


def test_only_counted_positions_are_measured():
    acts_BSD = torch.arange(24.0).view(2, 3, 4)
    whole = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    assert whole.activations(acts_BSD).shape == (6, 4)
    counted_BS = torch.tensor([[False, True, False], [False, False, True]])
    last = Batch(whole.inputs, whole.labels_N, counted_BS)
    expected = torch.stack([acts_BSD[0, 1], acts_BSD[1, 2]])
    # Attention gives its weights, too.
    torch.testing.assert_close(last.activations((acts_BSD, None)), expected)
