"""Choose the device of a run, set up torch, and derive named seeds.

Nothing here changes a tracked parameter or is written into an artifact.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clearnets import UserError
from clearnets.pipeline import processes

# Re-exported for one import in the stages; it lives apart so that no result depends on it.
from clearnets.pipeline.progress import Progress, progress, track

if TYPE_CHECKING:
    import torch

    from clearnets.config import Precision

__all__ = [
    "Progress",
    "Runtime",
    "autocast",
    "progress",
    "seed_for",
    "tokenizer_threads",
    "track",
]


def seed_for(base: int, *names: str | int) -> int:
    """Return a 31-bit seed for one named use of randomness, the same on all machines."""
    text = "/".join(str(name) for name in (base, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Runtime:
    """Where the computation runs.

    Attributes:
        device: auto, cpu, cuda or cuda:N.
        threads: of torch, in each process: the parameter `threads`.
    """

    device: str = "auto"
    threads: int = 1

    def torch_device(self) -> torch.device:
        """Set up threads and determinism for this process, and return the torch device.

        On a CPU the same computation gives the same bits; `clearnets.arithmetic` says on which. On
        CUDA every kernel of ours does, and cuBLAS and torch's own are asked to; the backward pass
        of torch's fused attention is not deterministic there. float32 means float32 on every
        device: TF32 stays off.

        Raises:
            UserError: no such device.
        """
        import torch

        _keep_freed_memory()
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # cuBLAS is deterministic with a workspace of its own, which it reads at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        # Deterministic mode also fills every new tensor, which costs time and catches no bug here.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        gpus = torch.cuda.device_count()
        name = self.device
        if name == "auto":
            name = "cuda" if gpus else "cpu"
        there = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{index}" for index in range(gpus))]
        if name not in there:
            raise UserError(f"no device {name!r} here; use --device {', '.join(there)} or auto")
        return torch.device(name)

    def side_by_side(self) -> list[Runtime]:
        """Return the runtimes of the processes that may work at a time: one for each GPU, or core.

        A device that was asked for by name is one.
        """
        device = self.torch_device()
        if device.type == "cpu":
            return [self] * processes.cores()
        if self.device != "auto":
            return [self]
        import torch

        return [replace(self, device=f"cuda:{at}") for at in range(torch.cuda.device_count())]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which products have this precision; weights stay float32."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def tokenizer_threads(count: int) -> Iterator[None]:
    """Let tokenizers work with `count` threads inside.

    Its pool is made at the first use in a process and keeps its size; with a `count` of 1 none is
    used. Batches come back in order, so no result depends on the number.
    """
    wanted = {
        "RAYON_NUM_THREADS": str(count),
        "TOKENIZERS_PARALLELISM": "true" if count > 1 else "false",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks instead of returning them to the kernel.

    A training step frees and allocates the same large tensors over and over; page faults were a
    fifth to a third of its time on a CPU. The same as MALLOC_MMAP_MAX_=0 with a large
    MALLOC_TRIM_THRESHOLD_.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
