"""Sampling of latents and windows against the pinned delphi's."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from importlib.metadata import requires

import numpy as np
import pytest
import synthetic_text as synthetic
import torch

from clearnets.autointerp import sampling
from clearnets.autointerp.delphi import sampler
from clearnets.latents.examples import activity, choose, windows_of

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from clearnets.autointerp.llm import delphi_adapter  # noqa: F401  isort: skip
from delphi import __main__ as delphi_main  # isort: skip
from delphi.config import CacheConfig, ConstructorConfig, RunConfig, SamplerConfig  # isort: skip
from delphi.latents import samplers  # isort: skip
from delphi.latents.latents import (  # isort: skip
    ActivatingExample,
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


def test_delphi_takes_the_first_latents_and_we_draw_from_all(tmp_path, monkeypatch):
    chosen = []

    async def process(*arguments):
        chosen.append(arguments[-1])

    monkeypatch.chdir(tmp_path)
    artifacts = ["layers.0.mlp"], {}, None, False
    monkeypatch.setattr(delphi_main, "load_artifacts", lambda settings: artifacts)
    monkeypatch.setattr(delphi_main.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(delphi_main, "process_cache", process)
    settings = RunConfig(
        model="none", sparse_model="none", max_latents=5, verbose=False,
        hookpoints=["layers.0.mlp"], cache_cfg=CacheConfig(), constructor_cfg=ConstructorConfig(),
        sampler_cfg=SamplerConfig(),
    )  # fmt: skip
    asyncio.run(delphi_main.run(settings))
    assert chosen[0].tolist() == [0, 1, 2, 3, 4]
    # Every latent of 20 comes up as often: 500 times in 2,000 draws of 5, give or take 4 sd.
    count = Counter(latent for seed in range(2000) for latent in sampling.draw(20, 5, seed))
    assert len(count) == 20
    assert all(abs(times - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75) for times in count.values())


def test_what_delphi_declares():
    """vLLM and bitsandbytes, which a machine without a GPU cannot use, and not all it imports.
    plotly and pandas it does name, for drawing only."""
    always, sometimes = set(), set()
    for text in requires("eai-delphi") or []:
        name = re.match(r"[\w-]+", text)
        assert name
        (sometimes if "extra ==" in text else always).add(name[0])
    assert {"vllm", "bitsandbytes"} <= always
    assert not {"tiktoken", "httpx", "scikit-learn"} & (always | sometimes)
    assert {"plotly", "pandas"} <= sometimes - always
    ours = [text for text in requires("clearnets") or [] if "extra ==" not in text]
    assert not [text for text in ours if text.startswith(("eai-delphi", "vllm", "bitsandbytes"))]
