"""Record how long stages take, and what they are made with.

There is an untracked log of this machine, and in git the times of the machine that made the
results. No result depends on either.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clearnets import UserError
from clearnets.pipeline import environment, paths
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
        made_with: what they computed with, as `environment.here` has it; nothing where the stages
            ran before that was recorded.
    """

    experiment: str
    machine: str
    seconds: dict[str, float]
    made_with: dict[str, str] = field(default_factory=dict)


@contextmanager
def timed(*stages: str, worth: bool = True) -> Iterator[None]:
    """Record the seconds that the block takes, and where, unless it raises or is not `worth` it.

    Where it is that of several stages, each is given an equal share.
    """
    start = time.monotonic()
    yield
    if worth:
        seconds = round((time.monotonic() - start) / max(len(stages), 1), 2)
        TIMES.parent.mkdir(parents=True, exist_ok=True)
        with TIMES.open("a", encoding="utf-8") as file:
            for stage in stages:
                ran = {"stage": stage, "seconds": seconds, "made_with": environment.here()}
                file.write(json.dumps(ran) + "\n")


def here() -> dict[str, float]:
    """Return seconds by stage (`cache@sae`) on this machine: the longest of the last LAST runs."""
    runs: dict[str, list[float]] = {}
    for ran in _log():
        runs.setdefault(ran["stage"], []).append(ran["seconds"])
    return {stage: max(seconds[-LAST:]) for stage, seconds in runs.items()}


def made_with(experiment: str) -> dict[str, str]:
    """Return what the stages that ran here were made with, each at its last run.

    Where none did, what is recorded of the experiment; nothing where that is not known.
    """
    last = {ran["stage"]: ran["made_with"] for ran in _log() if "made_with" in ran}
    if last:
        return environment.together(last.values())
    found = recorded(experiment)
    return found.made_with if found else {}


def _log() -> Iterator[dict[str, Any]]:
    """Yield the runs of stages on this machine, each with its `stage` and `seconds`."""
    if TIMES.exists():
        for line in TIMES.read_text(encoding="utf-8").splitlines():
            try:
                ran = json.loads(line)
                yield {**ran, "stage": ran["stage"], "seconds": float(ran["seconds"])}
            except (ValueError, KeyError, TypeError):  # A torn line of a killed run.
                continue


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
    made = {"experiment": experiment, "machine": environment.machine(), "seconds": seconds}
    write_json(RECORD, {**made, "made_with": made_with(experiment)})
    return [stage for stage in stages if stage not in known]


def recorded(experiment: str) -> Record | None:
    """Return the recorded times of an experiment; None if there are none."""
    if not RECORD.exists():
        return None
    found = Record(**read_json(RECORD))
    return found if found.experiment == experiment else None
