"""The declaration of a stage, and the table of all stages.

Every module of `clearnets.stages` is one stage. It holds

- `STAGE`, a `Stage`: all that is said of the stage anywhere;
- `units(config, **selection)`: the result folders that it makes;
- `run(config, *, runtime, **selection)`: make those that are stale; of a stage that can do several
  items `together`, `run(config, *, runtime, families)`;
- if it can tell what a run would ask of others, `estimate(config, **selection)`: lines of text;
- if it reads something from outside, `sources(config)`: an iterator of `Source`.

`dvc.yaml`, the commands and their help, `--dry-run`, the stage that makes a path, what an
experiment drops and the pipeline of the tests are all made from the declarations. So a new stage
is one new file. The modules are found by their place, not imported by name: the pipeline knows
nothing of what single stages compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path, PurePosixPath
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths

if TYPE_CHECKING:
    from clearnets.config import Config

_FOLDER = Path(__file__).parents[1] / "stages"
# DVC wants as many inputs of each item: one that reads nothing names this empty file.
NOTHING = "clearnets/py.typed"


@dataclass(frozen=True)
class Over:
    """What a stage is run over: one DVC stage, and one call of its command, for each item.

    Attributes:
        keyword: of `units` and `run`.
        option: of the command; an argument where it is empty.
        key: of params.yaml, where the items are just its list.
        items: the items of an experiment.
        source: what one item reads: the path that `{source}` stands for.
        sources: the templates of all that it may stand for.
    """

    keyword: str
    option: str
    key: str | None
    items: Callable[[Config], Sequence[str]]
    source: Callable[[Config, str], str]
    sources: tuple[str, ...]


def _weights(_: Config, family: str) -> str:
    return f"artifacts/{FAMILIES[family].weights}"


def _reseeded_or_weights(config: Config, family: str) -> str:
    again = family in config.reseeded_families
    return f"artifacts/reseed/{family}" if again else _weights(config, family)


def _model_of(_: Config, family: str) -> str:
    return f"artifacts/train/{FAMILIES[family].model}"


def _models_of(config: Config, task: str) -> str:
    if task != "checkpoints":
        return NOTHING
    return "artifacts/train" if config.generalize.reads_own_models else "artifacts/data"


_TRAINED, _CODED = "artifacts/train/{item}", "artifacts/coders/{item}"
_EQUAL = "artifacts/equalize/{item}"
MODELS = Over(
    *("mlp", "--mlp", "models", lambda c: c.models),
    *(lambda c, mlp: f"artifacts/train/{mlp}", (_TRAINED,)),
)
LATENTS = Over(
    *("family", "--aux", "families", lambda c: c.families),
    *(_weights, (_TRAINED, _CODED, _EQUAL)),
)
EXECUTED = Over(
    *("family", "--aux", None, lambda c: c.executed_families),
    *(_weights, (_TRAINED, _CODED, _EQUAL)),
)
CIRCUITS = replace(EXECUTED, items=lambda c: c.circuit_families)
CODERS = Over("family", "--aux", None, lambda c: c.coder_families, _model_of, (_TRAINED,))
RESEEDED = Over("family", "--aux", None, lambda c: c.reseeded_families, _model_of, (_TRAINED,))
STABLE = Over(
    *("family", "--aux", None, lambda c: c.stability_families),
    *(_reseeded_or_weights, ("artifacts/reseed/{item}", _TRAINED, _CODED, _EQUAL)),
)
EARLY = Over(
    *("family", "--aux", None, lambda c: [f for f in c.families if FAMILIES[f].equal_loss]),
    *(lambda c, family: f"artifacts/coders/{FAMILIES[family].equal_loss}", (_CODED,)),
)
TUNED = Over(
    *("subject", "", None, lambda c: c.tune.subjects),
    lambda c, subject: f"artifacts/{'match' if subject in c.tune.families else 'data'}",
    ("artifacts/match", "artifacts/data"),
)
TASKS = Over(
    *("task", "", "generalize.tasks", lambda c: c.generalize.tasks),
    *(_models_of, (_TRAINED, "artifacts/data")),
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the pipeline.

    In `params`, `reads`, `writes` and `small`, `{item}` stands for an item of `over`, `{source}`
    for what that item reads, `{experiment}` for the experiment. The parameter `model.{item}` is no
    key, but what of `model` a model with that feedforward depends on.

    Attributes:
        name: of the DVC stage, the command and the module.
        does: what it does, in the imperative: the command's help and DVC's description.
        example: the command with arguments that work on the default.
        over: what it is run over; None where it runs once.
        params: keys of params.yaml that it computes with.
        reads: files and folders of other stages, or of the repository.
        writes: its outputs that DVC's cache keeps.
        small: its outputs that git keeps.
        metrics: whether it also writes `artifacts/metrics/<name>[-<item>].json`.
        on_device: whether it computes with torch, so that its command takes a device.
        together: a key of each item: items of one key can be done by one command, in one pass. None
            where each is done by itself.
        by_layer: whether it can be run for some layers, with `--layers`.
        without_models: whether it also runs in an experiment that compares nothing.
        own_command: whether its command is written by hand, in `clearnets.cli`.
    """

    name: str
    does: str
    example: str
    over: Over | None = None
    params: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    metrics: bool = False
    on_device: bool = False
    together: Callable[[Config, str], str] | None = None
    by_layer: bool = False
    without_models: bool = False
    own_command: bool = False

    @property
    def module(self) -> Any:
        """The module that declares it."""
        return import_module(f"clearnets.stages.{self.name}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that it writes, with `{item}`."""
        metrics = (self.metrics_path("{item}" if self.over else None),) if self.metrics else ()
        return (*self.writes, *self.small, *metrics)

    @property
    def settings(self) -> tuple[str, ...]:
        """The parameters that each of its units is made with. A unit has one seed, not all."""
        return tuple(key for key in self.params if key != "seeds")

    def metrics_path(self, item: str | None) -> str:
        """Return where it writes the few numbers that `dvc metrics show` prints."""
        return f"artifacts/metrics/{self.name}{f'-{item}' if item else ''}.json"

    def items(self, config: Config) -> list[str | None]:
        """Return what it is run over in an experiment; [None] where it runs once."""
        if self.name in config.skip:
            return []
        return list(self.over.items(config)) if self.over else [None]

    def selection(self, config: Config, item: str | None) -> dict[str, Any]:
        """Return the keyword arguments of `units` for one item and all layers."""
        chosen: dict[str, Any] = {self.over.keyword: item} if self.over else {}
        return chosen | ({"layers": config.model.layers} if self.by_layer else {})

    def call(self, config: Config, items: Sequence[str | None]) -> dict[str, Any]:
        """Return the keyword arguments of `run` for one item, or several of one group, and all
        layers."""
        if self.together:
            return {"families": list(items)}
        (item,) = items
        return self.selection(config, item)

    def groups(self, config: Config, items: Sequence[str | None]) -> list[list[str | None]]:
        """Return the items, together those that can be done in one pass."""
        found: dict[str | None, list[str | None]] = {}
        for item in items:
            key = self.together(config, item) if self.together and item else item
            found.setdefault(key, []).append(item)
        return list(found.values())

    def of_item(self, item: str | None) -> str:
        """Return its DVC name for one item, e.g. `cache@sae`."""
        return f"{self.name}@{item}" if item else self.name

    def command(self, item: str | None) -> str:
        """Return its command for one item, without the program's name: `cache --aux sae`."""
        words = [self.over.option, item] if self.over and item else []
        return " ".join((self.name, *filter(None, words)))


@dataclass(frozen=True)
class Source:
    """Something that an experiment reads and no stage makes: a corpus, a model, coders.

    Attributes:
        at: where in the parameters it is described.
        key: which of the keys there may be a local path.
        identity: hashes that its content follows from; empty where only the parameters say.
        item: the item of the stage that alone reads it; None where all do.
    """

    at: tuple[str, ...]
    key: str
    identity: Callable[[], Mapping[str, str]]
    item: str | None = None


@cache
def table() -> dict[str, Stage]:
    """Return all stages by name, each behind those that it reads from."""
    names = sorted(module.name for module in iter_modules([str(_FOLDER)]))
    found = {name: import_module(f"clearnets.stages.{name}").STAGE for name in names}
    graph = {
        name: [
            other.name
            for other in found.values()
            if any(_meet(read, made) for read in _reads(stage) for made in other.outputs)
        ]
        for name, stage in found.items()
    }
    return {name: found[name] for name in TopologicalSorter(graph).static_order()}


def _reads(stage: Stage) -> tuple[str, ...]:
    """Return the templates of what a stage reads; of a `{source}`, all that it may stand for."""
    sources = stage.over.sources if stage.over else ()
    return tuple(
        path for read in stage.reads for path in (sources if read == "{source}" else (read,))
    )


def _meet(one: str, other: str) -> bool:
    """Whether one of two templates of paths lies in the other."""
    return all(a == b or "{" in a + b for a, b in zip(one.split("/"), other.split("/")))


def followers(config: Config, stage: Stage) -> Iterator[tuple[Stage, str | None]]:
    """Yield the stages of an experiment that read what `stage` writes, each with its items."""
    for other, item in items_of(config):
        if any(_meet(read, made) for read in _reads(other) for made in stage.outputs):
            yield other, item


def producer(path: Path) -> tuple[Stage, str | None] | None:
    """Return the stage that writes `path`, and the item for which it does; None if none does.

    Where the path does not say which item, neither does the answer.
    """
    for stage in table().values():
        for template in stage.outputs:
            matches, item = _match(template, path)
            if matches:
                return stage, item
    return None


def _match(template: str, path: Path) -> tuple[bool, str | None]:
    item = None
    parts = PurePosixPath(path.as_posix()).parts
    for number, pattern in enumerate(PurePosixPath(template).parts):
        if number == len(parts):
            return "{" in pattern, None
        before, hole, after = pattern.partition("{item}")
        here = parts[number]
        if hole and here.startswith(before) and here.endswith(after):
            item = here[len(before) : len(here) - len(after)]
        elif here != pattern and "{experiment}" not in pattern:
            return False, None
    return True, item


def rerun(path: Path) -> str | None:
    """Return the command that makes a path, as the user would type it; None if no stage does.

    In an experiment's worktree that is `clearnets exp NAME`, typed in the checkout, and so it is
    for the tables of another experiment than the default.
    """
    found = producer(path)
    if found is None:
        return None
    here = Path.cwd()
    if here.parent.parts[-len(paths.WORKTREES.parts) :] == paths.WORKTREES.parts:
        return f"clearnets exp {here.name}"
    if path.parts[:2] == ("paper", "results") and path.parts[2:3] not in ((), ("default",)):
        return f"clearnets exp {path.parts[2]}"
    stage, item = found
    return f"dvc repro {stage.of_item(item)}"


def names_of(config: Config) -> list[str]:
    """Return the DVC names of an experiment's stages, e.g. `cache@sae`, in their order."""
    return [stage.of_item(item) for stage, item in items_of(config)]


def items_of(config: Config) -> Iterator[tuple[Stage, str | None]]:
    """Yield every stage of an experiment with each of its items, in the order of the pipeline."""
    for stage in table().values():
        if config.compares or stage.without_models:
            yield from ((stage, item) for item in stage.items(config))
