"""Compare caching the dense model's families together with delphi's `LatentCache`.

    python benchmarks/cache_speed.py [--rows 256] [--delphi-rows 64] [--runs 5] [--cores 1]

Models and coders have the sizes of `params.yaml` and random weights; tokens are random. delphi
caches one family at a time, with its own function of a sparsify coder; the model, the coders and
the tokens are the same, and so are the values on disk, which is checked. The sides take turns, each
in a process of its own with one thread. Time is processor time, since other programs may run;
memory is the process's peak minus what it used before, where memory-mapped files count.

With more cores, clearnets caches on each of them by itself, as the pipeline does with splits, and
delphi has as many threads. Then time is that of the clock, and the machine should do nothing else.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import machine, ratios

FAMILIES = ("transcoder", "sae", "skip-transcoder", "neurons")
Job = Callable[[tuple[str, ...], int, Path], None]


def peak_mb() -> float:
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


@cache
def make() -> tuple[Any, dict[str, dict[str, Any]], Any]:
    """Return the dense model, sparsify's coders by family and hookpoint, and the parameters."""
    import torch

    from clearnets.coders.library import new_coder
    from clearnets.config import GPTNeoX, load
    from clearnets.families import FAMILIES as TABLE
    from clearnets.models.sparse_gptneox import build_model
    from clearnets.pipeline.runtime import Runtime

    threads = torch.get_num_threads()
    Runtime("cpu", threads).torch_device()
    config = load()
    assert isinstance(config.model, GPTNeoX)
    special = {"pad": 0, "bos": 1, "eos": 2, "seed": 0}
    sizes = {"vocab_size": config.data.vocab_size, "ctx_len": config.data.ctx_len}
    model = build_model(config.model, mlp="dense", **sizes, **special).eval()
    size: dict[str, Any] = {"d_in": config.model.hidden_size, "k": config.model.k}
    coders = {
        family: {
            point: new_coder(
                point,
                **TABLE[family].coder_kind,
                **size,
                num_latents=config.model.num_latents,
                seed=seed,
            )
            for point in map(config.model.hookpoint, config.model.layers)
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


def measure(job: Job, families: tuple[str, ...], rows: int) -> tuple[float, float, float]:
    """Return seconds of processor time and of the clock, and peak memory in MB, of a job."""
    make()
    with tempfile.TemporaryDirectory() as name:
        memory, cpu, wall = peak_mb(), time.process_time(), time.perf_counter()
        job(families, rows, Path(name))
        return time.process_time() - cpu, time.perf_counter() - wall, peak_mb() - memory


def set_threads(threads: int) -> None:
    """Let torch have so many threads in this process."""
    import torch

    torch.set_num_threads(threads)


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


@dataclass(frozen=True)
class Side:
    """One row of the table.

    Attributes:
        job: what is measured.
        families: for which.
        rows: of tokens, in each process.
        pools: its processes, of one worker each.
        costs: microseconds per token, of each run.
        memory: peak in MB, of each run: the sum of its processes'.
    """

    job: Job
    families: tuple[str, ...]
    rows: int
    pools: list[ProcessPoolExecutor]
    costs: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls, job: Job, families: tuple[str, ...], rows: int, processes: int, threads: int
    ) -> Side:
        """Start its processes, with so many threads in each."""
        pools = [
            ProcessPoolExecutor(1, get_context("spawn"), set_threads, (threads,))
            for _ in range(processes)
        ]
        return cls(job, families, rows, pools)

    def run(self, *, clock: bool) -> None:
        """Measure once, by the clock or by processor time."""
        futures = [p.submit(measure, self.job, self.families, self.rows) for p in self.pools]
        found = [future.result() for future in futures]
        seconds = max(wall for _, wall, _ in found) if clock else sum(cpu for cpu, _, _ in found)
        tokens = self.rows * make()[2].data.ctx_len * len(self.pools)
        self.costs.append(seconds / tokens * 1e6)
        self.memory.append(sum(memory for _, _, memory in found))

    def row(self, name: str, other: Side) -> str:
        """Return its row of the table, with its speed against another side in the same runs."""
        cells = [name, f"{median(self.costs):.1f}"]
        if self.families:
            rates = [len(self.families) / cost * 1e6 for cost in self.costs]
            others = [len(other.families) / cost * 1e6 for cost in other.costs]
            cells += [f"{median(rates):,.0f}", ratios(rates, others), f"{self.memory[0]:,.0f}"]
        return f"| {' | '.join(cells + [''] * (5 - len(cells)))} |"


def main() -> None:
    """Let all sides take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--delphi-rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args()
    cores, few = options.cores, options.delphi_rows
    delphi = Side.of(delphis, FAMILIES, few, 1, cores)
    sides = {
        "clearnets, 4 families together": Side.of(ours, FAMILIES, options.rows, cores, 1),
        "clearnets, transcoder alone": Side.of(ours, FAMILIES[:1], options.rows, cores, 1),
        "delphi, 4 families": delphi,
        "the model's forward pass": Side.of(forward, (), few, cores, 1),
        "3 encoders' products": Side.of(products, (), few, cores, 1),
    }
    for _ in range(options.runs):
        for side in sides.values():
            side.run(clock=cores > 1)
    entries, differ = delphi.pools[0].submit(differing).result()
    clock = "the clock's" if cores > 1 else "processor"
    print(f"{machine()}; {cores} used, {options.runs} runs in turns, {clock} time;")
    print(f"of {entries:,} entries of a batch, {differ:,} differ from delphi's\n")
    print("| | µs per token | tokens/s x families | against delphi: median (least–most) | MB |")
    print("|---|---:|---:|---:|---:|")
    for name, side in sides.items():
        print(side.row(name, delphi))


if __name__ == "__main__":
    main()
