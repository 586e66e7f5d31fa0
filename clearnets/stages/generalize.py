"""`clearnets generalize`: train a task's runs, and measure all of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, check_unchanged, write_table
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import TASKS, Source, Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="generalize",
    does="Follow training runs through their checkpoints: when does a network generalize?",
    example="clearnets generalize grokking",
    over=TASKS,
    params=("generalize.coders", "generalize.spectra", "generalize.{item}"),
    reads=("{source}",),
    writes=("artifacts/generalize/{item}",),
    on_device=True,
    without_models=True,
)


def units(config: Config, *, task: str) -> list[Unit]:
    """Return the one unit of a task. Local pictures and checkpoints are known by their content.

    Raises:
        UserError: they have changed since `clearnets exp` recorded it.
    """
    from clearnets.generalization import registry

    spec = registry.TASKS[task]
    own = spec.settings_in(config)
    keys = ("generalize.coders", "generalize.spectra", f"generalize.{task}")
    settings = {"task": task, **config.dump(*keys)}
    if files := spec.files(own):
        recorded, hashes = getattr(files.settings, "fingerprint", None), files.hashes()
        check_unchanged(files.path or "", hashes, recorded, experiment=config.experiment)
        settings |= {"files": hashes} if hashes else {}
    return [
        Unit(
            stage="generalize",
            out=paths.generalize(task),
            settings=settings,
            inputs=spec.inputs(own, config),
        )
    ]


def sources(config: Config) -> Iterator[Source]:
    """Yield local pictures, and checkpoints that were trained elsewhere."""
    from clearnets.generalization import registry

    for task in config.generalize.tasks:
        spec = registry.TASKS[task]
        files = spec.files(spec.settings_in(config))
        if files and files.path is not None:
            yield Source(("generalize", task, *files.at), files.key, files.hashes, task)


def run(config: Config, *, runtime: Runtime, task: str) -> None:
    """Write the tables of a task: `runs.csv`, `curves.csv`, `measures.csv`; or `spectra.csv`, too.

    Checkpoints and coders are dropped: they are large, and the same command makes them again.
    """
    for _, work in build_all(units(config, task=task)):
        _build(task, config, work, runtime)


def _build(name: str, config: Config, work: Work, runtime: Runtime) -> None:
    from clearnets.generalization import registry, run_tables

    task = registry.make(name, config)
    with progress(f"generalize {name}", task.work(), "steps") as bar:
        task.train(work.state, device=runtime.torch_device(), bar=bar)
    tables = run_tables.tables(name, config, work.state, runtime=runtime)
    for table, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_table(work.out / f"{table}.csv", columns, rows)
