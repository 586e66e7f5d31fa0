"""Let faults loose on the smoke experiment and record what came of it.

    python tests/torture/torture.py [--kills 200] [--minutes 30] [--seed 0] [PART]...

The parts are `kills`, `disk`, `inputs` and `language`; all, where none is named. Each ends with the
bytes of a run that nothing has disturbed, or with a list of what was wrong and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import bad_inputs
import disturbed
import full_disk
import kills
import language_faults

RECORD = Path(__file__).parents[2] / "docs/reliability.json"


@dataclass(frozen=True)
class World:
    """What the parts work with.

    Attributes:
        empty: a checkout in which nothing has run.
        made: one in which the smoke experiment has run undisturbed, by `dvc repro`.
        expected: the hashes of its outputs.
        asked: the arguments.
    """

    empty: Path
    made: Path
    expected: dict[str, str]
    asked: argparse.Namespace

    def deadline(self, share: float) -> float:
        """Return the end of a part, on the monotonic clock."""
        return time.monotonic() + 60 * self.asked.minutes * share


def _kills(world: World) -> dict[str, Any]:
    asked, result = world.asked, {"kills": 0, "runs": 0, "laps": 0}
    stages, faults = {}, []
    for name in disturbed.COMMANDS:
        draw = Random(f"{asked.seed} {name}")
        found = kills.disturb(
            name, world.empty, world.expected, asked.kills // 2, draw, world.deadline(0.4), asked.stage
        )  # fmt: skip
        result |= {name: found.total(), f"{name}, victims": dict(found.victims)}
        result["kills"] += found.total()
        result["runs"] += found.runs
        result["laps"] += found.laps
        for stage, count in found.stages.items():
            stages[stage] = stages.get(stage, 0) + count
        faults += found.faults
    return {**result, "stages": dict(sorted(stages.items())), "faults": faults}


def _disk(world: World) -> dict[str, Any]:
    asked = world.asked
    seconds = 60 * asked.minutes * 0.2
    return full_disk.disturb(world.empty, world.expected, asked.full, asked.seed, seconds)


PARTS: dict[str, Callable[[World], dict[str, Any]]] = {
    "inputs": lambda world: bad_inputs.disturb(world.made, world.asked.seed),
    "language": lambda world: language_faults.disturb(world.made, world.asked.seed),
    "disk": _disk,
    "kills": _kills,
}


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=30, help="runs on a full disk")
    parser.add_argument("--minutes", type=float, default=30, help="no new faults after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", action="append", default=[], help="make only these, with kills")
    parser.add_argument("--at", type=Path, help="a folder whose undisturbed run is used again")
    parser.add_argument("--record", type=Path, help="the JSON file to write, e.g. " + RECORD.name)
    asked = parser.parse_args(words)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}")
    return asked


def _world(folder: Path, asked: argparse.Namespace) -> World:
    """Run the experiment undisturbed, unless that has been done there."""
    empty, made = folder / "empty", folder / "made"
    if not empty.exists():
        disturbed.template(empty)
    if not made.exists():
        disturbed.copy(empty, made)
        words = [*disturbed.COMMANDS["dvc repro"], *asked.stage]
        assert disturbed.run(words, made, folder / "made.log") == 0, folder / "made.log"
    return World(empty, made, disturbed.hashes(made), asked)


def main(words: list[str]) -> int:
    """Run the parts; return the exit code."""
    asked = _parse(words)
    print(f"seed {asked.seed}", flush=True)
    found: dict[str, Any] = {"commit": disturbed.commit(), "seed": asked.seed}
    with ExitStack() as stack:
        folder = asked.at or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()
        folder.mkdir(exist_ok=True)
        stack.enter_context(disturbed.commands())
        world = _world(folder, asked)
        for name in asked.parts or PARTS:
            start = time.monotonic()
            found[name] = {**PARTS[name](world)}
            found[name]["minutes"] = round((time.monotonic() - start) / 60, 1)
            print(name, json.dumps(found[name]), flush=True)
    if asked.record:
        asked.record.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(part["faults"] for part in found.values() if isinstance(part, dict)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
