"""Which stages are fresh, stale or missing, and what `dvc repro` would take: by the same record and
rules as `clearnets verify`, but a file is hashed again only where its size or time has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clearnets.pipeline import times
from clearnets.pipeline.artifacts import write_text
from clearnets.pipeline.console import first_of
from clearnets.pipeline.paths import LOGS
from clearnets.provenance import dvc_cache, lockfile

FRESH, STALE, MISSING, NEW, BEHIND = "fresh", "stale", "missing", "never run", "behind"
HASHES = LOGS / "hashes.json"


@dataclass(frozen=True)
class Standing:
    """How one stage stands.

    Attributes:
        state: FRESH; STALE: an input or output is not as recorded; MISSING: an output is not here;
            NEW: it has not run; BEHIND: it reads from one of those, and runs again if that comes
            out otherwise.
        causes: paths and parameters that are the reason.
        seconds: what it took when it last ran, if that is known.
        restorable: it only lacks outputs that DVC's cache holds.
    """

    stage: str
    state: str
    causes: tuple[str, ...] = ()
    seconds: float | None = None
    restorable: bool = False


class Hashes:
    """MD5 of files, remembered by size and time of change."""

    def __init__(self, path: Path = HASHES) -> None:
        self._path = path
        try:
            self._known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def __call__(self, path: Path) -> str:
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        found = self._known.get(str(path))
        if found is None or found[:3] != mark:
            found = self._known[str(path)] = [*mark, lockfile.md5_of_file(path)]
        return found[3]

    def keep(self) -> None:
        """Write them down."""
        write_text(self._path, json.dumps(self._known))


def standings(
    steps: Sequence[lockfile.Step],
    found: Sequence[lockfile.Fault],
    seconds: Mapping[str, float],
    cached: frozenset[str] = frozenset(),
) -> list[Standing]:
    """Every stage, in the order of the pipeline; those that have never run at the end.

    Args:
        steps: of the record, in order.
        found: what `trail.faults` finds.
        seconds: what stages took, by name.
        cached: outputs that DVC's cache holds.
    """
    by_step: dict[str, list[lockfile.Fault]] = {}
    for fault in found:
        by_step.setdefault(fault.step, []).append(fault)
    made: dict[str, Standing] = {}
    for step in steps:
        faults = by_step.get(step.name, [])
        causes = tuple(dict.fromkeys(fault.path for fault in faults))
        # What differs weighs more than what is not there.
        kinds = {MISSING if fault.state == lockfile.MISSING else STALE for fault in faults}
        state = next((kind for kind in (STALE, MISSING) if kind in kinds), FRESH)
        restorable = state == MISSING and cached.issuperset(causes)
        if state == FRESH:
            before = [
                other.name
                for other in lockfile.makers(step, steps)
                if made[other.name].state != FRESH and not made[other.name].restorable
            ]
            state, causes = (BEHIND, tuple(before)) if before else (FRESH, ())
        made[step.name] = Standing(step.name, state, causes, seconds.get(step.name), restorable)
    for name in by_step:
        if name not in made:
            made[name] = Standing(name, NEW, (), seconds.get(name))
    return list(made.values())


def in_cache(steps: Sequence[lockfile.Step], root: Path = Path()) -> frozenset[str]:
    """Outputs of the record that DVC's cache could bring back, by path."""
    folder = dvc_cache.cache(root)
    return frozenset(
        made.path for step in steps for made in step.writes if dvc_cache.whole(made.md5, folder)
    )


def told(standing: Sequence[Standing], record: times.Record | None = None) -> Iterator[str]:
    """The standings as lines of text.

    Args:
        record: what stages without a time took elsewhere.
    """
    rows = [s for s in standing if s.state != FRESH]
    borrowed = [s for s in rows if record and s.seconds is None and s.stage in record.seconds]
    if record:
        rows = [replace(s, seconds=record.seconds[s.stage]) if s in borrowed else s for s in rows]
    if rows:
        width = max(len(s.stage) for s in rows)
        for s in rows:
            time = "not timed" if s.seconds is None else _duration(s.seconds)
            yield f"{s.stage:{width}}  {s.state:9}  {time:>9}  {_why(s)}".rstrip()
        yield ""
    counts = {state: sum(s.state == state for s in standing) for state in (STALE, MISSING, NEW)}
    others = "".join(f", {count} {state}" for state, count in counts.items() if count)
    behind = sum(s.state == BEHIND for s in standing)
    others += f", {behind} behind them" if behind else ""
    yield f"{len(standing) - len(rows)} of {len(standing)} stages fresh{others}"
    yield from _cost(rows)
    if borrowed and record:
        which = "times" if len(borrowed) == len(rows) else f"{len(borrowed)} of {len(rows)} times"
        yield f"{which} as recorded on {record.machine}; this machine has not run these stages"


def _why(s: Standing) -> str:
    return ("in DVC's cache: " if s.restorable else "") + first_of(s.causes)


def _cost(rows: Sequence[Standing]) -> Iterator[str]:
    if not rows:
        yield "`dvc repro` has nothing to do"
        return
    runs = [s for s in rows if not s.restorable]
    if not runs:
        yield "`dvc repro` only brings back what DVC's cache holds"
    elif all(s.seconds is None for s in runs):
        yield "what `dvc repro` takes is not known: none of these stages has been timed"
    else:
        first = [s for s in runs if s.state != BEHIND]
        behind = [s for s in runs if s.state == BEHIND]
        if first:
            yield f"`dvc repro` takes about {_sum(first)}"
        if behind:
            yield f"and those behind, if their inputs come out otherwise, about {_sum(behind)}"


def _sum(part: Sequence[Standing]) -> str:
    known = [s.seconds for s in part if s.seconds is not None]
    untimed = len(part) - len(known)
    never = f", not counting {untimed} that were never timed" if untimed else ""
    return _duration(sum(known)) + never


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
