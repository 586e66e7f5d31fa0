"""Checks of what a command works on: families, models, tasks, seeds and layers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from clearnets import UserError
from clearnets.config.experiment import Config
from clearnets.config.generalize import TASKS, TaskName
from clearnets.config.names import MLPS, Family, Mlp
from clearnets.families import FAMILIES


def parse_choice(label: str, name: str, known: Sequence[str], offered: Sequence[str] = ()) -> str:
    """Return `name`, if it is one of `known`.

    Args:
        label: what the error calls it, e.g. the option.
        offered: which of `known` the error lists; all where empty.

    Raises:
        UserError: it is not.
    """
    if name not in known:
        raise UserError(f"unknown {label} {name!r}; choose one of {', '.join(offered or known)}")
    return name


def parse_family(
    name: str, config: Config, label: str = "family", *, among: Sequence[str] = tuple(FAMILIES)
) -> Family:
    """Return `name`, if it is a family of the experiment, and one of some.

    Raises:
        UserError: it is not.
    """
    own = [family for family in among if family in config.families]
    parse_choice(label, name, among, own)
    _check_has(name, own, config, f"family {name!r}", "add it to `families`")
    return name


def parse_mlp(name: str, config: Config) -> Mlp:
    """Return `name`, if it is the feedforward of one of the experiment's models.

    Raises:
        UserError: it is not.
    """
    parse_choice("--mlp", name, MLPS, config.models)
    _check_has(name, config.models, config, f"{name!r} model", "change `models`")
    return cast(Mlp, name)


def parse_subject(name: str, config: Config) -> str:
    """Return `name`, if the experiment searches for the recipe of such a model or family.

    Raises:
        UserError: it does not.
    """
    known = (*MLPS, *(family for family, spec in FAMILIES.items() if spec.is_coder))
    parse_choice("subject", name, known, config.tune.subjects)
    cure = "add it to `tune.models` or `tune.families`"
    _check_has(name, config.tune.subjects, config, f"search for {name!r}", cure)
    return name


def parse_task(name: str, config: Config) -> TaskName:
    """Return `name`, if it is a task of the experiment.

    Raises:
        UserError: it is not.
    """
    own = tuple(config.generalize.tasks)
    parse_choice("task", name, TASKS, own)
    _check_has(name, own, config, f"task {name!r}", "add it to `generalize.tasks`")
    return cast(TaskName, name)


def _check_has(name: str, own: Sequence[str], config: Config, what: str, cure: str) -> None:
    if name not in own:
        others = f"choose one of {', '.join(own)}, or " if own else ""
        raise UserError(f"experiment {config.experiment!r} has no {what}; {others}{cure}")


def parse_seed(seed: int | None, config: Config) -> int:
    """Return `seed`, if it is one of the experiment's training seeds; for None, the first.

    Raises:
        UserError: it is not.
    """
    if seed is None:
        return config.seeds[0]
    if seed not in config.seeds:
        listed = ", ".join(map(str, config.seeds))
        raise UserError(f"no training seed {seed}; choose one of {listed}")
    return seed


def layers_in_words(layers: Sequence[int]) -> str:
    """Return which layers there are, for an error."""
    if list(layers) == list(range(len(layers))):
        return f"layers go from 0 to {len(layers) - 1}"
    return f"the layers that are read are {', '.join(map(str, layers))}"


def parse_layers(text: str | None, config: Config) -> tuple[int, ...]:
    """Return the layers of "0-7", "2,5" or "0,3-5" that are read, sorted; for None, all.

    Raises:
        UserError: not a range, the wrong way round, or beyond the model.
    """
    every = config.model.layers
    if text is None:
        return every
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--layers {text!r}: write layers as 0-7 or 2,5")
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise UserError(f"--layers {text!r}: {low}-{high} is backwards; write {high}-{low}")
        for layer in (high, low):
            if layer not in every:
                raise UserError(f"--layers {text!r}: no layer {layer}; {layers_in_words(every)}")
        chosen.update(layer for layer in every if low <= layer <= high)
    return tuple(sorted(chosen))
