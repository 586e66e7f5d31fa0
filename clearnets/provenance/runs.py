"""Find the recorded run behind a result.

It is the checkout's own, or that of an experiment, whose results lie in `paper/results/NAME/` with
their `dvc.lock` and commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clearnets import UserError
from clearnets.config import PARAMS, overlays, read_yaml
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import MANIFEST, read_json
from clearnets.pipeline.console import first_of
from clearnets.pipeline.paths import COMMIT, LOCK
from clearnets.provenance.lockfile import Entry, Step, commit_of, overlap, read_lock

# Outputs of a run that an experiment has in its folder of tables, by their name there.
_IN_RESULTS = {path.name: path for path in (paths.FIGURES, paths.PAPER, paths.LATEX)}
# The hash of an output that has none in the record.
NO_HASH = "not recorded"


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        steps: each after those that it reads from.
        origin: where the record is from, in words.
        experiment: its name; None for the checkout's own.
    """

    steps: list[Step]
    origin: str
    experiment: str | None = None

    def recorded(self, path: str) -> str:
        """Return the path by which the record names a path of this checkout."""
        if self.experiment:
            folder = paths.results(self.experiment)
            parts = (
                Path(path).relative_to(folder).parts if Path(path).is_relative_to(folder) else ()
            )
            if parts and parts[0] in _IN_RESULTS:
                return _IN_RESULTS[parts[0]].joinpath(*parts[1:]).as_posix()
        return path

    def here(self, path: str) -> Path:
        """Return where in this checkout a path of the record lies, if it is here."""
        if not self.experiment:
            return Path(path)
        folder = paths.results(self.experiment)
        if Path(path).is_relative_to(folder):
            return Path(path)
        for name, place in _IN_RESULTS.items():
            if Path(path).is_relative_to(place):
                return folder / name / Path(path).relative_to(place)
        return paths.WORKTREES / self.experiment / path

    def absent(self, steps: list[Step]) -> str:
        """Return a line about the outputs of some steps that are not here; empty if all are."""
        made = [entry.path for step in steps for entry in step.writes if entry.size]
        lacking = [path for path in made if not self.here(path).exists()]
        if not lacking:
            return ""
        cure = "`dvc pull` brings what a remote has, `dvc repro` makes it"
        if self.experiment:
            cure = f"`clearnets exp {self.experiment}` makes it"
        return f"not here: {first_of(lacking)}; {cure}"


def of(path: str, experiment: str | None = None) -> Run:
    """Return the run behind a path.

    Args:
        experiment: its name, if `path` is named as in that experiment's record.

    Raises:
        UserError: there is no such experiment, or no record of it.
    """
    own = read_yaml(PARAMS).get("experiment") if PARAMS.exists() else None
    name = experiment or _named_in(path)
    if Path(path).name in (LOCK.name, COMMIT):
        raise UserError(f"{path} is a record of a run, which no stage wrote; name a result")
    if name in (None, own):
        commit = commit_of(LOCK)
        return Run(read_lock(), f"as recorded{f' by commit {commit}' if commit else ''}")
    folder = paths.results(name)
    lock = folder / LOCK
    if not lock.exists():
        known = overlays()
        if name not in known:
            raise UserError(f"unknown experiment {name!r}; there are: {', '.join(known)}")
        raise UserError(f"{lock} is missing: no run is recorded; run `clearnets exp {name}`")
    commit = folder / COMMIT
    at = f", run at commit {commit.read_text().strip()[:12]}" if commit.exists() else ""
    steps = read_lock(lock)
    return Run([*steps, *_after(steps, name)], f"of experiment {name}{at}", name)


def _named_in(path: str) -> str | None:
    """Return the experiment in whose results a path lies."""
    parts = Path(path).parts
    return parts[2] if parts[:2] == paths.results("").parts and len(parts) > 2 else None


def _after(steps: list[Step], name: str) -> list[Step]:
    """Return the steps that an experiment that compares nothing runs outside of DVC.

    Its record lacks them: collating, as the manifest of its tables says, and drawing.
    """
    folder = paths.results(name)
    if any(overlap(made.path, folder.as_posix()) for step in steps for made in step.writes):
        return []
    manifest = read_json(folder / MANIFEST)
    made = {entry.path: entry for step in steps for entry in step.writes}
    inputs = [(paths.ARTIFACTS / name).as_posix() for name in manifest["inputs"]]
    tables, figures = (
        Entry(
            place.as_posix(), NO_HASH, sum(f.stat().st_size for f in there.iterdir() if f.is_file())
        )
        for place, there in ((folder, folder), (paths.FIGURES, folder / paths.FIGURES.name))
    )
    reads = tuple(made[path] for path in inputs if path in made)
    return [
        Step("collate", "clearnets collate", reads, (tables,), manifest["settings"]),
        Step("figures", "clearnets figures", (tables,), (figures,), {}),
    ]
