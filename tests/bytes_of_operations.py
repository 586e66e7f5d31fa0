"""Print hashes of what single operations return, as JSON: those of torch, numpy and scipy that the
pipeline computes with, at sizes where libraries change their kernels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from clearnets import arithmetic  # isort: skip - first: it sets the environment.

import numpy as np
import scipy.linalg
import scipy.special
import torch
import torch.nn.functional as F
from scipy.stats import norm

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "expm1", "lgamma", "log"),
    *("log10", "log1p", "logit", "rsqrt", "sigmoid", "sin", "sqrt", "tan", "tanh"),
)
# Rows, inner dimension, columns.
SHAPES = (
    *((1, 64, 64), (64, 64, 1), (3, 64, 9), (64, 192, 64), (64, 200, 64), (1024, 256, 64)),
    *((64, 257, 64), (64, 383, 100), (100, 511, 64), (64, 1000, 1024), (7, 13, 5)),
)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    rng = np.random.default_rng(sum(shape))
    return torch.from_numpy(rng.standard_normal(shape)).to(dtype)


def of_torch() -> Iterator[tuple[str, Any]]:
    for dtype in (torch.float32, torch.float64):
        share_N = draw(5000, dtype=dtype).abs() / 8 + 1e-3
        for name in FUNCTIONS:
            yield f"{name} {dtype}", getattr(torch, name)(share_N)
        for m, k, n in SHAPES:
            left, right = draw(m, k, dtype=dtype), draw(k, n, dtype=dtype)
            yield f"product {m, k, n} {dtype}", left @ right
            # Of the layout that a gradient has.
            yield f"transposed {m, k, n} {dtype}", left.T.contiguous().T @ right
            yield f"vector {k, n} {dtype}", left[0] @ right
        square = draw(64, 64, dtype=dtype)
        symmetric = square @ square.T
        yield f"eigh {dtype}", torch.linalg.eigh(symmetric)[1]
        yield f"pinv {dtype}", torch.linalg.pinv(symmetric, hermitian=True)
        yield f"fft {dtype}", torch.view_as_real(torch.fft.rfft(square))
        yield f"std {dtype}", torch.stack([square.std(), square.norm(), square.logsumexp(1).mean()])
    q, k, v = draw(3, 8, 4, 128, 16)
    yield "attention", F.scaled_dot_product_attention(q, k, v, is_causal=True)
    pictures = draw(10, 3, 32, 32)
    yield "convolution", F.conv2d(pictures, draw(8, 3, 4, 4), stride=4)
    yield "depthwise", F.conv2d(pictures, draw(3, 1, 7, 7), groups=3, padding=3)
    torch.manual_seed(0)
    yield "normal", torch.randn(1001)
    yield "gelu", F.gelu(draw(1000))
    yield "norm", F.layer_norm(draw(100, 64), (64,))


def of_numpy() -> Iterator[tuple[str, Any]]:
    for dtype in (np.float32, np.float64):
        values_N = np.abs(draw(5000).numpy()).astype(dtype) + dtype(1e-3)
        for name in ("exp", "log", "log10", "sqrt", "sin", "tanh", "sum", "std"):
            yield f"numpy {name} {dtype}", getattr(np, name)(values_N)
        for m, k, n in SHAPES:
            left, right = draw(m, k).numpy().astype(dtype), draw(k, n).numpy().astype(dtype)
            yield f"numpy product {m, k, n} {dtype}", left @ right
        square = draw(64, 64).numpy().astype(dtype)
        yield f"svdvals {dtype}", np.linalg.svdvals(square)
        yield f"numpy eigh {dtype}", np.linalg.eigh(square @ square.T)[1]
        yield f"scipy solve {dtype}", scipy.linalg.solve(square, square.T)
        yield f"einsum {dtype}", np.einsum("nd,nd->n", square, square)
        yield f"rfft {dtype}", np.fft.rfft(square, axis=0)
    yield "numpy normal", np.random.default_rng(0).standard_normal(1001)
    yield "stdtrit", scipy.special.stdtrit(np.arange(1, 100), 0.975)
    yield "isf", norm.isf(np.linspace(0.001, 0.999, 100))


def of_training() -> Iterator[tuple[str, Any]]:
    """Yield the weights of a dense and a sparse layer after some steps, by two optimizers."""
    from schedulefree import AdamWScheduleFree

    optimizers: dict[str, Callable[[Any], Any]] = {
        "adam": lambda weights: torch.optim.AdamW(weights, lr=3e-3),
        "schedule-free": lambda weights: AdamWScheduleFree(weights, lr=3e-3, foreach=True),
    }
    for name, make in optimizers.items():
        up, down = (draw(256, 64) / 8).requires_grad_(), (draw(256, 64) / 16).requires_grad_()
        optimizer = make([up, down])
        if name == "schedule-free":
            optimizer.train()
        for step in range(5):
            x_ND = F.layer_norm(draw(500 + step, 64), (64,))
            hidden_NL = x_ND @ up.T
            top_NK, index_NK = hidden_NL.relu().topk(8)
            sparse_ND = F.embedding_bag(index_NK, down, per_sample_weights=top_NK, mode="sum")
            output_ND = F.gelu(hidden_NL) @ down + sparse_ND
            loss = F.cross_entropy(output_ND @ down.T, torch.arange(500 + step) % 256)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([up, down], 1.0)
            optimizer.step()
        yield name, torch.cat([up, down])


def main() -> None:
    torch.set_num_threads(1)
    hashes = {}
    for made in (of_torch, of_numpy, of_training):
        for name, value in made():
            array = np.ascontiguousarray(
                value.detach().numpy() if torch.is_tensor(value) else value
            )
            hashes[name] = hashlib.sha256(array.tobytes()).hexdigest()[:12]
    print(json.dumps({"departures": arithmetic.departures(), "hashes": hashes}))


if __name__ == "__main__":
    main()
