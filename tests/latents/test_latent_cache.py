"""The cache on disk against a dense computation, delphi's reader, kills and full ranges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from clearnets import UserError
from clearnets.data.tokens import TokenStore
from clearnets.latents.cache import Target, cache_split, sort_entries, write_mapped
from clearnets.latents.readers import LatentReader, Latents
from clearnets.latents.store import LayerCache, load_layer, ranges
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all


class Rows(TokenStore):
    """Tokens in memory."""

    def split(self, name: str) -> np.ndarray:
        return np.load(self.root / f"{name}.npy", mmap_mode="r")


def make_store(root: Path, tokens_RS: np.ndarray) -> Rows:
    np.save(root / "explain.npy", tokens_RS)
    ctx = tokens_RS.shape[1]
    return Rows(root, vocab_size=300, ctx_len=ctx, pad=0, bos=1, eos=2, concepts=())


def random_tokens(rows: int, ctx: int, seed: int = 0) -> np.ndarray:
    tokens_RS = np.random.default_rng(seed).integers(0, 300, (rows, ctx)).astype(np.uint16)
    tokens_RS[:, 0] = 1
    return tokens_RS


class Tabled(LatentReader):
    """Latents by a fixed table: those of a token depend on its id and position alone."""

    def __init__(self, acts_VSK: torch.Tensor, indices_VSK: torch.Tensor, num_latents: int) -> None:
        self.acts_VSK, self.indices_VSK = acts_VSK, indices_VSK
        self.num_latents = num_latents
        self.hookpoints = ("layers.0.mlp", "layers.1.mlp")

    def _read(self, input_ids_BS: torch.Tensor) -> Latents:
        position_S = torch.arange(input_ids_BS.shape[1])
        acts_BSK = self.acts_VSK[input_ids_BS, position_S]
        indices_BSK = self.indices_VSK[input_ids_BS, position_S]
        return {
            "layers.0.mlp": (acts_BSK, indices_BSK),
            "layers.1.mlp": (2 * acts_BSK, self.num_latents - 1 - indices_BSK),
        }


def tabled(ctx: int, num_latents: int, k: int, seed: int = 0) -> Tabled:
    generator = torch.Generator().manual_seed(seed)
    scores_VSL = torch.rand(300, ctx, num_latents, generator=generator)
    # About half of the values are zero: not active.
    acts_VSK = torch.randn(300, ctx, k, generator=generator).clamp(min=0)
    return Tabled(acts_VSK, scores_VSL.topk(k).indices, num_latents)


def build(
    store: Rows, reader: LatentReader, *, batch_size: int = 3, splits: int = 2, name: str = "sae"
) -> Path:
    """Cache the split `explain` as a unit in the current folder."""
    settings_ = {"batch_size": batch_size, "splits": splits}
    unit = Unit("cache", paths.cache(name, 0, "explain"), settings_, {})
    for _, work in build_all([unit]):
        cache_split(
            [Target(reader, work, {"model_name": "tokenizer"})],
            store,
            "explain",
            batch_size=batch_size,
            latent_splits=splits,
            label="test",
        )
    return unit.out


def dense(layer: LayerCache, shape: tuple[int, int]) -> np.ndarray:
    dense_RSL = np.zeros((*shape, layer.num_latents), np.float32)
    dense_RSL[layer.row, layer.position, layer.latent] = layer.act
    return dense_RSL


def naive(store: Rows, reader: LatentReader, point: str) -> np.ndarray:
    """Token by token, in plain Python: rounded to float16, masked, above zero."""
    tokens_RS = store.split("explain")
    dense_RSL = np.zeros((*tokens_RS.shape, reader.num_latents), np.float32)
    for row, tokens_S in enumerate(tokens_RS):
        acts_1SK, indices_1SK = reader(torch.tensor(tokens_S.astype(int))[None])[point]
        for position, token in enumerate(tokens_S):
            if position == 0 or token in (store.pad, store.bos, store.eos):
                continue
            for act, latent in zip(
                acts_1SK[0, position].tolist(), indices_1SK[0, position].tolist(), strict=True
            ):
                dense_RSL[row, position, latent] = max(0.0, float(np.float16(act)))
    return dense_RSL


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("batch_size", "splits"), [(1, 1), (3, 2), (7, 5), (100, 40)])
def test_the_cache_holds_what_a_direct_pass_gives(batch_size, splits, tmp_path):
    store = make_store(tmp_path, random_tokens(10, 9))
    reader = tabled(9, 23, 4)
    unit = build(store, reader, batch_size=batch_size, splits=splits)
    for point in reader.hookpoints:
        layer = load_layer(unit, point)
        assert layer.num_latents == 23
        keys = list(zip(layer.latent, layer.row, layer.position, strict=True))
        assert keys == sorted(set(keys))
        assert (layer.act > 0).all()
        np.testing.assert_array_equal(dense(layer, (10, 9)), naive(store, reader, point))
        for latent in range(23):
            part = layer.entries(latent)
            assert (layer.latent[part] == latent).all()
            assert part.stop - part.start == (layer.latent == latent).sum()


def test_neither_batches_nor_files_change_an_entry(tmp_path):
    store = make_store(tmp_path, random_tokens(11, 6))
    reader = tabled(6, 16, 3)
    layers = [
        load_layer(build(store, reader, batch_size=b, splits=s), "layers.1.mlp")
        for b, s in [(1, 4), (4, 1), (11, 3)]
    ]
    for other in layers[1:]:
        for name in ("latent", "row", "position", "act", "offsets"):
            np.testing.assert_array_equal(getattr(layers[0], name), getattr(other, name))


def test_zeros_are_not_active_nor_what_float16_makes_zero(tmp_path):
    store = make_store(tmp_path, np.array([[1, 5, 6, 7, 8]], np.uint16))
    acts_VSK = torch.zeros(300, 5, 1)
    acts_VSK[5:9, :, 0] = torch.tensor([0.0, 1e-8, 6e-8, 1.0])[:, None]
    reader = Tabled(acts_VSK, torch.zeros(300, 5, 1, dtype=torch.long), 4)
    layer = load_layer(build(store, reader, splits=4), "layers.0.mlp")
    assert layer.position.tolist() == [3, 4]
    assert layer.act.tolist() == [float(np.float16(6e-8)), 1.0]


@pytest.mark.parametrize("value", [65520.0, 1e6, float("inf"), float("nan")])
def test_an_overflow_is_refused_where_it_counts(value, tmp_path):
    store = make_store(tmp_path, np.array([[1, 5, 2]], np.uint16))
    acts_VSK = torch.ones(300, 3, 1)
    indices_VSK = torch.zeros(300, 3, 1, dtype=torch.long)
    acts_VSK[1] = acts_VSK[2] = value
    # bos and eos are not cached, so their values do not matter.
    layer = load_layer(build(store, Tabled(acts_VSK, indices_VSK, 2)), "layers.0.mlp")
    assert layer.position.tolist() == [1]
    acts_VSK[5] = value
    with pytest.raises(UserError, match=r"layers\.0\.mlp .*float16"):
        build(store, Tabled(acts_VSK, indices_VSK, 2), batch_size=9)


def test_a_split_without_active_latents_is_written_and_read(tmp_path):
    store = make_store(tmp_path, random_tokens(3, 4))
    reader = Tabled(torch.zeros(300, 4, 1), torch.zeros(300, 4, 1, dtype=torch.long), 8)
    layer = load_layer(build(store, reader), "layers.0.mlp")
    assert len(layer.latent) == 0
    assert layer.offsets.tolist() == [0] * 9


def test_more_rows_than_16_bits_hold(tmp_path):
    rows = (1 << 16) + 3
    tokens_RS = np.ones((rows, 2), np.uint16)
    tokens_RS[:, 1] = np.arange(rows) % 7 + 3
    store = make_store(tmp_path, tokens_RS)
    reader = Tabled(torch.ones(300, 2, 1), torch.arange(300).repeat(2, 1).T[..., None], 300)
    unit = build(store, reader, batch_size=10_000)
    layer = load_layer(unit, "layers.0.mlp")
    for latent in range(3, 10):
        row = layer.row[layer.entries(latent)]
        np.testing.assert_array_equal(row, np.flatnonzero(tokens_RS[:, 1] == latent))
    assert load_file(unit / "layers.0.mlp/0_149.safetensors")["locations"].dtype == np.uint32


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 12))
def test_ranges_cover_every_latent_once(num_latents, splits):
    covered = [i for first, last in ranges(num_latents, splits) for i in range(first, last + 1)]
    assert covered == list(range(num_latents))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_sorting_equals_a_loop(data):
    num_latents = data.draw(st.sampled_from([5, 70_000]))
    rows = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True),
                st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=2, max_size=2),
            ),
            min_size=1,
            max_size=20,
        )
    )
    token_N = np.arange(len(rows), dtype=np.uint32) * 3
    indices_NK = np.array([latents for latents, _ in rows]) * (num_latents // 5)
    half_NK = np.array([acts for _, acts in rows], np.float16)
    entries = sort_entries(token_N, half_NK, indices_NK, num_latents)
    expected = sorted(
        (latent, token, act)
        for token, latents, acts in zip(token_N, indices_NK, half_NK, strict=True)
        for latent, act in zip(latents, acts, strict=True)
        if act > 0
    )
    latent_E = np.repeat(np.arange(num_latents), entries.counts)
    assert list(zip(latent_E, entries.token, entries.act, strict=True)) == expected


def test_memory_does_not_grow_with_the_tokens(tmp_path):
    def peak(rows: int) -> int:
        store = make_store(tmp_path, random_tokens(rows, 32))
        tracemalloc.start()
        build(store, reader, batch_size=64, splits=1, name=f"n{rows}")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    reader = tabled(32, 64, 8)
    peak(64)  # Imports and caches are not counted.
    small, large = peak(256), peak(2048)
    assert large < 1.5 * small


def test_a_mapped_file_is_a_safetensors_file(tmp_path):
    values = {
        "a": np.arange(6, dtype=np.uint16).reshape(3, 2),
        "b": np.arange(3, dtype=np.uint32),
        "c": np.zeros((0,), np.float16),
    }
    shapes = {name: (value.dtype, value.shape) for name, value in values.items()}

    def fill(arrays):
        for name, value in values.items():
            arrays[name][...] = value

    write_mapped(tmp_path / "x.safetensors", shapes, fill)
    for name, value in load_file(tmp_path / "x.safetensors").items():
        assert value.dtype == values[name].dtype
        np.testing.assert_array_equal(value, values[name])


def test_delphi_reads_the_cache(tmp_path):
    pytest.importorskip("delphi", reason="the extra `delphi` is not installed")
    loader = pytest.importorskip("delphi.latents.loader", reason="delphi lacks a dependency")
    from delphi.config import ConstructorConfig, SamplerConfig

    store = make_store(tmp_path, random_tokens(12, 8))
    reader = tabled(8, 24, 3)
    # Latents 8 to 15, the second of three files, are never active.
    reader.acts_VSK[(reader.indices_VSK >= 8) & (reader.indices_VSK < 16)] = 0
    unit = build(store, reader, splits=3)
    points = list(reader.hookpoints)
    configs = SamplerConfig(), ConstructorConfig(min_examples=1)
    # The sampler's tokenizer is not needed to read activations.
    dataset = loader.LatentDataset(unit, *configs, tokenizer=object(), modules=points)
    np.testing.assert_array_equal(dataset.tokens, store.split("explain").astype(int))
    read = {point: np.zeros((12, 8, 24), np.float32) for point in points}
    for buffer in dataset.buffers:
        latents, locations, activations = buffer.load_data_per_latent()
        for latent, location, activation in zip(latents, locations, activations, strict=True):
            row, position, same = location.numpy().T
            assert (same == int(latent)).all()
            read[buffer.module_path][row, position, int(latent)] = activation.numpy()
    for point in points:
        np.testing.assert_array_equal(read[point], naive(store, reader, point))
    # A choice of latents that leaves the first file out still finds the tokens.
    chosen = {point: torch.tensor([17, 20]) for point in points}
    dataset = loader.LatentDataset(
        unit, *configs, tokenizer=object(), modules=points, latents=chosen
    )
    assert dataset.tokens is not None
    latents, _, _ = dataset.buffers[0].load_data_per_latent()
    assert latents.tolist() == [17, 20]


def cache_into(folder: Path, store: Rows, reader: LatentReader) -> dict[str, bytes]:
    """Cache in a work folder as a unit has it, and give the bytes of the result."""
    work = Work(folder / "out", folder / "state")
    for part in (work.out, work.state):
        part.mkdir(parents=True, exist_ok=True)
    options = {"batch_size": 3, "latent_splits": 2, "label": "test"}
    cache_split([Target(reader, work, {})], store, "explain", **options)
    files = (path for path in work.out.rglob("*") if path.is_file())
    return {path.relative_to(work.out).as_posix(): path.read_bytes() for path in files}


KILLED = """
import os, signal, sys
from pathlib import Path
import test_latent_cache as t
from clearnets.latents import cache
die_in, calls = sys.argv[1], int(sys.argv[2])
real = getattr(cache, die_in)
def dying(path, *args):
    global calls
    calls -= 1
    if calls == 0:
        path.with_name(f".{path.name}.part").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *args)
