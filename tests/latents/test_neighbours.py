"""Neighbours of a latent, and windows of theirs, against plain loops; and delphi's, which err."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from clearnets import UserError
from clearnets.latents import neighbours
from clearnets.latents.examples import activity, windows_of
from clearnets.latents.store import LayerCache

ROWS, CTX, SIZE, LATENTS = 30, 32, 8, 12


def cache_of(acts_LRS: np.ndarray) -> LayerCache:
    latent, row, position = np.nonzero(acts_LRS)
    counts = np.bincount(latent, minlength=len(acts_LRS))
    return LayerCache(
        num_latents=len(acts_LRS),
        latent=latent.astype(np.int32),
        row=row.astype(np.int32),
        position=position.astype(np.int32),
        act=acts_LRS[latent, row, position].astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


@pytest.fixture(scope="module")
def made():
    """Acts, cache, windows: latent 1 follows latent 0, latent 2 is its twin, 3 is dead."""
    rng = np.random.default_rng(0)
    acts = rng.random((LATENTS, ROWS, CTX)) * (rng.random((LATENTS, ROWS, CTX)) < 0.03)
    acts[1] = np.where(rng.random((ROWS, CTX)) < 0.7, acts[0], acts[1])
    acts[2] = acts[0] * 2
    acts[3] = 0
    counted = np.ones((ROWS, CTX), dtype=bool)
    counted[:, 0] = False
    return acts, counted, cache_of(acts), windows_of(counted, size=SIZE)


@pytest.mark.parametrize("latent", [0, 1, 3, 7])
def test_co_occurrence_is_jaccards_index(made, latent):
    acts, counted, cache, windows = made
    live = [set(zip(*np.nonzero((acts[i] > 0) & counted))) for i in range(LATENTS)]
    expected = [
        len(live[latent] & one) / len(live[latent] | one) if live[latent] | one else 0.0
        for one in live
    ]
    found = neighbours.jaccard(cache, latent, windows)
    assert found == pytest.approx(expected)


def test_cosine_and_the_order_of_neighbours():
    weight_LD = np.random.default_rng(1).normal(size=(LATENTS, 5)).astype(np.float32)
    weight_LD[4] = 0  # a latent without weights is near to none
    found = neighbours.cosine(weight_LD, 2)
    for i in range(LATENTS):
        a, b = weight_LD[2], weight_LD[i]
        expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) if i != 4 else 0
        assert found[i] == pytest.approx(expected, abs=1e-6)
    order = sorted((i for i in range(LATENTS) if i != 2 and found[i] > 0), key=lambda i: -found[i])
    assert neighbours.nearest(found, 2).tolist() == order[: neighbours.MOST]
    assert neighbours.nearest(found, 2, 3).tolist() == order[:3]


@pytest.mark.parametrize("count", [5, 17, 10_000])
def test_windows_of_neighbours_are_silent_ones_and_all_different(made, count):
    acts, counted, cache, windows = made
    found = activity(cache, 5, windows)
    near = np.array([0, 2, 1, 3, 8])
    drawn = neighbours.windows_near(cache, near, found, windows, count)
    expected: list[int] = []
    for neighbour in near:
        peak = windows.cut(acts[neighbour].astype(np.float32) * counted).max(axis=1)
        order = [w for w in np.argsort(-peak, kind="stable").tolist() if peak[w] > 0]
        free = [w for w in order if w not in found.active_A and w not in expected]
        expected += free[: neighbours.PER_NEIGHBOUR]
    assert drawn.tolist() == expected[:count]
    assert not set(drawn) & set(found.active_A)


def test_weights_are_read_from_sparsifys_format(tmp_path):
    encoder, decoder = (np.random.default_rng(i).normal(size=(6, 4)) for i in range(2))
    arrays = {"encoder.weight": encoder.astype(np.float32), "W_dec": decoder.astype(np.float32)}
    save_file(arrays, tmp_path / "sae.safetensors")
    assert neighbours.weights(tmp_path, "encoder") == pytest.approx(encoder)
    assert neighbours.weights(tmp_path, "decoder") == pytest.approx(decoder)
    (tmp_path / "sae.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not readable"):
        neighbours.weights(tmp_path, "decoder")


def test_delphis_neighbours_take_a_twin_for_the_latent_itself_and_repeat_windows(made, monkeypatch):
    pytest.importorskip("delphi", reason="the extra `delphi` is not installed")
    import torch
    from delphi.latents import constructors
    from delphi.latents.latents import ActivationData, Latent, LatentRecord
    from delphi.latents.neighbours import NeighbourCalculator

    from clearnets.autointerp.llm import delphi_adapter  # noqa: F401

    acts, _, cache, windows = made
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    # Rows of weights that are twice the same: whichever of the two comes first is left out.
    weight = np.random.default_rng(1).normal(size=(LATENTS, 5)).astype(np.float32)
    weight[[2, 6, 9]] = weight[0]
    encoder = SimpleNamespace(weight=torch.nn.Parameter(torch.tensor(weight)))
    theirs = NeighbourCalculator(autoencoder=SimpleNamespace(encoder=encoder))  # pyright: ignore
    theirs.populate_neighbour_cache("encoder_similarity")
    lists = {i: [index for _, index in near] for i, near in theirs.neighbour_cache.items()}
    assert any(i in lists[i] for i in (0, 2, 6, 9)), "a latent is its own neighbour"
    for i in (0, 2, 6, 9):
        assert i not in neighbours.nearest(neighbours.cosine(weight, i), i)

    # Two neighbours that are active in the same windows give these windows twice.
    record = LatentRecord(Latent("layer", 5))
    record.set_neighbours([(0.9, 0), (0.8, 2)])
    everything = {}
    for latent in (0, 2):
        row, position = np.nonzero(acts[latent])
        locations = torch.tensor(np.stack([row, position, np.full_like(row, latent)], axis=1))
        everything[latent] = ActivationData(locations, torch.tensor(acts[latent][row, position]))
    silent = torch.ones(ROWS * CTX // SIZE, dtype=torch.bool)
    silent[activity(cache, 5, windows).active_A] = False
    examples = constructors.neighbour_non_activation_windows(
        record,
        silent,
        torch.arange(ROWS * CTX).reshape(ROWS, CTX),
        everything,
        SIZE,
        15,
        SimpleNamespace(batch_decode=lambda tokens: []),  # pyright: ignore
    )
    first = [int(example.tokens[0]) for example in examples]
    assert len(first) == 20, "15 were asked for"
    assert len(set(first)) == 10
    drawn = neighbours.windows_near(
        cache, np.array([0, 2]), activity(cache, 5, windows), windows, 15
    )
    assert len(set(drawn)) == len(drawn) == 15
