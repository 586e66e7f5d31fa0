"""The published choice of windows against the pinned delphi's own sampler and constructors."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_text as synthetic
import torch

from clearnets.autointerp.delphi import sampler
from clearnets.latents.examples import activity, choose, windows_of

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from clearnets.autointerp.llm import delphi_adapter  # noqa: F401  isort: skip
from delphi.config import ConstructorConfig, SamplerConfig  # isort: skip
from delphi.latents import constructors, samplers  # isort: skip
from delphi.latents.latents import (  # isort: skip
    ActivatingExample,
    ActivationData,
    Latent,
    LatentRecord,
)


class Tokenizer:
    """Decodes to nothing that matters here."""

    def batch_decode(self, tokens):
        return [str(int(token)) for token in tokens]


def record(count: int) -> LatentRecord:
    """Examples whose first token is their place, the strongest first."""
    examples = [
        ActivatingExample(torch.tensor([place, 0]), torch.tensor([float(count - place), 0.0]))
        for place in range(count)
    ]
    return LatentRecord(Latent("layer", 0), examples=examples)


def places(examples) -> list[int]:
    return [int(example.tokens[0]) for example in examples]


@pytest.mark.parametrize("how", ["top", "random", "quantiles", "mix"])
@pytest.mark.parametrize("count", [25, 60, 200, 1000])
def test_windows_are_those_of_delphis_sampler(how, count):
    config = SamplerConfig(
        n_examples_train=40, n_examples_test=50, n_quantiles=10, train_type=how, ratio_top=0.2
    )
    theirs = samplers.sampler(record(count), config, Tokenizer())  # pyright: ignore
    pool = np.arange(count)
    train = sampler.train(pool, 40, how=how, quantiles=10, ratio_top=0.2)
    test = sampler.test(pool, 50, quantiles=10)
    assert train.tolist() == places(theirs.train)
    assert test.tolist() == places(theirs.test)


@pytest.mark.parametrize("count", [200, 500, 2000, 20_000])
def test_delphi_scores_on_what_the_explainer_saw(count):
    theirs = samplers.sampler(record(count), SamplerConfig(), Tokenizer())  # pyright: ignore
    shared = set(places(theirs.train)) & set(places(theirs.test))
    assert len(theirs.test) == 50
    assert 10 <= len(shared) <= 20
    pool = np.arange(count)
    train = sampler.train(pool, 40, how="quantiles", quantiles=10, ratio_top=0.2)
    assert len(np.intersect1d(train, sampler.test(pool, 50, quantiles=10))) == len(shared)


SIZE, CTX, ROWS = 8, 32, 60


def acts_of(seed: int, share: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((ROWS, CTX)) * (rng.random((ROWS, CTX)) < share)


def data_of(acts: np.ndarray) -> ActivationData:
    row, position = np.nonzero(acts)
    locations = torch.tensor(np.stack([row, position, np.zeros_like(row)], axis=1))
    return ActivationData(locations, torch.tensor(acts[row, position]))


def built(acts: np.ndarray, **config) -> LatentRecord:
    settings = ConstructorConfig(example_ctx_len=SIZE, min_examples=1, **config)
    one = constructors.constructor(
        LatentRecord(Latent("layer", 0)),
        data_of(acts),
        settings,
        torch.arange(ROWS * CTX).reshape(ROWS, CTX),
        Tokenizer(),  # pyright: ignore[reportArgumentType]
    )
    assert one is not None
    return one


def test_delphis_option_to_centre_windows_is_inverted():
    acts = acts_of(0)
    told = built(acts, center_examples=True, n_non_activating=0)
    not_told = built(acts, center_examples=False, n_non_activating=0)
    stands = {int(example.activations.argmax()) for example in not_told.examples}
    assert stands == {SIZE - SIZE // 4}, "not told to centre, it does"
    # Told to, it gives the aligned windows, wherever the maximum stands.
    assert len({int(example.activations.argmax()) for example in told.examples}) > 2
    assert {int(example.tokens[0]) % SIZE for example in told.examples} == {0}


def test_choices_by_strength():
    windows = windows_of(np.ones((ROWS, CTX), dtype=bool), size=SIZE)
    found = activity(synthetic.entries(acts_of(3, 0.2)), 0, windows)
    peak = dict(zip(found.active_A.tolist(), found.peak_A.tolist()))
    order = sorted(peak, key=lambda window: -peak[window])
    assert found.strongest_first.tolist() == order
    rng = np.random.default_rng(0)
    assert set(choose(found, 30, how="top", rng=rng)) == set(order[:30])
    mixed = choose(found, 30, how="mix", quantiles=4, ratio_top=0.2, rng=rng).tolist()
    assert set(order[:6]) <= set(mixed)
    parts = np.array_split(np.array(order[6:])[::-1], 4)
    assert [np.isin(part, mixed).sum() for part in parts] == [6, 6, 6, 6]
    drawn = choose(found, 30, how="random", rng=rng)
    assert len(set(drawn)) == 30
    assert set(drawn) <= set(order)
    for how in ("top", "random", "quantiles", "mix"):
        assert set(choose(found, 10_000, how=how, rng=rng)) == set(order)
