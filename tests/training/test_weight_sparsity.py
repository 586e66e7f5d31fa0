"""Models whose weights are mostly zeros: which weights are kept, and when."""

import numpy as np
import pytest
import tiny_run
import torch

from clearnets.models.loading import load
from clearnets.training import weight_sparsity


def test_the_share_falls_in_the_first_half():
    shares = [weight_sparsity.kept_share(0.2, step, 10) for step in range(11)]
    assert shares == pytest.approx([1, 0.84, 0.68, 0.52, 0.36, *[0.2] * 6])


class Optimizer:
    """Of an optimizer only its iterate is touched."""

    def __init__(self, model):
        self.state = {weight: {"z": torch.ones_like(weight)} for weight in model.parameters()}


def test_the_largest_are_kept():
    model = tiny_run.new_model("dense_weight_sparse")
    optimizer = Optimizer(model)
    before = {name: weight.detach().clone().numpy() for name, weight in model.named_parameters()}
    weight_sparsity.keep_largest(model, optimizer, 9, 10)
    for name, weight in model.named_parameters():
        old, expected = before[name], before[name]
        if ".layers." in name and old.ndim == 2:
            kept = round(model.config.weight_share * old.size)
            expected = np.where(np.abs(old) >= np.sort(np.abs(old), axis=None)[-kept], old, 0)
            assert np.count_nonzero(expected) == kept
            iterate = optimizer.state[weight]["z"].numpy()
            np.testing.assert_array_equal(iterate == 0, expected == 0)
        np.testing.assert_array_equal(weight.detach().numpy(), expected)


def test_other_models_are_left_alone():
    model = tiny_run.new_model("dense")
    before = [weight.detach().clone() for weight in model.parameters()]
    weight_sparsity.keep_largest(model, Optimizer(model), 9, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_averaged_weights_are_as_sparse_and_training_learns(tmp_path):
    model = tiny_run.new_model("dense_weight_sparse")
    summary = tiny_run.run(tmp_path, model=model)
    losses = tiny_run.losses_of(tmp_path)[:, 1]
    assert losses[-1] < losses[0]
    steps = summary["steps"]
    folders = sorted((tmp_path / "out" / "checkpoints").iterdir())
    for folder in (folders[len(folders) // 3], folders[-1]):
        step = int(folder.name.removeprefix("step-"))
        share = weight_sparsity.kept_share(model.config.weight_share, step, steps)
        for weight in weight_sparsity.matrices(load(folder)):
            assert int(weight.count_nonzero()) <= round(share * weight.numel())
            assert int(weight.count_nonzero()) > 0.8 * share * weight.numel()
