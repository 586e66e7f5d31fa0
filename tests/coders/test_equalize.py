"""The stage `equalize` on a tiny project."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_pair import BOS, EOS, PAD

from clearnets import UserError, config
from clearnets.coders.library import coder_class
from clearnets.families import FAMILIES
from clearnets.models.loading import load
from clearnets.models.matching import checkpoint_of
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import equalize, sparsify

RUNTIME = Runtime("cpu", 1)
EARLY = "early-native"


def loss(*, spliced: bool) -> float:
    """Nats per token of the dense model, row by row, with sparsify's own coders by plain hooks."""
    model: Any = load(paths.checkpoint("dense", 0, 5))
    coders = coder_class().load_many(str(paths.coders("groupmax-transcoder", 0)), local=True)
    rows = np.load(paths.data() / "tokens" / "valid.npy").astype(np.int64)
    total = count = 0
    for row in torch.from_numpy(rows):
        counted = (row != BOS) & (row != EOS) & (row != PAD)
        counted[0] = False
        handles = []
        for layer, coder in zip(model.gpt_neox.layers, coders.values()) if spliced else ():

            def splice(
                _: Any, args: Any, out: Any, coder: Any = coder, counted: Any = counted
            ) -> Any:
                made = coder(args[0][0]).sae_out
                return torch.where(counted[:, None], made, out[0])[None]

            handles.append(layer.mlp.register_forward_hook(splice))
        with torch.no_grad():
            logs = model(input_ids=row[None]).logits[0].log_softmax(-1)
        for handle in handles:
            handle.remove()
        for position in range(1, len(row)):
            if row[position] not in (BOS, PAD):
                total -= logs[position - 1, row[position]].item()
                count += 1
    return total / count


def test_the_checkpoint_nearest_to_the_loss_with_coders_is_kept(project):
    sparsify.run(project, runtime=RUNTIME, families=["groupmax-transcoder"])
    lost = loss(spliced=True) - loss(spliced=False)
    assert lost > 0.01
    curve = paths.train("sparse", 0) / "curve.csv"
    rows = curve.read_text().splitlines()[1:]
    losses = {int(row.split(",")[0]): float(row.split(",")[3]) for row in rows}
    equalize.run(project, runtime=RUNTIME, family=EARLY)
    told = json.loads((paths.equalize(EARLY, 0) / "equal.json").read_text())
    assert told["spliced_loss"] == pytest.approx(3.8 + lost, abs=1e-4)
    nearest = min(losses, key=lambda one: abs(losses[one] - told["spliced_loss"]))
    assert told["step"] == nearest
    assert told["difference"] == pytest.approx(losses[nearest] - told["spliced_loss"])
    kept = load_file(checkpoint_of(FAMILIES[EARLY], 0) / "model.safetensors")
    there = load_file(paths.checkpoint("sparse", 0, nearest) / "model.safetensors")
    assert all(torch.equal(kept[name], there[name]) for name in there)


def test_what_it_lacks_is_told(project):
    with pytest.raises(UserError, match="is missing; run"):
        checkpoint_of(FAMILIES[EARLY], 0)
    values = project.model_dump(mode="json")
    values["families"] = [EARLY, "random-native"]
    with pytest.raises(UserError, match="is chosen by the loss with groupmax-transcoder: add it"):
        config.parse(values, "test")
