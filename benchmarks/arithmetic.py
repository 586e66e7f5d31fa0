"""What it costs that results are the same bytes on every processor: processor time of training.

`python benchmarks/arithmetic.py` trains the two small transformers of `tests/bytes_of_training.py`
for some steps on one thread, in a process each: with the settings of `clearnets.arithmetic`, with
none, and with the one setting of MKL that needs no answer about the vendor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import common

ROOT = Path(__file__).parents[1]
RUNS, STEPS = 5, 20
# By name: whether the package sets anything, and what is set before.
WAYS: dict[str, tuple[bool, dict[str, str]]] = {
    "none": (False, {}),
    "clearnets.arithmetic": (True, {}),
    "MKL_CBWR=COMPATIBLE": (True, {"MKL_CBWR": "COMPATIBLE"}),
}


def child(sparse: bool, settled: bool) -> None:
    """Print the processor time of training in this process."""
    if not settled:
        sys.modules["clearnets"] = types.ModuleType("clearnets")
    sys.path.insert(0, str(ROOT / "tests"))
    import bytes_of_training
    import torch

    torch.set_num_threads(1)
    bytes_of_training.trained(sparse, steps=1)
    start = time.process_time()
    bytes_of_training.trained(sparse, STEPS)
    print(time.process_time() - start)


def seconds(way: str, model: str) -> float:
    """Return the processor time of one training run in a process of its own."""
    settled, environment = WAYS[way]
    done = subprocess.run(
        [sys.executable, __file__, model, str(int(settled))],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    """Print the ratios as a table."""
    print(f"{common.machine()}; processor time, {RUNS} runs in turns: median (least–most)\n")
    print("| settings | dense | sparse |\n|---|---:|---:|")
    times: dict[tuple[str, str], list[float]] = {
        (way, model): [] for way in WAYS for model in ("dense", "sparse")
    }
    for _ in range(RUNS):
        for (way, model), found in times.items():
            found.append(seconds(way, model))
    for way in WAYS:
        found = [
            common.ratios(times[way, model], times["none", model]) for model in ("dense", "sparse")
        ]
        print(f"| {way} | {' | '.join(found)} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1] == "sparse", bool(int(sys.argv[2])))
    else:
        main()
