"""`clearnets generalize`: train a task's runs, and measure all of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.data import images
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    JsonlWriter,
    Unit,
    Work,
    build_all,
    check_unchanged,
    read_json,
    write_table,
)
from clearnets.pipeline.processes import each
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import TASKS, Source, Stage

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.generalization.tasks import Run, Task

WHOLE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


STAGE = Stage(
    name="generalize",
    does="Follow training runs through their checkpoints: when does a network generalize?",
    example="clearnets generalize grokking",
    over=TASKS,
    params=("generalize.coders", "generalize.{item}"),
    reads=("{source}",),
    writes=("artifacts/generalize/{item}",),
    runs_on="device",
    without_models=True,
)


def units(config: Config, *, task: str) -> list[Unit]:
    """The one unit of a task. Local pictures and checkpoints are known by their content.

    Raises:
        UserError: they have changed since `clearnets exp` recorded it.
    """
    made = _task(config, task)
    settings = {"task": task, **config.dump("generalize.coders", f"generalize.{task}")}
    if found := _files(getattr(config.generalize, task), config.experiment):
        settings["files"] = found
    return [
        Unit(
            stage="generalize",
            out=paths.generalize(task),
            settings=settings,
            inputs=getattr(made, "inputs", dict)(),
        )
    ]


def _files(settings: Any, experiment: str) -> dict[str, str]:
    """Hashes of the files, if there are any, that a task reads and no stage makes."""
    if hasattr(settings, "pictures"):
        source = settings.pictures
        found = images.fingerprints(source)
        name = getattr(source, "path", "")
    elif hasattr(settings, "fingerprint"):
        from clearnets.generalization import checkpoints

        source, found, name = settings, checkpoints.identity(settings), settings.name
    else:
        return {}
    check_unchanged(name, found, getattr(source, "fingerprint", None), experiment=experiment)
    return found


def sources(config: Config) -> Iterator[Source]:
    """Yield local pictures, and checkpoints that others trained."""
    for task in config.generalize.tasks:
        pictures = getattr(getattr(config.generalize, task), "pictures", None)
        if pictures is not None and pictures.kind == "local":
            at = ("generalize", task, "pictures")
            yield Source(at, "path", partial(images.fingerprints, pictures), task)
    found = config.generalize.checkpoints
    if "checkpoints" in config.generalize.tasks and found is not None and found.name is not None:
        from clearnets.generalization import checkpoints

        at = ("generalize", "checkpoints")
        yield Source(at, "name", partial(checkpoints.identity, found), "checkpoints")


def run(config: Config, *, runtime: Runtime, task: str) -> None:
    """Write the tables of a task: `runs.csv`, `curves.csv` and `measures.csv`. Checkpoints and
    coders are dropped: they are large, and the same command makes them again."""
    for _, work in build_all(units(config, task=task)):
        _build(_task(config, task), task, config, work, runtime)


def _task(config: Config, name: str) -> Task:
    settings: Any = getattr(config.generalize, name)
    if name == "grokking":
        from clearnets.generalization.grokking import GrokkingTask

        return GrokkingTask(settings)
    if name == "checkpoints":
        from clearnets.generalization.checkpoints import CheckpointsTask

        return CheckpointsTask(settings, config)
    from clearnets.generalization.pictures import PictureTask

    return PictureTask(settings)


def _build(task: Task, name: str, config: Config, work: Work, runtime: Runtime) -> None:
    from clearnets.generalization.tasks import curve

    device = runtime.torch_device()
    with progress(f"generalize {name}", task.work(), "steps") as bar:
        task.train(work.state, device=device, bar=bar)
    runs = task.runs()
    total = sum(len(task.checkpoints(run, work.state)) for run in runs)
    with (
        progress(f"observe {name}", total, "checkpoints") as bar,
        JsonlWriter(work.state / "measures.jsonl") as file,
    ):
        measures = {record["run"]: record["rows"] for record in file.done}
        left = [run for run in runs if run.name not in measures]
        bar.advance(total - sum(len(task.checkpoints(run, work.state)) for run in left))
        for run, rows in _observed(left, name, config, work.state, runtime):
            file.append({"run": run.name, "rows": rows})
            measures[run.name] = rows
            bar.advance(len(task.checkpoints(run, work.state)), note=run.name)
    curves = {run.name: curve(run, work.state) for run in runs}
    _write(work.out / "curves.csv", _curves(runs, curves))
    _write(work.out / "runs.csv", _runs(runs, curves, work.state))
    _write(work.out / "measures.csv", _measures(runs, measures))


def _observed(
    runs: Sequence[Run], name: str, config: Config, folder: Path, runtime: Runtime
) -> Iterator[tuple[Run, list[dict[str, Any]]]]:
    """The measures of each run, in order: several runs at a time, each in a process with a thread
    of its own, so that their number changes no byte."""
    from clearnets.generalization.tasks import PRELOAD

    jobs = [(run, name, config, folder, runtime) for run in runs]
    # One at a time on a GPU, whose memory they would share.
    workers = runtime.num_threads if runtime.torch_device().type == "cpu" else 1
    found = each(_observe, jobs, workers=workers, preload=PRELOAD)
    yield from zip(runs, found)


def _observe(
    run: Run, name: str, config: Config, folder: Path, runtime: Runtime
) -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_limits

    from clearnets.generalization.observing import observe

    device = Runtime(runtime.device, threads=1).torch_device()
    task, settings = _task(config, name), config.generalize.coders
    with threadpool_limits(1):
        found = list(observe(task, run, folder, settings, device=device))
    return [vars(measure) for checkpoint in found for measure in checkpoint]


def _curves(runs: Sequence[Run], curves: Mapping[str, list[dict[str, Any]]]) -> list[dict]:
    return [{"run": run.name, **row} for run in runs for row in curves[run.name]]


def _runs(
    runs: Sequence[Run], curves: Mapping[str, list[dict[str, Any]]], folder: Path
) -> list[dict]:
    """A row per run: what it is, how it ended, and the gap of test and training loss; none where
    the task has no training loss."""
    from clearnets.generalization.tasks import OUTCOME

    rows = []
    for run in runs:
        last = curves[run.name][-1]
        ended = {key: last[key] for key in ("step", *WHOLE)}
        known = last["train_loss"] is not None
        gap = last["test_loss"] - last["train_loss"] if known else None
        names = {"run": run.name, "seed": run.seed, "variant": run.variant}
        outcome = folder / run.name / OUTCOME
        reached = read_json(outcome)["reached"] if outcome.exists() else True
        rows.append({**names, **run.settings, **ended, "gap": gap, "reached": reached})
    return rows


def _measures(runs: Sequence[Run], measures: Mapping[str, list[dict[str, Any]]]) -> list[dict]:
    """A row per checkpoint and hookpoint with a column for every metric: smaller than a row for
    each value."""
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for run in runs:
        for one in measures[run.name]:
            key = (run.name, one["step"], one["hookpoint"])
            row = rows.setdefault(key, dict(zip(("run", "step", "hookpoint"), key)))
            row[one["metric"]] = one["value"]
    return list(rows.values())


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = [_rounded(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(path, columns, rows)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Six significant digits are enough for every figure, and keep the tables small."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
