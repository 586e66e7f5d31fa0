"""What the benchmarks share: the machine's name, runs in turns, ratios with their spread."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def machine() -> str:
    """Return the processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


def processor_seconds(call: Callable[[], object]) -> float:
    """Return the processor time of this process during a call: other processes do not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    runs: int,
    seconds: Callable[[Callable[[], object]], float] = processor_seconds,
) -> dict[str, list[float]]:
    """Time each of the calls once a run, one after the other, after a run of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            spent = seconds(call)
            if run:
                times[name].append(spent)
    return times


def ratios(those: Sequence[float], base: Sequence[float], digits: int = 2) -> str:
    """Return the median, least and largest ratio of two alternatives over their runs."""
    found = [one / other for one, other in zip(those, base, strict=True)]
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(found), min(found), max(found))
    )
    return f"{middle} ({least}–{most})"
