"""Record how long stages take.

There is an untracked log of this machine, and in git the times of the machine that made the
results. No result depends on either.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, write_json

TIMES = paths.LOGS / "times.jsonl"
RECORD = paths.TIMES
# A resumed run is shorter than a whole one, so the longest of the last few runs is taken.
LAST = 3


@dataclass(frozen=True)
class Record:
    """The times of an experiment's stages on one machine.

    Attributes:
        machine: its processor and cores, in words.
        seconds: by stage (`cache@sae`).
    """

    experiment: str
    machine: str
    seconds: dict[str, float]


@contextmanager
def timed(*stages: str, worth: bool = True) -> Iterator[None]:
    """Record the seconds that the block takes, unless it raises or is not `worth` it.

    Where it is that of several stages, each is given an equal share.
    """
    start = time.monotonic()
    yield
    if worth:
        seconds = round((time.monotonic() - start) / max(len(stages), 1), 2)
        TIMES.parent.mkdir(parents=True, exist_ok=True)
        with TIMES.open("a", encoding="utf-8") as file:
            for stage in stages:
                file.write(json.dumps({"stage": stage, "seconds": seconds}) + "\n")


def here() -> dict[str, float]:
    """Return seconds by stage (`cache@sae`) on this machine: the longest of the last LAST runs."""
    runs: dict[str, list[float]] = {}
    if TIMES.exists():
        for line in TIMES.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                runs.setdefault(record["stage"], []).append(float(record["seconds"]))
            except (ValueError, KeyError, TypeError):  # A torn line of a killed run.
                continue
    return {stage: max(seconds[-LAST:]) for stage, seconds in runs.items()}


def record(experiment: str, stages: Iterable[str]) -> list[str]:
    """Write the times of these stages on this machine to RECORD, for those who have not run them.

    Returns:
        Those that were never timed here.

    Raises:
        UserError: none was.
    """
    known, stages = here(), list(stages)
    seconds = {stage: round(known[stage], 1) for stage in stages if stage in known}
    if not seconds:
        raise UserError("no stage was timed here; `dvc repro` times those that it runs")
    write_json(RECORD, {"experiment": experiment, "machine": machine(), "seconds": seconds})
    return [stage for stage in stages if stage not in known]


def recorded(experiment: str) -> Record | None:
    """Return the recorded times of an experiment; None if there are none."""
    if not RECORD.exists():
        return None
    found = Record(**read_json(RECORD))
    return found if found.experiment == experiment else None


def machine() -> str:
    """Return this machine's processor and number of cores, in words."""
    count = os.cpu_count() or 1
    return f"{_processor()}, {count} core{'s' if count > 1 else ''}"


def _processor() -> str:
    """Return the model, or the architecture where the system does not name the model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name":
                return model.strip()
    except OSError:  # Not Linux.
        pass
    return platform.processor() or platform.machine()
