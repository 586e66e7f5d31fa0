"""SAEs of checkpoints: fresh ones, and those fine-tuned from the checkpoint before."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from sparsify import SparseCoder

from clearnets import UserError, config
from clearnets.config import CheckpointCoders, Grokking
from clearnets.generalization import coders
from clearnets.generalization.checkpoint_metrics import measure_run
from clearnets.generalization.grokking import GrokkingTask
from clearnets.latents.hooks import capture
from clearnets.pipeline.progress import Progress

PARAMS = Path(__file__).parents[2] / "params.yaml"


def settings(**over) -> CheckpointCoders:
    base = {
        "expansion": 2,
        "k": 3,
        "steps": 40,
        "batch_size": 32,
        "learning_rate": 0.01,
        "warmup_steps": 4,
        "finetune": True,
    }
    return CheckpointCoders.model_validate(base | over)


def fit(acts_MD: torch.Tensor, before: SparseCoder | None = None, **over) -> SparseCoder:
    return coders.fit(acts_MD, settings(**over), name="mlp", seed=0, before=before)


def acts(seed: int) -> torch.Tensor:
    """More directions than dimensions, few of them active."""
    rng = torch.Generator().manual_seed(seed)
    directions_LD = torch.randn(12, 8, generator=rng)
    return (torch.rand(300, 12, generator=rng) * (torch.rand(300, 12, generator=rng) < 0.2)) @ (
        directions_LD
    )


def weights(coder: SparseCoder) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in coder.state_dict().items()}


def unexplained(coder: SparseCoder, acts_MD: torch.Tensor) -> float:
    """Over the variance, from sparsify's own forward pass."""
    with torch.no_grad():
        error = acts_MD - coder(acts_MD).sae_out
    return float(error.square().sum() / (acts_MD - acts_MD.mean(0)).square().sum())


def test_a_finetuned_coder_begins_where_the_one_before_ended():
    before = fit(acts(0))
    kept = weights(before)
    # A rate that moves nothing: what is left is where it began.
    still = fit(acts(1), before, learning_rate=1e-12, steps=1, warmup_steps=0)
    torch.testing.assert_close(weights(still), kept)
    moved = fit(acts(1), before)
    assert not torch.allclose(moved.encoder.weight, still.encoder.weight)
    # The one before is left alone.
    torch.testing.assert_close(weights(before), kept, rtol=0, atol=0)


def test_without_finetuning_the_coder_before_changes_nothing():
    fresh, other = fit(acts(1), finetune=False), fit(acts(1), fit(acts(0)), finetune=False)
    torch.testing.assert_close(weights(fresh), weights(other), rtol=0, atol=0)
    # Nor is there one before the first checkpoint.
    torch.testing.assert_close(weights(fresh), weights(fit(acts(1))), rtol=0, atol=0)


def test_a_little_finetuning_on_the_same_activations_beats_as_little_from_new_weights():
    before = fit(acts(0), steps=200)
    few = {"steps": 5, "warmup_steps": 1, "learning_rate": 1e-3}
    errors = [unexplained(fit(acts(0), start, **few), acts(0)) for start in (before, None)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize(("count", "parts"), [(40, 4), (41, 4), (3, 3)])
def test_checkpoints_divide_the_positions_among_them(count, parts):
    acts_MD = torch.arange(2 * count).view(count, 2)

    def divided(seed: int) -> list[list[int]]:
        options = {"name": "mlp", "seed": seed}
        return [
            (coders.own_part(acts_MD, part, parts, **options)[:, 0] // 2).tolist()
            for part in range(parts)
        ]

    found = divided(0)
    # Disjoint, of one size, and all there are.
    assert sorted(row for rows in found for row in rows) == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert divided(0) == found
    if count > 3:
        assert divided(1) != found
        # No stretch of the data.
        assert max(found[0]) - min(found[0]) > count / 2


def test_fewer_positions_than_checkpoints_are_refused_in_a_line():
    with pytest.raises(UserError, match="mlp has 3 positions for 4 checkpoints: observe more"):
        coders.own_part(torch.zeros(3, 2), 0, 4, name="mlp", seed=0)


@pytest.mark.parametrize(
    ("finetune", "data"), [(True, "shared"), (False, "shared"), (False, "own")]
)
def test_a_run_is_observed_with_a_chain_of_coders(tmp_path, finetune, data):
    """fvu of every checkpoint as when its coders are made here, each from the one before."""
    values = config.read_yaml(PARAMS)["generalize"]["grokking"]
    small: dict[str, object] = dict.fromkeys(("hidden_size", "mlp_size", "num_latents"), 8)
    small |= {"seeds": (0,), "variants": ("dense",), "modulus": 7, "num_heads": 2, "k": 4}
    small |= {"steps": 40, "checkpoints": 4, "betas": (0.9, 0.98), "learning_rate": 0.02}
    task = GrokkingTask(Grokking.model_validate(values | small))
    (run,) = task.runs()
    task.train(tmp_path, device=torch.device("cpu"), bar=Progress("", None, "", quiet=True))
    own = settings(finetune=finetune, warmup_steps=0, data=data)
    rows = {
        (row["step"], row["hookpoint"]): row
        for row in measure_run(task, run, tmp_path, own, device=torch.device("cpu"))
    }
    before: dict[str, SparseCoder] = {}
    steps = task.checkpoints(run, tmp_path)
    for part, step in enumerate(steps):
        model = task.model(run, tmp_path, step).requires_grad_(False)
        seen = {}
        for split in ("train", "test"):
            (batch,) = task.batches(run, split)
            with capture(model, ["attention", "mlp"]) as outputs:
                model(batch.inputs)
            seen[split] = {point: outputs[point].clone() for point in ("attention", "mlp")}
        for point in ("attention", "mlp"):
            start = copy.deepcopy(before.get(point)) if finetune else None
            acts_MD = seen["train"][point]
            if data == "own":
                acts_MD = coders.own_part(acts_MD, part, len(steps), name=point, seed=0)
            coder = coders.fit(acts_MD, own, name=point, seed=0, before=start)
            before[point] = coder
            found = rows[step, point]["fvu"]
            assert found == pytest.approx(unexplained(coder, seen["test"][point]), rel=1e-4)
