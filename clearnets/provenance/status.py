"""Report which stages are fresh, stale or missing, and how long `dvc repro` would take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clearnets.pipeline import commands, paths, times
from clearnets.pipeline.console import first_of
from clearnets.provenance import dvc_cache, lockfile
from clearnets.provenance.lockfile import Fault, Step, overlap

FRESH, STALE, MISSING, NEW, BEHIND = "fresh", "stale", "missing", "never run", "behind"


@dataclass(frozen=True)
class Standing:
    """The state of one stage.

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


def dvc_faults(steps: Sequence[Step], code: Mapping[str, Any]) -> list[Fault]:
    """Return what `dvc status` finds, but for what only reads an output that is not as recorded.

    Args:
        steps: of the record.
        code: fingerprints of the code that is there: DVC does not see an edit before `clearnets
            plan` has run.

    Raises:
        UserError: DVC failed.
    """
    recorded = {step.name for step in steps}
    found = [
        fault
        for stage, changes in json.loads(commands.dvc("status", "--json")).items()
        for fault in (
            _of_stage(stage, changes)
            if stage in recorded
            else [Fault(stage, stage, lockfile.UNRECORDED)]
        )
    ]
    wrong = [fault.path for fault in found if fault.state in (lockfile.CHANGED, lockfile.MISSING)]
    own = [
        fault
        for fault in found
        if fault.state != lockfile.STALE or not any(overlap(fault.path, path) for path in wrong)
    ]
    return own + list(lockfile.code_faults(steps, code))


def _of_stage(stage: str, changes: Sequence[Any]) -> Iterator[Fault]:
    """Yield the faults that `dvc status --json` lists under one stage."""
    for change in changes:
        for kind, of in change.items() if isinstance(change, dict) else [(change, None)]:
            if not isinstance(of, dict):
                yield Fault(stage, f"{paths.PIPELINE}: {kind}", lockfile.STALE)
                continue
            for path, state in of.items():
                if kind == "changed outs":
                    missing = state in ("deleted", "not in cache")
                    yield Fault(stage, path, lockfile.MISSING if missing else lockfile.CHANGED)
                elif isinstance(state, dict):
                    yield from (Fault(stage, f"{path}: {key}", lockfile.STALE) for key in state)
                else:
                    yield Fault(stage, path, lockfile.STALE)


def standings(
    steps: Sequence[Step],
    found: Sequence[Fault],
    seconds: Mapping[str, float],
    cached: frozenset[str] = frozenset(),
) -> list[Standing]:
    """Return every stage's state, in the order of the pipeline; those that never ran at the end.

    Args:
        steps: of the record, in order.
        found: of `dvc_faults`.
        seconds: what stages took, by name.
        cached: outputs that DVC's cache holds.
    """
    by_step: dict[str, list[Fault]] = {}
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


def in_cache(steps: Sequence[Step]) -> frozenset[str]:
    """Return the recorded outputs that DVC's cache holds completely, by path."""
    folder = commands.dvc_cache()
    return frozenset(
        made.path
        for step in steps
        for made in step.writes
        if dvc_cache.is_complete(made.md5, folder)
    )


def format_report(
    standing: Sequence[Standing], record: times.Record | None = None
) -> Iterator[str]:
    """Yield the standings as lines of text.

    Args:
        record: times of another machine, for stages that were not timed on this one.
    """
    rows = [s for s in standing if s.state != FRESH]
    borrowed = [s for s in rows if record and s.seconds is None and s.stage in record.seconds]
    if record:
        rows = [replace(s, seconds=record.seconds[s.stage]) if s in borrowed else s for s in rows]
    if rows:
        width = max(len(s.stage) for s in rows)
        for s in rows:
            time = "not timed" if s.seconds is None else _duration(s.seconds)
            why = ("in DVC's cache: " if s.restorable else "") + first_of(s.causes)
            yield f"{s.stage:{width}}  {s.state:9}  {time:>9}  {why}".rstrip()
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
