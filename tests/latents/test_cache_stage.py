"""The stage on a tiny pipeline: every family, its metrics, and nothing done twice."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch

from clearnets import UserError
from clearnets.data.tokens import open_tokens
from clearnets.families import FAMILIES
from clearnets.latents import readers
from clearnets.latents.hooks import capture
from clearnets.latents.readers import open_reader
from clearnets.latents.store import load_layer
from clearnets.models.loading import load
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import manifest_hash, read_json
from clearnets.pipeline.runtime import Runtime, seed_for
from clearnets.stages import cache

RUNTIME = Runtime(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def dense_rows(family: str, split: str) -> dict[str, np.ndarray]:
    """Rounded, masked activations (rows, ctx, latents), batch by batch as the stage runs them."""
    store = open_tokens(paths.data())
    tokens_RS = np.asarray(store.split(split))
    reader = open_reader(family, tiny.SEED, k=tiny.K)
    shape = (*tokens_RS.shape, reader.num_latents)
    dense = {point: np.zeros(shape, np.float32) for point in reader.hookpoints}
    size = tiny.config().cache.batch_size
    for start in range(0, len(tokens_RS), size):
        batch_BS = tokens_RS[start : start + size]
        latents = reader(torch.from_numpy(batch_BS.astype(np.int64)))
        for point, (acts_BSK, indices_BSK) in latents.items():
            half_BSK = acts_BSK.numpy().astype(np.float16).astype(np.float32)
            part_BSL = dense[point][start : start + size]
            # An index with value 0 may also be active in another place.
            for k, indices_BS in enumerate(indices_BSK.unbind(-1)):
                at = (*np.indices(indices_BS.shape), indices_BS.numpy())
                part_BSL[at] = np.maximum(part_BSL[at], half_BSK[..., k])
    uncounted_RS = (tokens_RS < 3) | (np.arange(tokens_RS.shape[1]) == 0)
    for rows_RSL in dense.values():
        rows_RSL[uncounted_RS] = 0
    return dense


def test_every_family_equals_its_direct_forward_rounded_to_float16():
    tiny.make_all()
    config = tiny.config()
    for family in FAMILIES:
        cache.run(config, runtime=RUNTIME, families=[family])
        metrics = read_json(paths.metrics(f"cache-{family}"))["seed-0"]
        for split in ("explain", "score", "concept_fit", "concept_test"):
            unit = paths.cache(family, tiny.SEED, split)
            tokens_RS = np.asarray(open_tokens(paths.data()).split(split))
            counted = int((tokens_RS[:, 1:] >= 3).sum())
            assert metrics[split]["tokens"] == counted
            for point, expected_RSL in dense_rows(family, split).items():
                layer = load_layer(unit, point)
                got_RSL = np.zeros_like(expected_RSL)
                got_RSL[layer.row, layer.position, layer.latent] = layer.act
                np.testing.assert_array_equal(got_RSL, expected_RSL)
                active_RSL = expected_RSL > 0
                l0 = active_RSL.sum() / counted
                assert metrics[split]["l0"][point] == pytest.approx(l0, abs=1e-6)
                ever = active_RSL.any(axis=(0, 1)).mean()
                assert metrics[split]["ever_active"][point] == pytest.approx(ever, abs=1e-6)


def test_random_directions_are_centred_and_chosen_like_native_latents():
    tiny.make_all()
    config = tiny.config()
    cache.run(config, runtime=RUNTIME, families=["native"])
    store = open_tokens(paths.data())
    model = load(paths.checkpoint("sparse", tiny.SEED, 7))
    rows_RS = np.asarray(store.split("train")[: config.cache.batch_size])
    group = tiny.LATENTS // tiny.K
    seen = []
    for layer in range(tiny.LAYERS):
        point = f"layers.{layer}.mlp"

        def inputs(tokens_RS, point=point) -> np.ndarray:
            with torch.no_grad(), capture(model, [point], inputs=True) as found:
                model(torch.from_numpy(np.asarray(tokens_RS).astype(np.int64)))
            return found[point][0].numpy()

        generator = torch.Generator().manual_seed(seed_for(tiny.SEED, "directions", point))
        shape = (tiny.LATENTS, tiny.HIDDEN)
        weight_LD = torch.randn(shape, generator=generator).numpy() / tiny.HIDDEN**0.5
        centre_D = inputs(rows_RS)[store.counted(rows_RS)].mean(axis=0)
        tokens_RS = np.asarray(store.split("concept_test"))
        pre_RSL = (inputs(tokens_RS) - centre_D) @ weight_LD.T
        grouped = pre_RSL.reshape(*tokens_RS.shape, tiny.K, group)
        highest = (grouped == grouped.max(axis=-1, keepdims=True)).reshape(pre_RSL.shape)
        expected_RSL = np.where(highest & (pre_RSL > 0), pre_RSL, 0)
        expected_RSL[~store.counted(tokens_RS)] = 0
        cached = load_layer(paths.directions("native", tiny.SEED, "concept_test"), point)
        got_RSL = np.zeros_like(expected_RSL)
        got_RSL[cached.row, cached.position, cached.latent] = cached.act
        np.testing.assert_allclose(got_RSL, expected_RSL, atol=2e-3)
        seen.append(got_RSL > 0)
    assert (seen[0] != seen[1]).any()
    for split in ("explain", "score"):
        assert not paths.directions("native", tiny.SEED, split).exists()


def test_a_corpus_without_labels_is_cached_on_two_splits():
    values = tiny.config().model_dump(mode="json")
    values["data"]["corpus"] = {"kind": "local", "path": "own.txt"}
    bare = type(tiny.config()).model_validate(values, strict=False)
    for family in ("native", "sae"):
        assert [unit.out.name for unit in cache.units(bare, family=family)] == ["explain", "score"]


def test_a_fresh_cache_is_left_alone_and_a_changed_coder_makes_it_stale():
    tiny.make_all()
    config = tiny.config()
    cache.run(config, runtime=RUNTIME, families=["sae"])
    unit = paths.cache("sae", tiny.SEED, "explain")
    before = (unit / "manifest.json").stat().st_mtime_ns, manifest_hash(unit)
    cache.run(config, runtime=RUNTIME, families=["sae"])
    assert ((unit / "manifest.json").stat().st_mtime_ns, manifest_hash(unit)) == before
    planned, *_ = cache.units(config, family="sae")
    assert planned.fresh()
    manifest = paths.coders("sae", tiny.SEED) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"stage"', ' "stage"'))
    assert not planned.fresh()


def cached(families: list[str]) -> dict[str, bytes]:
    """Return the bytes of all that was cached for families, and their metrics."""
    folders = [paths.cache(family, tiny.SEED, "explain").parents[1] for family in families]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [paths.metrics(f"cache-{family}") for family in families]
    return {path.as_posix(): path.read_bytes() for path in files}


DENSE = ["transcoder", "sae", "skip-transcoder", "neurons"]


@pytest.mark.parametrize("families", [DENSE, ["native"]])
def test_in_one_pass_and_on_two_processes_the_bytes_are_the_same(families, monkeypatch):
    tiny.make_all()
    config = tiny.config()
    for family in families:
        cache.run(config, runtime=RUNTIME, families=[family])
    alone = cached(families)
    shutil.rmtree(paths.ARTIFACTS / "cache")
    passes = count_passes(monkeypatch)
    cache.run(config, runtime=RUNTIME, families=families)
    assert cached(families) == alone
    # Ten rows in four batches of each split; the null of native latents takes one more.
    assert len(passes) == 4 * 3 + (families == ["native"])
    shutil.rmtree(paths.ARTIFACTS / "cache")
    monkeypatch.setattr(processes, "cores", lambda: 2)
    cache.run(config, runtime=RUNTIME, families=families)
    assert cached(families) == alone
    assert len(passes) == 4 * 3 + (families == ["native"]), "the workers did it"


def count_passes(monkeypatch) -> list[None]:
    """Return a list to which every forward pass of a model adds."""
    passes: list[None] = []
    forward = readers._forward

    def counted(*args) -> None:
        passes.append(None)
        forward(*args)

    monkeypatch.setattr(readers, "_forward", counted)
    return passes


def test_what_one_family_lacks_is_read_without_the_others(monkeypatch):
    tiny.make_all()
    config = tiny.config()
    cache.run(config, runtime=RUNTIME, families=["sae", "neurons"])
    whole = cached(["sae", "neurons"])
    shutil.rmtree(paths.cache("sae", tiny.SEED, "score"))
    read = []
    latents = readers.CoderReader.latents
    monkeypatch.setattr(
        readers.CoderReader, "latents", lambda *args: read.append(args[1]) or latents(*args)
    )
    monkeypatch.setattr(readers.NeuronReader, "latents", None)
    cache.run(config, runtime=RUNTIME, families=["sae", "neurons"])
    assert cached(["sae", "neurons"]) == whole
    assert len(read) == 3 * tiny.LAYERS


def test_a_missing_input_names_its_stage():
    tiny.make_data()
    tiny.make_models()
    with pytest.raises(UserError, match="dvc repro sparsify@transcoder"):
        cache.run(tiny.config(), runtime=RUNTIME, families=["transcoder"])
    assert not paths.metrics("cache-transcoder").exists()


def test_delphi_config_names_a_tokenizer_that_transformers_loads():
    from transformers import AutoTokenizer

    tiny.make_data()
    cache.run(tiny.config(), runtime=RUNTIME, families=["token-unigram"])
    folder = paths.cache("token-unigram", tiny.SEED, "score") / "tokens"
    named = read_json(folder / "config.json")
    tokenizer = AutoTokenizer.from_pretrained(named["model_name"], local_files_only=True)
    assert tokenizer.decode(tokenizer("the fox")["input_ids"]) == "the fox"
    assert named["cache_ctx_len"] == tiny.CTX
