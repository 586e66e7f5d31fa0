"""The recorded run behind a result: the checkout's own, or that of an experiment whose results came
home to `paper/results/NAME/` with its `dvc.lock` and commit."""

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

# What a run makes under a place of its own, by its name at home in the folder of tables.
HOME = {path.name: path for path in (paths.FIGURES, paths.PAPER, paths.LATEX)}
# Of what no hash was recorded.
NO_HASH = "not recorded"


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        steps: each behind those that it reads from.
        lock: the file of the record.
        origin: where the record is from, in words.
        experiment: its name; None for the checkout's own.
    """

    steps: list[Step]
    lock: Path
    origin: str
    experiment: str | None = None

    def recorded(self, path: str) -> str:
        """What the record calls a path of this checkout."""
        if self.experiment:
            folder = paths.results(self.experiment)
            parts = (
                Path(path).relative_to(folder).parts if Path(path).is_relative_to(folder) else ()
            )
            if parts and parts[0] in HOME:
                return HOME[parts[0]].joinpath(*parts[1:]).as_posix()
        return path

    def here(self, path: str) -> Path:
        """Where in this checkout that lies which the record calls `path`, if it is here."""
        if not self.experiment:
            return Path(path)
        folder = paths.results(self.experiment)
        if Path(path).is_relative_to(folder):
            return Path(path)
        for name, place in HOME.items():
            if Path(path).is_relative_to(place):
                return folder / name / Path(path).relative_to(place)
        return paths.WORKTREES / self.experiment / path

    def absent(self, steps: list[Step]) -> str:
        """What is not here of what some steps wrote, in words; empty where nothing is lacking."""
        made = [entry.path for step in steps for entry in step.writes if entry.size]
        lacking = [path for path in made if not self.here(path).exists()]
        if not lacking:
            return ""
        cure = "`dvc pull` brings what a remote has, `dvc repro` makes it"
        if self.experiment:
            cure = f"`clearnets exp {self.experiment}` makes it"
        return f"not here: {first_of(lacking)}; {cure}"


def of(path: str, experiment: str | None = None) -> Run:
    """The run behind a path.

    Args:
        experiment: its name, where `path` is named as in its record.

    Raises:
        UserError: there is no such experiment, or no record of it.
    """
    own = read_yaml(PARAMS).get("experiment") if PARAMS.exists() else None
    name = experiment or _named_in(path)
    if Path(path).name in (LOCK.name, COMMIT):
        raise UserError(f"{path} is a record of a run, which no stage wrote; name a result")
    if name in (None, own):
        commit = commit_of(LOCK)
        return Run(read_lock(), LOCK, f"as recorded{f' by commit {commit}' if commit else ''}")
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
    return Run([*steps, *_after(steps, name)], lock, f"of experiment {name}{at}", name)


def _named_in(path: str) -> str | None:
    """The experiment in whose results a path lies."""
    parts = Path(path).parts
    return parts[2] if parts[:2] == paths.results("").parts and len(parts) > 2 else None


def _after(steps: list[Step], name: str) -> list[Step]:
    """What an experiment that compares nothing runs behind DVC's stages, which its record lacks:
    collating, as its manifest says, and drawing."""
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
