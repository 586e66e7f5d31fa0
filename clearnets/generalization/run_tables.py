"""The tables of one task: its runs, their curves, and the metrics of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clearnets.config import Config
from clearnets.generalization import registry, spectra
from clearnets.generalization.checkpoint_metrics import measure_run
from clearnets.generalization.tasks import OUTCOME, WORKER_IMPORTS, Run, Task, curve
from clearnets.pipeline.artifacts import JsonlWriter, read_json
from clearnets.pipeline.processes import cores, each
from clearnets.pipeline.runtime import Runtime, progress

Rows = list[dict[str, Any]]
_LAST = ("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def tables(name: str, config: Config, folder: Path, *, runtime: Runtime) -> dict[str, Rows]:
    """Return the rows of `curves`, `runs` and `measures` of a task whose runs are trained.

    A row of `measures` is a checkpoint and hookpoint with a column for every metric. With the
    setting `generalize.spectra` there is a table `spectra`, too; see `spectra.table`. Runs that a
    killed process has measured are not measured again.

    Args:
        folder: where the task has trained its runs.
    """
    task = registry.make(name, config)
    runs = task.runs()
    measures = _measures(task, name, config, folder, runtime)
    curves = {run.name: curve(run, folder) for run in runs}
    found = {
        "curves": [{"run": run.name, **row} for run in runs for row in curves[run.name]],
        "runs": [_outcome(run, curves[run.name][-1], folder) for run in runs],
        **{
            table: [{"run": run.name, **row} for run in runs for row in measures[run.name][table]]
            for table in ("measures", *(["spectra"] if config.generalize.spectra else []))
        },
    }
    return {table: [_rounded(row) for row in rows] for table, rows in found.items()}


def _measures(
    task: Task, name: str, config: Config, folder: Path, runtime: Runtime
) -> dict[str, dict[str, Rows]]:
    """Return the metrics of all runs by run and table, and write them to `measures.jsonl`."""
    sizes = {run.name: len(task.checkpoints(run, folder)) for run in task.runs()}
    with (
        progress(f"measure {name}", sum(sizes.values()), "checkpoints") as bar,
        JsonlWriter(folder / "measures.jsonl") as file,
    ):
        measures = {record["run"]: record["tables"] for record in file.done}
        left = [run for run in task.runs() if run.name not in measures]
        bar.advance(sum(sizes[done] for done in measures))
        for run, found in zip(left, _measured(left, name, config, folder, runtime)):
            file.append({"run": run.name, "tables": found})
            measures[run.name] = found
            bar.advance(sizes[run.name], note=run.name)
    return measures


def _measured(
    runs: Sequence[Run], name: str, config: Config, folder: Path, runtime: Runtime
) -> Iterator[dict[str, Rows]]:
    """Yield the metrics of each run by table, several runs at a time.

    Each run has a process with one thread, so that the number of processes changes no byte.
    """
    jobs = [(run, name, config, folder, runtime) for run in runs]
    # One at a time on a GPU, whose memory they would share.
    workers = cores() if runtime.torch_device().type == "cpu" else 1
    return each(_measure, jobs, workers=workers, preload=WORKER_IMPORTS)


def _measure(
    run: Run, name: str, config: Config, folder: Path, runtime: Runtime
) -> dict[str, Rows]:
    device = Runtime(runtime.device, threads=1).torch_device()
    task, settings = registry.make(name, config), config.generalize.coders
    found = {"measures": list(measure_run(task, run, folder, settings, device=device))}
    if count := config.generalize.spectra:
        found["spectra"] = list(spectra.table(task, run, folder, count=count))
    return found


def _outcome(run: Run, last: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a run is, the end of its curve, and its gap of test and training loss.

    The gap is None where the task has no training loss.
    """
    known = last["train_loss"] is not None
    outcome = folder / run.name / OUTCOME
    return {
        "run": run.name,
        "seed": run.seed,
        "variant": run.variant,
        **run.settings,
        **{key: last[key] for key in _LAST},
        "gap": last["test_loss"] - last["train_loss"] if known else None,
        "reached": read_json(outcome)["reached"] if outcome.exists() else True,
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row at six significant digits: enough for every figure, in small tables."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
