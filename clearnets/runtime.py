"""What a run needs besides its parameters: device, threads, named seeds.

Nothing here changes a tracked parameter or is written into an artifact.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clearnets.artifacts import UserError

# Re-exported for one import in the stages; it lives apart so that no result depends on it.
from clearnets.progress import Progress, progress, track

if TYPE_CHECKING:
    import torch

__all__ = ["Progress", "Runtime", "progress", "seed_for", "track"]


def seed_for(base: int, *names: str | int) -> int:
    """A 31-bit seed for one named use of randomness, stable over machines and versions."""
    text = "/".join(str(name) for name in (base, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Runtime:
    """Where the computation runs. `device` is auto, cpu, cuda or cuda:N; threads 0 means all."""

    device: str = "auto"
    threads: int = 0

    @property
    def num_threads(self) -> int:
        """CPU threads or worker processes to use."""
        if self.threads:
            return self.threads
        # macOS has no affinity.
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def torch_device(self) -> torch.device:
        """The torch device, with threads and determinism set up for this process.

        Raises:
            UserError: no such device.
        """
        import torch

        _keep_freed_memory()
        torch.set_num_threads(self.num_threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
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