setattr(cache, die_in, dying)
store = t.Rows(Path("."), vocab_size=300, ctx_len=6, pad=0, bos=1, eos=2, concepts=())
t.cache_into(Path("killed"), store, t.tabled(6, 16, 3))
"""


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    store = make_store(tmp_path, random_tokens(20, 6))
    reader = tabled(6, 16, 3)

    def kill(function: str, call: int) -> None:
        command = [sys.executable, "-c", KILLED, function, str(call)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, check=False, env=environment, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    kill("write_bytes", 4)
    assert len(list(Path("killed/state").glob("[0-9]*.safetensors"))) == 3
    kill("write_mapped", 3)
    assert len(list(Path("killed/out").rglob("[0-9]*.safetensors"))) == 2
    straight = cache_into(Path("straight"), store, reader)
    assert len(straight) == 2 * 3 + 1
    monkeypatch.setattr(reader, "_read", None)  # All shards are whole: no forward pass is needed.
    assert cache_into(Path("killed"), store, reader) == straight


def test_a_damaged_cache_names_the_stage(tmp_path):
    store = make_store(tmp_path, random_tokens(5, 6))
    unit = build(store, tabled(6, 16, 3))
    path = unit / "layers.0.mlp/0_7.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"dvc repro cache@sae"):
        load_layer(unit, "layers.1.mlp")
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(UserError, match=r"0_7.safetensors is not readable.*dvc repro cache@sae"):
        load_layer(unit, "layers.0.mlp")
    with pytest.raises(UserError, match=r"missing.*dvc repro cache@native"):
        load_layer(paths.cache("native", 0, "explain"), "layers.0.mlp")
    with pytest.raises(UserError, match=r"layers\.9\.mlp.*missing"):
        load_layer(unit, "layers.9.mlp")


def test_the_store_imports_no_torch():
    code = "import sys, clearnets.latents.store; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
