"""Compare caching the dense model's families together with delphi's `LatentCache`.

    python benchmarks/cache_speed.py [--rows 256] [--delphi-rows 64] [--runs 5]

Models and coders have the sizes of `params.yaml` and random weights; tokens are random. delphi
caches one family at a time, with its own function of a sparsify coder; the model, the coders and
the tokens are the same, and so are the values on disk, which is checked. Each side has a process of
its own with one thread, and they take turns. Time is processor time, since other programs may run;
memory is the process's peak minus what it used before, where memory-mapped files count.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from clearnets.pipeline.times import machine

FAMILIES = ("transcoder", "sae", "skip-transcoder", "neurons")


def peak_mb() -> float:
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


@cache
def make() -> tuple[Any, dict[str, dict[str, Any]], Any]:
    """Return the dense model, sparsify's coders by family and hookpoint, and the parameters."""
    from clearnets.coders.library import new_coder
    from clearnets.config import GPTNeoX, load
    from clearnets.families import FAMILIES as TABLE
    from clearnets.models.sparse_gptneox import build_model
    from clearnets.pipeline.runtime import Runtime

    Runtime("cpu", 1).torch_device()
    config = load()
    assert isinstance(config.model, GPTNeoX)
    special = {"pad": 0, "bos": 1, "eos": 2, "seed": 0}
    sizes = {"vocab_size": config.data.vocab_size, "ctx_len": config.data.ctx_len}
    model = build_model(config.model, mlp="dense", **sizes, **special).eval()
    size = {"d_in": config.model.hidden_size, "num_latents": config.model.num_latents}
    coders = {
        family: {
            point: new_coder(point, **TABLE[family].coder_kind, **size, k=config.model.k, seed=seed)
            for point in (config.model.hookpoint(layer) for layer in config.model.layers)
        }
        for seed, family in enumerate(FAMILIES[:3])
    }
    return model, coders, config


def tokens_of(rows: int) -> np.ndarray:
    """Return rows of random tokens that begin with bos, int64."""
    _, _, config = make()
    shape = (rows, config.data.ctx_len)
    tokens_RS = np.random.default_rng(0).integers(3, config.data.vocab_size, shape)
    tokens_RS[:, 0] = 1
    return tokens_RS


def reader_of(family: str) -> Any:
    """Return clearnets' reader of a family."""
    from clearnets.latents.readers import CoderReader, Encoder, NeuronReader

    model, coders, config = make()
    if family == "neurons":
        points = {point: f"{point}.dense_4h_to_h" for point in coders["sae"]}
        return NeuronReader(model, points, width=model.config.intermediate_size, k=config.model.k)
    encoders = {
        point: Encoder(
            coder.encoder.weight.detach(),
            coder.encoder.bias.detach(),
            coder.b_dec.detach(),
            coder.cfg.k,
            "topk",
            coder.cfg.transcode,
        )
        for point, coder in coders[family].items()
    }
    return CoderReader(model, encoders)


def ours(families: tuple[str, ...], rows: int, folder: Path) -> None:
    """Cache families with `clearnets.latents.cache` in one pass."""
    from clearnets.data.tokens import TokenStore
    from clearnets.latents.cache import Target, cache_split
    from clearnets.pipeline.artifacts import Work

    _, _, config = make()
    (folder / "tokens").mkdir()
    np.save(folder / "tokens/explain.npy", tokens_of(rows).astype(np.uint16))
    ids = {"pad": 0, "bos": 1, "eos": 2, "concepts": ()}
    store = TokenStore(folder, config.data.vocab_size, config.data.ctx_len, **ids)
    targets = []
    for family in families:
        work = Work(folder / family, folder / f"{family}-state")
        work.out.mkdir()
        work.state.mkdir()
        targets.append(Target(reader_of(family), work, {}))
    cache_split(targets, store, "explain", **config.cache.model_dump(), label="cache")


def delphis(families: tuple[str, ...], rows: int, folder: Path) -> None:
    """Cache families with delphi, one after the other."""
    import torch
    from delphi.latents import LatentCache
    from delphi.sparse_coders.load_sparsify import sae_dense_latents

    model, coders, config = make()
    width, k = model.config.intermediate_size, config.model.k

    def neurons(post_BSW: torch.Tensor) -> torch.Tensor:
        acts_BSK, neurons_BSK = post_BSW.abs().topk(k, dim=-1, sorted=False)
        indices_BSK = neurons_BSK + width * (post_BSW.gather(-1, neurons_BSK) < 0)
        empty_BSL = post_BSW.new_zeros(*post_BSW.shape[:2], 2 * width)
        return empty_BSL.scatter_(-1, indices_BSK, acts_BSK)

    tokens_RS = torch.from_numpy(tokens_of(rows))
    for family in families:
        encode: dict[str, Callable[[Any], Any]] = (
            {f"{point}.dense_4h_to_h": neurons for point in coders["sae"]}
            if family == "neurons"
            else {p: partial(sae_dense_latents, sae=coder) for p, coder in coders[family].items()}
        )
        # delphi hooks by the names of the base model's modules.
        saver = LatentCache(
            model.base_model, encode, config.cache.batch_size, transcode=family != "sae"
        )
        saver.run(tokens_RS.numel(), tokens_RS)
        # delphi cannot write a file without entries, as that of the negative neurons would be.
        files = 1 if family == "neurons" else config.cache.latent_splits
        saver.save_splits(files, folder / family)


