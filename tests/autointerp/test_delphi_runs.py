"""Faults of the pinned delphi in what it caches, chooses and keeps, and their absence from ours.

Those of its windows are in `tests/latents`, those of its prompts in `test_language_models`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from importlib.metadata import requires

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from clearnets.autointerp import sampling
from clearnets.pipeline.artifacts import write_json

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from clearnets.autointerp.llm import delphi_adapter  # noqa: F401  isort: skip
from delphi import __main__ as theirs  # isort: skip
from delphi.config import CacheConfig, ConstructorConfig, RunConfig, SamplerConfig  # isort: skip
from delphi.latents import LatentCache, LatentDataset  # isort: skip

POINT = "layers.0.mlp"
ROWS, CTX, SIZE = 60, 32, 8


def test_delphi_takes_the_first_latents_and_we_draw_from_all(tmp_path, monkeypatch):
    chosen = []

    async def process(*told):
        chosen.append(told[-1])

    monkeypatch.chdir(tmp_path)
    artifacts = [POINT], {}, None, False
    monkeypatch.setattr(theirs, "load_artifacts", lambda settings: artifacts)
    monkeypatch.setattr(theirs.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(theirs, "process_cache", process)
    settings = RunConfig(
        model="none", sparse_model="none", max_latents=5, verbose=False, hookpoints=[POINT],
        cache_cfg=CacheConfig(), constructor_cfg=ConstructorConfig(), sampler_cfg=SamplerConfig(),
    )  # fmt: skip
    asyncio.run(theirs.run(settings))
    assert chosen[0].tolist() == [0, 1, 2, 3, 4]
    # Every latent of 20 comes up as often: 500 times in 2,000 draws of 5, give or take 4 sd.
    count = Counter(latent for seed in range(2000) for latent in sampling.draw(20, 5, seed))
    assert len(count) == 20
    assert all(abs(times - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75) for times in count.values())


class Decoder:
    """A tokenizer that decodes a token at a time."""

    def batch_decode(self, tokens):
        return [str(int(token)) for token in tokens]


def test_latents_with_few_examples_vanish_from_delphis_dataset(tmp_path):
    """And so do dead ones, without a word. Ours have a record with the reason each: see
    `test_every_latent_has_a_record_and_a_reason`."""
    rng = np.random.default_rng(0)
    acts = rng.random((4, ROWS, CTX)) * (rng.random((4, ROWS, CTX)) < 0.05)
    acts[2, 3:] = 0  # Rare.
    acts[3] = 0  # Dead.
    latent, row, position = np.nonzero(acts)
    (tmp_path / POINT).mkdir()
    save_file(
        {
            "locations": np.stack([row, position, latent], axis=1).astype(np.uint16),
            "activations": acts[latent, row, position].astype(np.float16),
            "tokens": np.arange(ROWS * CTX).reshape(ROWS, CTX).astype(np.uint16),
        },
        tmp_path / POINT / "0_3.safetensors",
    )
    write_json(tmp_path / POINT / "config.json", {"ctx_len": CTX, "model_name": ""})
    dataset = LatentDataset(
        tmp_path,
        SamplerConfig(n_examples_train=10, n_examples_test=10, n_quantiles=5),
        ConstructorConfig(example_ctx_len=SIZE, min_examples=20, n_non_activating=5),
        tokenizer=Decoder(),  # pyright: ignore[reportArgumentType]
        modules=[POINT],
        latents={POINT: torch.arange(4)},
    )
    found = [record.latent.latent_index for record in dataset]  # pyright: ignore
    assert found == [0, 1]


def cached(latents_BSL: torch.Tensor, splits: int, folder) -> LatentCache:
    cache = LatentCache(None, {}, batch_size=4)  # pyright: ignore[reportArgumentType]
    tokens = torch.zeros(latents_BSL.shape[:2], dtype=torch.int64)
    cache.cache.add(latents_BSL, tokens, 0, POINT)
    cache.cache.save()
    cache.width = latents_BSL.shape[2]
    cache.save_splits(splits, folder)
    return cache


def test_delphis_cache_fails_where_a_split_has_no_active_latent(tmp_path):
    """Ours does not: see `test_a_split_without_active_latents_is_written_and_read`."""
    dense_BSL = torch.rand(2, 8, 6) + 0.1
    cached(dense_BSL, 3, tmp_path)
    assert len(list((tmp_path / POINT).iterdir())) == 3
    dense_BSL[:, :, 2:4] = 0
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        cached(dense_BSL, 3, tmp_path)


def test_delphis_cache_drops_a_partial_batch():
    """Ours does not: `test_the_cache_holds_what_a_direct_pass_gives`, whose batches do not divide
    the rows."""
    cache = LatentCache(None, {}, batch_size=4)  # pyright: ignore[reportArgumentType]
    batches = cache.load_token_batches(10 * CTX, torch.zeros(10, CTX))
    assert sum(len(batch) for batch in batches) == 8


def test_delphis_cache_cuts_all_hookpoints_by_the_width_of_the_first(tmp_path):
    """So the latents of a wider one are lost. Our readers have one width each, and say so."""
    cache = LatentCache(None, {}, batch_size=4)  # pyright: ignore[reportArgumentType]
    for point, width in ((POINT, 4), ("layers.1.mlp", 8)):
        tokens = torch.zeros(2, CTX, dtype=torch.int64)
        cache.cache.add(torch.ones(2, CTX, width), tokens, 0, point)
        cache.width = cache.width or width  # As `run` has it.
    cache.cache.save()
    cache.save_splits(2, tmp_path)
    files = {path.name for path in (tmp_path / "layers.1.mlp").iterdir()}
    assert files == {"0_1.safetensors", "2_3.safetensors"}


def test_delphi_scores_a_stopped_run_again_and_takes_an_empty_folder_for_a_cache(tmp_path):
    """Ours goes on: `test_a_stopped_run_goes_on_and_asks_nothing_twice`."""
    scores = tmp_path / "scores"
    (scores / "detection").mkdir(parents=True)
    (scores / "detection" / f"{POINT}_latent0.txt").write_text("[]")
    assert theirs.non_redundant_hookpoints([POINT], scores, overwrite=False) == [POINT]
    (tmp_path / "latents" / POINT).mkdir(parents=True)
    assert not theirs.non_redundant_hookpoints([POINT], tmp_path / "latents", overwrite=False)


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
