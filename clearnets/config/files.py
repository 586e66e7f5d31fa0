"""Reading parameters from files, and overlays over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearnets import UserError
from clearnets.config.experiment import Config

PARAMS = Path("params.yaml")
# Overlays of the default, one file for each experiment.
EXPERIMENTS = Path("experiments")
# More than a file of parameters or a record of a run has: a few lines of aliases of aliases stand
# for more than memory holds.
_MOST_VALUES = 1_000_000


def parse(values: Any, source: str) -> Config:
    """Return plain values as the typed config.

    Raises:
        UserError: one line that names the source, the key and what is expected.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected a mapping of keys to values")
    try:
        text = json.dumps(values, default=str)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{source}: write keys as text and values as JSON has them: {error}"
        ) from None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        faults = [_fault(e, values) for e in error.errors()]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{source}: {faults[0]}{more}") from None


def _fault(error: Any, values: Any) -> str:
    key = ".".join(_keys(error["loc"], values)) or "parameters"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; remove it or correct its spelling"
        case "missing":
            return f"key {key!r} is missing; add it"
        case "union_tag_invalid":
            kinds = error["ctx"]["expected_tags"]
            return f"{key}.kind: unknown kind {error['ctx']['tag']!r}; there are: {kinds}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (got {error['input']!r:.80})"


def _keys(loc: Iterable[str | int], values: Any) -> Iterator[str]:
    """Yield the keys of a pydantic location, without the kinds of variants among them."""
    for part in loc:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            continue
        yield str(part)
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list):
            # A tuple that is too short lacks the place.
            values = dict(enumerate(values)).get(int(part))


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        UserError: it is missing, not YAML, or more than memory may hold.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run in the project's folder") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not readable YAML: {error}") from None


def parse_yaml(text: str, source: str) -> Any:
    """Return the plain values of a text in YAML.

    Raises:
        UserError: it is not YAML, or its aliases stand for too much.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(text)
        size = _count(values, {})
    except RecursionError:
        raise UserError(f"{source} is nested too deeply, or in itself; write it flat") from None
    except (YAMLError, ValueError, TypeError) as error:  # A number may have too many digits.
        line = " ".join(str(error).split())
        raise UserError(f"{source} is not readable YAML: {line:.160}") from None
    if size > _MOST_VALUES:
        raise UserError(f"{source} stands for {size:.1g} values by its aliases; write fewer")
    return values


def _count(value: Any, known: dict[int, int]) -> int:
    """Return how many values a value is or holds; an alias counts as often as it stands for one.

    Args:
        known: the counts of collections by `id`, each of which is looked at once.

    Raises:
        RecursionError: a collection holds itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def load(path: Path = PARAMS) -> Config:
    """Return the typed config of a params file."""
    return parse(read_yaml(path), str(path))


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`: mappings merge, all else replaces.

    None removes a key. A mapping of another `kind` replaces the whole: it is another variant.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            merged[key] = overlay(old, value)
        else:
            merged[key] = value
    return merged


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "kind" not in new or new["kind"] == old.get("kind")


def value_at(tree: Any, key: str) -> Any:
    """Return the value under a dotted key of plain values; None where there is none."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def overlays() -> list[str]:
    """Return the names of the experiments in `experiments/`."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
