"""How long stages took: on this machine, an untracked log; and, in git, on the one that made the
results. No result depends on either."""

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
# A run that goes on where it was killed is shorter than a whole one: of the last runs the longest.
LAST = 3


@dataclass(frozen=True)
class Record:
    """What the stages of one experiment took on one machine.

    Attributes:
        machine: its processor and cores, in words.
        seconds: by stage (`cache@sae`).
    """

    experiment: str
    machine: str
    seconds: dict[str, float]


@contextmanager
def timed(stage: str, *, worth: bool = True) -> Iterator[None]:
    """Record the seconds that the block takes, if it comes to its end and is `worth` it."""
    start = time.monotonic()
    yield
    if worth:
        record = {"stage": stage, "seconds": round(time.monotonic() - start, 2)}
        TIMES.parent.mkdir(parents=True, exist_ok=True)
        with TIMES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def here() -> dict[str, float]:
    """Seconds by stage (`cache@sae`) on this machine, of the last LAST runs the longest."""
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
    """Write down what these stages took here, for those who have not run them.

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
    """What was written down of an experiment; None if nothing was."""
    if not RECORD.exists():
        return None
    found = Record(**read_json(RECORD))
    return found if found.experiment == experiment else None


def machine() -> str:
    """This machine's processor and number of cores."""
    count = os.cpu_count() or 1
    return f"{_processor()}, {count} core{'s' if count > 1 else ''}"


def _processor() -> str:
    """The model, where the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name":
                return model.strip()
    except OSError:  # Not Linux.
        pass
    return platform.processor() or platform.machine()
