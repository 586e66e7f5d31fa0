"""How long stages took on this machine: an untracked log, on which no result depends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clearnets.paths import LOGS

TIMES = LOGS / "times.jsonl"
# A run that goes on where it was killed is shorter than a whole one: of the last runs the longest.
LAST = 3


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


def recorded() -> dict[str, float]:
    """Seconds by stage (`cache@sae`), of the last LAST runs the longest."""
    runs: dict[str, list[float]] = {}
    if TIMES.exists():
        for line in TIMES.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                runs.setdefault(record["stage"], []).append(float(record["seconds"]))
            except (ValueError, KeyError, TypeError):  # A torn line of a killed run.
                continue
    return {stage: max(seconds[-LAST:]) for stage, seconds in runs.items()}
