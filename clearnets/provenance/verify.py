"""Report which files of a run's outputs differ from the record, and what restores each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline import commands
from clearnets.pipeline.artifacts import MANIFEST, read_json, sha256
from clearnets.pipeline.console import first_of
from clearnets.provenance import dvc_cache
from clearnets.provenance.lockfile import (
    CHANGED,
    MISSING,
    STALE,
    UNRECORDED,
    Entry,
    Fault,
    Step,
    listing,
    overlap,
)

EXTRA = "extra"
GIT, CACHE, DAMAGED, NOWHERE = "git", "cache", "damaged", "nowhere"
# Files of one output that are named before the others are counted.
SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A file of an output that is not as recorded; the output where its files are not known.

    Attributes:
        step: the stage that wrote the output.
        output: a file or folder.
        path: of the file.
        state: CHANGED; MISSING; EXTRA: the stage did not write it.
        source: what can restore it: GIT; CACHE; NOWHERE; DAMAGED: the copy in DVC's cache is
            changed, too.
        cached: its copy in DVC's cache, where that is DAMAGED.
    """

    step: str
    output: str
    path: str
    state: str
    source: str
    cached: Path | None = None


def differences(steps: Sequence[Step], found: Sequence[Fault]) -> Iterator[Difference]:
    """Yield the files behind what `lockfile.faults` found of outputs."""
    outputs = {made.path: made for step in steps for made in step.writes}
    wrong = [fault for fault in found if fault.state in (CHANGED, MISSING)]
    cache = commands.dvc_cache() if wrong else Path()
    for fault in wrong:
        yield from _of_output(fault, outputs[fault.path], cache)


def _of_output(fault: Fault, entry: Entry, cache: Path) -> Iterator[Difference]:
    recorded, source = dvc_cache.cached_files(entry, cache), CACHE
    if recorded is None:
        recorded, source = dvc_cache.committed_files(entry), GIT
    if recorded is None:
        source = NOWHERE
    if fault.state == MISSING:
        if source == CACHE and not dvc_cache.is_complete(entry.md5, cache):
            source = NOWHERE
        yield Difference(fault.step, entry.path, entry.path, MISSING, source)
        return
    if not entry.is_folder or not Path(entry.path).is_dir():
        states, md5s = {"": CHANGED}, {"": entry.md5}
    elif recorded is None:
        states, md5s = dict(_compare_manifests(Path(entry.path))) or {"": CHANGED}, {}
    else:
        states, md5s = dict(_compare(recorded, listing(Path(entry.path)))), recorded
    for name, state in sorted(states.items()):
        path = (Path(entry.path) / name).as_posix()
        restores, copy = source, None
        if source == CACHE and name in md5s:
            copy = dvc_cache.object_path(md5s[name], cache)
            if not copy.exists():
                restores = NOWHERE
            elif dvc_cache.is_damaged(md5s[name], cache):
                restores = DAMAGED
        yield Difference(fault.step, entry.path, path, state, restores, copy)


