"""The table of tasks whose training runs `clearnets generalize` measures, one row each.

A new task is a new row here, its parameters in `clearnets.config.generalize`, and a module with a
class that has the methods of `clearnets.generalization.tasks.Task`. Without torch at import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.config import Checkpoints, Config, Grokking, PictureCurves, PictureGrid
from clearnets.data import images
from clearnets.pipeline import paths

if TYPE_CHECKING:
    from clearnets.generalization.tasks import Task


@dataclass(frozen=True)
class Files:
    """Files that a task reads and no stage writes.

    Attributes:
        settings: the parameters that describe them; `fingerprint`, if there, is of their hashes.
        at: where in the task's parameters these are.
        key: which of them may be a local path.
        hashes: returns the files' hashes; none where only the parameters describe them.
    """

    settings: Any
    at: tuple[str, ...]
    key: str
    hashes: Callable[[], Mapping[str, str]]

    @property
    def path(self) -> str | None:
        """The local path, if there is one."""
        return getattr(self.settings, self.key, None)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task.

    Attributes:
        name: what `clearnets generalize` takes, and the key of its parameters in `generalize`.
        settings: the type of these parameters.
        make: its `Task`, from the parameters and the whole configuration.
        inputs: the units of other stages that it reads, by name.
        files: the files that it reads and no stage writes.
    """

    name: str
    settings: type
    make: Callable[[Any, Config], Task]
    inputs: Callable[[Any, Config], dict[str, Path]] = lambda settings, config: {}
    files: Callable[[Any], Files | None] = lambda settings: None

    def settings_in(self, config: Config) -> Any:
        """Return the task's parameters."""
        settings = getattr(config.generalize, self.name)
        assert isinstance(settings, self.settings)
        return settings


def make(name: str, config: Config) -> Task:
    """Return the task of this name."""
    spec = TASKS[name]
    return spec.make(spec.settings_in(config), config)


def _grokking(settings: Grokking, _: Config) -> Task:
    from clearnets.generalization.grokking import GrokkingTask

    return GrokkingTask(settings)


def _pictures(settings: PictureCurves | PictureGrid, _: Config) -> Task:
    from clearnets.generalization.pictures import PictureTask

    return PictureTask(settings)


def _picture_files(settings: PictureCurves | PictureGrid) -> Files:
    source = settings.pictures
    return Files(source, ("pictures",), "path", partial(images.fingerprints, source))


def _checkpoints(settings: Checkpoints, config: Config) -> Task:
    from clearnets.generalization.checkpoints import CheckpointsTask

    return CheckpointsTask(settings, config)


def _checkpoint_inputs(settings: Checkpoints, config: Config) -> dict[str, Path]:
    """Return the text and, unless another model is named, the experiment's training runs."""
    own = config.models if settings.name is None else ()
    trained = {
        f"train/{mlp}-seed-{seed}": paths.train(mlp, seed) for mlp in own for seed in config.seeds
    }
    return {"data": paths.data(), **trained}


def _checkpoint_files(settings: Checkpoints) -> Files:
    from clearnets.generalization.checkpoints import identity

    return Files(settings, (), "name", partial(identity, settings))


_ROWS = (
    TaskSpec(name="grokking", settings=Grokking, make=_grokking),
    TaskSpec(name="digits", settings=PictureCurves, make=_pictures, files=_picture_files),
    TaskSpec(name="grid", settings=PictureGrid, make=_pictures, files=_picture_files),
    TaskSpec(name="mnist", settings=PictureCurves, make=_pictures, files=_picture_files),
    TaskSpec(name="cifar10", settings=PictureCurves, make=_pictures, files=_picture_files),
    TaskSpec(
        name="checkpoints",
        settings=Checkpoints,
        make=_checkpoints,
        inputs=_checkpoint_inputs,
        files=_checkpoint_files,
    ),
)

TASKS: dict[str, TaskSpec] = {row.name: row for row in _ROWS}
