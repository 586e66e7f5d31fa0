"""Compare tokens per second and memory of caching latents with delphi's `LatentCache`.

    python benchmarks/cache_speed.py [--rows 1024] [--delphi-rows 128] [--threads 0]

Models and coders have the sizes of `params.yaml` and random weights; tokens are random. Both
sides run the same model and the same transcoders and write their files, each in a process of its
own. Memory is the process's peak minus what it used before; memory-mapped files count, though the
system may drop them. On a machine that others use too, compare
the tokens per second of CPU time with `--threads 1`.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"


def peak_mb() -> float:
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def make(mlp: str):
    """Return a model, encoders by hookpoint, and the parameters."""
    import torch

    from clearnets.config import GPTNeoX, load
    from clearnets.latents.readers import Encoder
    from clearnets.models.sparse_gptneox import build_model

    config = load()
    assert isinstance(config.model, GPTNeoX)
    model = build_model(
        config.model,
        mlp=mlp,  # pyright: ignore[reportArgumentType]
        vocab_size=config.data.vocab_size,
        ctx_len=config.data.ctx_len,
        pad=0,
        bos=1,
        eos=2,
        seed=0,
    ).eval()
    d, num_latents, k = config.model.hidden_size, config.model.num_latents, config.model.k
    torch.manual_seed(0)
    encoders = {
        config.model.hookpoint(layer): Encoder(
            weight_LD=torch.randn(num_latents, d) / d**0.5,
            bias_L=torch.zeros(num_latents),
            b_dec_D=torch.zeros(d),
            k=k,
            activation="topk",
            transcode=True,
        )
        for layer in config.model.layers
    }
    return model, encoders, config


def tokens_of(config, rows: int) -> np.ndarray:
    """Return rows of random tokens that begin with bos."""
    shape = (rows, config.data.ctx_len)
    tokens_RS = np.random.default_rng(0).integers(3, config.data.vocab_size, shape)
    tokens_RS[:, 0] = 1
    return tokens_RS.astype(np.uint16)


@dataclass(frozen=True)
class Cost:
    """Tokens per second of wall and of CPU time, and memory gained in MB."""

    wall: float
    cpu: float
    memory: float


class Meter:
    """Measures time and memory from its construction on."""

    def __init__(self) -> None:
        self._memory, self._cpu, self._wall = peak_mb(), time.process_time(), time.perf_counter()

    def cost(self, tokens: int) -> Cost:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Cost(tokens / wall, tokens / cpu, peak_mb() - self._memory)


def ours(threads: int, family: str, rows: int) -> Cost:
    """Measure `clearnets.latents.cache` for one family."""
    from clearnets.data.tokens import TokenStore
    from clearnets.latents.cache import cache_split
    from clearnets.latents.readers import CoderReader, NativeReader, NeuronReader
    from clearnets.pipeline.artifacts import Work
    from clearnets.pipeline.runtime import Runtime

    Runtime(device="cpu", threads=threads).torch_device()
    model, encoders, config = make("sparse" if family == "native" else "dense")
    points = tuple(encoders)
    reader = {
        "native": lambda: NativeReader(model, points, num_latents=config.model.num_latents),
        "neurons": lambda: NeuronReader(
            model,
            {point: f"{point}.dense_4h_to_h" for point in points},
            width=model.config.intermediate_size,
            k=config.model.k,
        ),
        "transcoder": lambda: CoderReader(model, encoders),
    }[family]()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("tokens", "out", "state"):
            (root / part).mkdir()
        np.save(root / "tokens/explain.npy", tokens_of(config, rows))
        ids = {"pad": 0, "bos": 1, "eos": 2, "concepts": ()}
        store = TokenStore(root, config.data.vocab_size, config.data.ctx_len, **ids)
        meter = Meter()
        cache_split(
            reader,
            store,
            "explain",
            Work(root / "out", root / "state"),
            **config.cache.model_dump(),
            config={},
            label=family,
        )
        return meter.cost(rows * config.data.ctx_len)


def delphis(threads: int, rows: int) -> Cost:
    """Measure delphi's cache for the transcoders."""
    import torch
    from delphi.latents import LatentCache

    from clearnets.pipeline.runtime import Runtime

    Runtime(device="cpu", threads=threads).torch_device()
    model, encoders, config = make("dense")

    def densify(encoder):
        def encode(x_BSD: torch.Tensor) -> torch.Tensor:
            acts_BSK, indices_BSK = encoder(x_BSD)
            empty_BSL = x_BSD.new_zeros(*x_BSD.shape[:2], encoder.num_latents)
            return empty_BSL.scatter_(-1, indices_BSK, acts_BSK)

        return encode

    tokens_RS = torch.from_numpy(tokens_of(config, rows).astype(np.int64))
    encoding = {point: densify(encoder) for point, encoder in encoders.items()}
    meter = Meter()
    with tempfile.TemporaryDirectory() as name:
        # delphi hooks by the names of the base model's modules.
        cache = LatentCache(model.base_model, encoding, config.cache.batch_size, transcode=True)
        cache.run(tokens_RS.numel(), tokens_RS)
        cache.save_splits(config.cache.latent_splits, Path(name))
        return meter.cost(tokens_RS.numel())


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--delphi-rows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args()
    jobs = [(f"clearnets {f}", ours, f, options.rows) for f in ("native", "transcoder", "neurons")]
    jobs.insert(2, ("clearnets transcoder, x4", ours, "transcoder", 4 * options.rows))
    jobs.append(("delphi transcoder", delphis, options.delphi_rows))
    for name, function, *arguments in jobs:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            cost = pool.submit(function, options.threads, *arguments).result()
        print(
            f"{name:26} {arguments[-1]:6} rows {cost.wall:8,.0f} tokens/s "
            f"{cost.cpu:8,.0f} tokens/CPU s {cost.memory:6,.0f} MB"
        )


if __name__ == "__main__":
    main()