def _compare(recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the names at which two mappings from names to hashes differ, each with its state."""
    for name in {*recorded, *found}:
        if name not in found:
            yield name, MISSING
        elif name not in recorded:
            yield name, EXTRA
        elif found[name] != recorded[name]:
            yield name, CHANGED


def _compare_manifests(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that differ from the manifests of the units in a folder.

    A unit that is missing as a whole, and an output without manifests, go unnoticed.
    """
    for manifest in folder.rglob(MANIFEST):
        unit = manifest.parent
        within = unit.relative_to(folder)
        try:
            files = read_json(manifest)["files"]
            recorded = {name: entry["sha256"] for name, entry in files.items()}
        except (UserError, KeyError, TypeError, AttributeError):
            yield (within / MANIFEST).as_posix(), CHANGED
            continue
        found = {
            path.relative_to(unit).as_posix(): sha256(path)
            for path in unit.rglob("*")
            if path.is_file() and path != manifest
        }
        for name, state in _compare(recorded, found):
            yield (within / name).as_posix(), state


def format_report(
    steps: Sequence[Step], found: Sequence[Fault], differing: Sequence[Difference]
) -> Iterator[str]:
    """Yield what is not as recorded as lines of text, each kind with its cure."""
    new = dict.fromkeys(fault.path for fault in found if fault.state == UNRECORDED)
    if new:
        yield from (f"{UNRECORDED}: {name}" for name in new)
        yield "`dvc repro` runs what has not run"
        yield ""
    if differing:
        yield from _format_paths(differing)
        yield from _cures(differing)
        behind = {
            fault.step for fault in found if fault.state == STALE and _within(fault.path, differing)
        }
        if behind:
            yield f"stale until then, as they read these: {first_of(sorted(behind))}"
        yield ""
    stale: dict[str, list[str]] = {}
    for fault in found:
        if fault.state == STALE and not _within(fault.path, differing):
            stale.setdefault(fault.path, []).append(fault.step)
    if stale:
        for path, readers in stale.items():
            # A key of params.yaml is a parameter, params.yaml itself a file that a stage reads.
            what = path.replace("params.yaml: ", "parameter ")
            yield f"{STALE}: {what}, changed since {first_of(readers)} read it"
        yield "`dvc repro` makes anew what was made from them"
        yield ""
    yield _summary(steps, found, differing)


def format_place(departures: Sequence[str]) -> str:
    """Return a line that says on which machines a run has the same bytes as one here.

    Args:
        departures: `clearnets.arithmetic.departures`.
    """
    if departures:
        return f"a run here may differ from others in its last digits: {'; '.join(departures)}"
    return "a run here on a CPU: the bytes of every x86-64 processor with AVX2 and FMA"


def _within(path: str, differing: Iterable[Difference]) -> bool:
    return any(overlap(path, one.output) for one in differing)


def _format_paths(differing: Sequence[Difference]) -> Iterator[str]:
    """Yield a line for each file, but for at most SHOWN of one output."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in differing:
        whole = one.path == one.output
        place = one.path.rpartition("/")[0] if whole else one.output
        groups.setdefault((one.state, place), []).append(one.path)
    for (state, place), paths in sorted(groups.items()):
        yield from (f"{state}: {path}" for path in paths[:SHOWN])
        if len(paths) > SHOWN:
            yield f"{state}: and {len(paths) - SHOWN:,} more in {place}"


def _cures(differing: Sequence[Difference]) -> Iterator[str]:
    """Yield for each source the command that restores from it."""

    def of(*sources: str) -> list[Difference]:
        return [one for one in differing if one.source in sources]

    def outputs(part: Iterable[Difference]) -> str:
        return " ".join(dict.fromkeys(one.output for one in part))

    if cache := of(CACHE):
        # Forced, it asks nothing about files that it does not know.
        yield f"restore from DVC's cache: `dvc checkout --force {outputs(cache)}`"
    if lost := [one for one in of(GIT) if one.state != EXTRA]:
        yield f"restore from git: `git checkout HEAD -- {outputs(lost)}`"
    if others := [one for one in of(GIT, NOWHERE) if one.state == EXTRA]:
        yield f"remove what is extra: `rm {' '.join(one.path for one in others[:SHOWN])}`" + (
            " and the others" if len(others) > SHOWN else ""
        )
    if broken := of(DAMAGED):
        files = dict.fromkeys(str(one.cached) for one in broken)
        yield f"changed in DVC's cache, too: `rm -f {' '.join(files)}`, then `dvc repro`"
    if [one for one in of(NOWHERE) if one.state != EXTRA]:
        yield (
            "neither in DVC's cache nor as recorded in the last commit: `dvc pull` brings what a "
            "remote has, `dvc repro` makes it"
        )


def _summary(steps: Sequence[Step], found: Sequence[Fault], differing: Sequence[Difference]) -> str:
    by_state = {state: set() for state in (UNRECORDED, CHANGED, MISSING, EXTRA, STALE)}
    for fault in found:
        if fault.state in (UNRECORDED, STALE):
            by_state[fault.state].add(fault.step)
    for one in differing:
        by_state[one.state].add(one.step)
    wrong = {fault.step for fault in found}
    names = {step.name for step in steps} | wrong
    others = ", ".join(f"{len(of)} {state}" for state, of in by_state.items() if of)
    intact = len(names) - len(wrong)
    return f"{intact} of {len(names)} stages as recorded" + (f"; {others}" if others else "")
