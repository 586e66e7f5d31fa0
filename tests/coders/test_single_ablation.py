"""Ablations that share a forward pass, against one forward pass for each."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_bases
import tiny_pair
import torch

from clearnets.coders import feedforward, single_ablation
from clearnets.models.pretrained import KINDS


def alone(model, layer: int, tokens_S: np.ndarray, position: int, change_D: np.ndarray):
    """Log-probabilities behind `position` of a row by itself, with and without the change."""
    tokens_BS = torch.from_numpy(tokens_S[None].astype(np.int64))
    where_BS = torch.zeros(tokens_BS.shape, dtype=torch.bool)
    where_BS[0, position] = True
    change = torch.from_numpy(change_D)
    with torch.no_grad():
        clean = model(tokens_BS).logits
        with feedforward.replaced(model, {layer: lambda x_ND, y_ND: y_ND + change}, where_BS):
            changed = model(tokens_BS).logits
    return clean[0, position].log_softmax(-1), changed[0, position].log_softmax(-1)


def model_and_rows(kind: str):
    """A tiny model of the package's own or of a kind that can be a base, and rows for it."""
    if kind in ("dense", "sparse"):
        return tiny_pair.build_models(tiny_pair.tiny_config())[kind], tiny_pair.padded_rows(21, 1)
    # Rows of full length: copies stand behind all positions that the model has.
    rng = np.random.default_rng(1)
    return tiny_bases.make(kind, vocab_size=99, eos=0, bos=0), rng.integers(
        99, size=(19, tiny_bases.POSITIONS), dtype=np.uint16
    )


@pytest.mark.parametrize("kind", ["dense", "sparse", *sorted(set(KINDS) - {"gpt_neox"})])
@pytest.mark.parametrize("layer", [0, -1])
def test_each_copy_predicts_what_its_change_alone_makes(kind, layer):
    model, tokens_RS = model_and_rows(kind)
    layer = layer % model.config.num_hidden_layers
    highest = 4 if kind in ("dense", "sparse") else tokens_RS.shape[1]
    rng = np.random.default_rng(0)
    count, width = 60, model.config.hidden_size
    copies = single_ablation.Copies(
        rng.integers(len(tokens_RS), size=count),
        rng.integers(highest, size=count),  # Some of them twice.
        rng.normal(size=(count, width)).astype(np.float32),
    )
    seen = []
    for part in single_ablation.predict(model, tokens_RS, {layer: copies}):
        for number, clean_V, changed_V in zip(part.number_Q, part.clean_QV, part.changed_QV):
            expected = alone(
                model,
                layer,
                tokens_RS[copies.row_Q[number]],
                copies.position_Q[number],
                copies.change_QD[number],
            )
            torch.testing.assert_close(clean_V, expected[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(changed_V, expected[1], rtol=1e-4, atol=1e-4)
            assert not torch.allclose(changed_V, clean_V, atol=1e-2)
        seen += list(part.number_Q)
    assert sorted(seen) == list(range(count))
