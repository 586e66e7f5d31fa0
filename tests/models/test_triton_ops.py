"""The Triton kernels against torch's way, under Triton's interpreter and on a GPU.

`TRITON_INTERPRET` is read where kernels are defined, so the interpreter has a process of its own:
this file run as a script, on a CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sparse_feedforward import SELECTIONS, sparse, weights

from clearnets.models import triton_ops

# Tokens, width, latents, k: a single token, a width that is no power of two, latents that 8 does
# not divide, and so many that most have no token.
SIZES = ((1, 4, 8, 2), (20, 5, 12, 3), (6, 16, 100, 4))


def both_ways(size, selection, dtype, patch) -> tuple[list, list, int]:
    """Output and gradients of the sparse feedforward by torch and by Triton, and the latter's
    calls."""
    num_tokens, width, num_latents, k = size

    def run():
        arguments = [
            tensor.detach().to(device(), dtype).requires_grad_()
            for tensor in weights(num_tokens, width, num_latents, seed=3)
        ]
        y_ND = sparse(*arguments, k=k, selection=selection)
        y_ND.square().sum().backward()
        return [y_ND.detach(), *(tensor.grad for tensor in arguments)]

    calls = []
    real = triton_ops.bag, triton_ops.bag_gradients
    for function in real:

        def counted(*args, function=function):
            calls.append(function.__name__)
            return function(*args)

        patch.setattr(triton_ops, function.__name__, counted)
    patch.setattr(triton_ops, "usable", lambda *tensors: False)
    by_torch = run()
    assert not calls
    patch.setattr(triton_ops, "usable", lambda *tensors: True)
    return by_torch, run(), len(calls)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_parity(size, selection, dtype, patch) -> None:
    by_torch, by_triton, calls = both_ways(size, selection, dtype, patch)
    # Decoder, its two gradients, the encoder's by its weight and by its input.
    assert calls == 4
    exact = dtype == torch.float32
    for ours, expected in zip(by_triton, by_torch, strict=True):
        assert ours.dtype == expected.dtype
        scale = expected.abs().max().item()
        tolerance = (1e-5 if exact else 2e-2) * max(scale, 1.0)
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


def check_all() -> None:
    """Every size, selection and precision; and the same bits each time."""
    for dtype in (torch.float32, torch.bfloat16):
        for selection in SELECTIONS:
            for size in SIZES:
                with pytest.MonkeyPatch.context() as patch:
                    check_parity(size, selection, dtype, patch)
    runs = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            runs.append(both_ways((40, 8, 16, 4), "groupmax", torch.float32, patch)[1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_parity_under_the_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parity\n"


def test_the_cpu_and_double_precision_take_torchs_way():
    assert not triton_ops.usable(torch.zeros(2))
    assert torch.float64 not in triton_ops.DTYPES


@pytest.mark.gpu
def test_parity_on_a_gpu():
    assert triton_ops.usable(torch.zeros(2, device="cuda")), "triton is not installed"
    check_all()


@pytest.mark.gpu
@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_gpu_agrees_with_the_cpu(selection):
    results = []
    for where in ("cpu", "cuda"):
        arguments = [
            tensor.detach().to(where, torch.float32).requires_grad_()
            for tensor in weights(600, 48, 512, seed=5)
        ]
        y_ND = sparse(*arguments, k=8, selection=selection)
        y_ND.square().sum().backward()
        results.append([y_ND.detach().cpu(), *(tensor.grad.cpu() for tensor in arguments)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        scale = on_cpu.abs().max().item()
        torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-4 * max(scale, 1.0))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    check_all()
    print("parity")
