"""`dvc.yaml` and `artifacts/code.json`, made from the tables of stages and families."""

from __future__ import annotations

from dataclasses import asdict, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import code, paths
from clearnets.pipeline.artifacts import fingerprint
from clearnets.pipeline.stage import (
    CIRCUITS,
    CODERS,
    EARLY,
    EXECUTED,
    LATENTS,
    RESEEDED,
    STABLE,
    Stage,
    table,
)

if TYPE_CHECKING:
    from clearnets.config import Config

HEADER = """\
# The pipeline: text to paper. Made by `clearnets plan` from the declarations in clearnets/stages/
# and the lists in params.yaml: change those, not this file.
"""
# What `dvc plots show` draws.
PLOTS: dict[str, Any] = {
    "losses": {
        "title": "Held-out loss",
        "template": "paper/plots/curves.json",
        "x": {"paper/results/${experiment}/curves.csv": "tokens"},
        "y": {"paper/results/${experiment}/curves.csv": "valid_loss"},
        "x_label": "training tokens",
        "y_label": "nats per token",
    }
}
# Longest list, in characters, that stands on one line.
_LINE = 90
# A parameter that is no key of params.yaml: `plan` writes its fingerprint by item to CODE.
_OF_MODEL = "model.{item}"
# The stage that writes CODE, by whose keys the others depend on code.
PLAN = "plan"


def pipeline(config: Config) -> str:
    """Return the text of `dvc.yaml` for an experiment."""
    own = {
        name: stage for name, stage in table().items() if stage.items(config) or not config.compares
    }
    parts = [_yaml({name: _entry(stage, config)}) for name, stage in own.items()]
    stages = "\n".join("".join(f"  {line}\n" for line in part.splitlines()) for part in parts)
    plots = _yaml({"plots": [{name: plot} for name, plot in PLOTS.items()]})
    return f"{HEADER}stages:\n{stages}\n{plots}"


def code_fingerprints(config: Config) -> dict[str, Any]:
    """Return what CODE holds.

    `stages`: by stage, the fingerprint of its code. `families`: by family, that of its row and of
    the coders of others that take its place. `table`: that of all rows, labels and colours, too.
    `model`: by feedforward, that of the parameters that such a model depends on.
    """
    existing = config.coders.existing
    rows = {
        name: [spec.identity(), existing[name].model_dump() if name in existing else None]
        for name, spec in FAMILIES.items()
    }
    return {
        "stages": {name: code.fingerprint(name) for name in sorted(table()) if name != PLAN},
        "families": {name: fingerprint(row) for name, row in rows.items()},
        "table": fingerprint([asdict(spec) for spec in FAMILIES.values()]),
        "model": {mlp: fingerprint(config.model.made_with(mlp)) for mlp in config.models},
    }


def _tracked(stage: Stage, item: str) -> list[str]:
    """Return the keys of CODE that a stage depends on."""
    keys = [f"stages.{stage.name}"]
    keys += [_OF_MODEL.format(item=item)] if _OF_MODEL in stage.params else []
    if stage.over in (LATENTS, CODERS, EARLY, EXECUTED, CIRCUITS, RESEEDED, STABLE):
        return [*keys, f"families.{item}"]
    return [*keys, "table"] if code.reaches(stage.name, "clearnets.families") else keys


def _entry(stage: Stage, config: Config) -> dict[str, Any]:
    """Return a stage as `dvc.yaml` has it."""
    if stage.over is None:
        return _body(_readable(stage, config), "")
    if "{source}" in stage.reads:
        sources = {item: stage.over.source(config, item) for item in stage.over.items(config)}
        return {"foreach": sources, "do": _body(stage, "${key}", "${item}")}
    word = stage.over.option.lstrip("-") or stage.over.keyword
    key, items = stage.over.key, list(stage.over.items(config))
    listed = f"${{{key}}}" if key else _short(items)
    body = _body(stage, f"${{item.{word}}}")
    return {"matrix": {word: listed}, **body}


def _readable(stage: Stage, config: Config) -> Stage:
    """Return the stage without the folders that no stage writes in this experiment."""
    idle = [
        template.split("/{")[0]
        for other in table().values()
        if not other.items(config)
        for template in other.outputs
    ]
    return replace(stage, reads=tuple(path for path in stage.reads if path not in idle))


def _body(stage: Stage, item: str, source: str = "") -> dict[str, Any]:
    def filled(template: str) -> str:
        for hole, value in (
            ("{item}", item),
            ("{source}", source),
            ("{experiment}", "${experiment}"),
        ):
            template = template.replace(hole, value)
        return template

    params: list[Any] = [filled(key) for key in stage.params if key != _OF_MODEL]
    if stage.name != PLAN:
        params.append({paths.CODE.as_posix(): _short(_tracked(stage, item))})
    uncached = [{filled(path): {"cache": False}} for path in stage.small]
    metrics = [{stage.metrics_path(item or None): {"cache": False}}] if stage.metrics else []
    body = {
        "desc": stage.does,
        "cmd": f"clearnets {stage.command(item or None)}",
        "params": params,
        "deps": _short([filled(path) for path in stage.reads]),
        "outs": [*map(filled, stage.writes), *uncached],
        "metrics": metrics,
    }
    return {key: value for key, value in body.items() if value}


def _short(keys: list[str]) -> list[str]:
    """Return a list that stands on one line, where DVC can read it so: without `${...}`."""
    from ruamel.yaml.comments import CommentedSeq

    listed = CommentedSeq(keys)
    line = ", ".join(keys)
    if "${" not in line and len(line) < _LINE:
        listed.fa.set_flow_style()
    return listed


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    yaml, out = YAML(), StringIO()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, out)
    return out.getvalue()
