"""Let faults loose on the smoke experiment and record what came of it.

    python tests/torture/torture.py [--kills 200] [--minutes 30] [--seed 0] [PART]...

The parts are `inputs`, `environments`, `language`, `disk` and `kills`; all, where none is named.
Each ends with the bytes of an undisturbed run, or with a list of what was wrong and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
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
import report


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
    asked, by_command = world.asked, {}
    for name in disturbed.COMMANDS:
        draw = Random(f"{asked.seed} {name}")
        tried = (name, world.empty, world.expected, asked.kills // 2)
        by_command[name] = kills.disturb(*tried, draw, world.deadline(0.4), asked.stage)
    found = list(by_command.values())
    stages = sum((each.stages for each in found), Counter())
    return {
        "kills": sum(each.total() for each in found),
        "runs": sum(each.runs for each in found),
        "laps": sum(each.laps for each in found),
        "victims": {name: dict(each.victims) for name, each in by_command.items()},
        "stages": dict(sorted(stages.items())),
        "faults": [fault for each in found for fault in each.faults],
    }


def _disk(world: World) -> dict[str, Any]:
    asked = world.asked
    return full_disk.disturb(
        empty=world.empty,
        expected=world.expected,
        tries=asked.full,
        seed=asked.seed,
        seconds=60 * asked.minutes * 0.2,
        targets=asked.stage,
    )


PARTS: dict[str, Callable[[World], dict[str, Any]]] = {
    "inputs": lambda world: bad_inputs.disturb(world.made, world.asked.seed),
    "environments": lambda world: bad_inputs.elsewhere(world.made),
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
    parser.add_argument("--record", action="store_true", help=f"write {report.PAGE.name}")
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
    found: dict[str, Any] = {}
    # Before anything else is committed.
    of = {"seed": asked.seed, "commit": disturbed.commit()}
    with ExitStack() as stack:
        folder = asked.at or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()
        folder.mkdir(exist_ok=True)
        stack.enter_context(disturbed.commands())
        world = _world(folder, asked)
        for name in asked.parts or PARTS:
            start = time.monotonic()
            found[name] = {"only": asked.stage} if asked.stage else {}
            found[name] |= {**PARTS[name](world), **of}
            found[name]["minutes"] = round((time.monotonic() - start) / 60, 1)
            print(name, json.dumps(found[name]), flush=True)
            if asked.record:
                report.write({name: found[name]})
    return int(any(part["faults"] for part in found.values()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