def forward(_: tuple[str, ...], rows: int, __: Path) -> None:
    """Run the model and keep nothing."""
    from clearnets.latents.readers import read_together

    batch = make()[2].cache.batch_size
    import torch

    reader = reader_of("neurons")
    reader.latents = lambda *_: (torch.zeros(()), torch.zeros(()))
    for tokens_BS in torch.from_numpy(tokens_of(rows)).split(batch):
        read_together([reader], tokens_BS, lambda *_: None)


def products(_: tuple[str, ...], rows: int, __: Path) -> None:
    """Compute the encoders' products of random inputs and keep nothing."""
    import torch

    _, coders, config = make()
    x_ND = torch.randn(rows * config.data.ctx_len, config.model.hidden_size)
    with torch.no_grad():
        for of_family in coders.values():
            for coder in of_family.values():
                for part_ND in x_ND.split(256):
                    torch.nn.functional.linear(part_ND, coder.encoder.weight, coder.encoder.bias)


def measure(
    job: Callable[[tuple[str, ...], int, Path], None], families: tuple[str, ...], rows: int
) -> tuple[float, float]:
    """Return microseconds of processor time per token, and peak memory in MB, of a job."""
    make()
    tokens = rows * make()[2].data.ctx_len
    with tempfile.TemporaryDirectory() as name:
        memory, start = peak_mb(), time.process_time()
        job(families, rows, Path(name))
        return (time.process_time() - start) / tokens * 1e6, peak_mb() - memory


def differing() -> tuple[int, int]:
    """Return how many entries clearnets caches of one batch, and how many delphi has otherwise."""
    found: list[set[int]] = []
    for job in (ours, delphis):
        with tempfile.TemporaryDirectory() as name:
            job(FAMILIES, make()[2].cache.batch_size, Path(name))
            found.append(set().union(*map(_entries, Path(name).glob("*/*/*.safetensors"))))
    return len(found[0]), len(found[0] ^ found[1])


def _entries(path: Path) -> set[int]:
    """Return a hash of each entry of a file: family, hookpoint, row, position, latent, value."""
    from safetensors.numpy import load_file

    family, point = path.parts[-3:-1]
    if family.endswith("-state"):
        return set()
    data, first = load_file(path), int(path.stem.partition("_")[0])
    rows, positions, latents = data["locations"].astype(int).T
    values = data["activations"].astype(np.float16).tolist()
    place = family, point.removesuffix(".dense_4h_to_h")
    each = zip(rows.tolist(), positions.tolist(), (latents + first).tolist(), values)
    # clearnets leaves out the first position, which is bos.
    return {hash((place, entry)) for entry in each if entry[1]}


def main() -> None:
    """Let both sides take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--delphi-rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows = options.rows
    jobs: dict[str, tuple[Any, ...]] = {
        "clearnets, 4 families together": (ours, FAMILIES, rows),
        "clearnets, transcoder alone": (ours, FAMILIES[:1], rows),
        "delphi, 4 families": (delphis, FAMILIES, options.delphi_rows),
        "the model's forward pass": (forward, (), options.delphi_rows),
        "3 encoders' products": (products, (), options.delphi_rows),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    pools = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in jobs}
    for _ in range(options.runs):
        for name, (job, families, size) in jobs.items():
            costs[name].append(pools[name].submit(measure, job, families, size).result())
    entries, differ = pools["delphi, 4 families"].submit(differing).result()
    print(f"{machine()}; one thread, {options.runs} runs in turns, {rows} rows of 128 tokens; ")
    print(f"of {entries:,} entries of a batch, {differ:,} differ from delphi's\n")
    print("| | µs per token | tokens/s x families | against delphi: median (min to max) | MB |")
    print("|---|---:|---:|---:|---:|")
    rates = {
        name: [len(jobs[name][1]) / micro * 1e6 for micro, _ in found]
        for name, found in costs.items()
    }
    for name, found in costs.items():
        micro = f"{median(micro for micro, _ in found):.1f}"
        ratios = [own / other for own, other in zip(rates[name], rates["delphi, 4 families"])]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rate = f"{median(rates[name]):,.0f}"
        cells = (rate, spread, f"{found[0][1]:,.0f}") if rates[name][0] else ("", "", "")
        print(f"| {' | '.join((name, micro, *cells))} |")


if __name__ == "__main__":
    main()
