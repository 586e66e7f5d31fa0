"""`dvc.yaml` and `artifacts/code.json`, made from the tables of stages and families."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import code, paths
from clearnets.pipeline.artifacts import fingerprint
from clearnets.pipeline.stage import CODERS, LATENTS, Stage, table

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
# The stage that writes CODE, by whose keys the others depend on code.
PLAN = "plan"


def pipeline(config: Config) -> str:
    """Return the text of `dvc.yaml` for an experiment."""
    parts = [_yaml({name: _entry(stage, config)}) for name, stage in table().items()]
    stages = "\n".join("".join(f"  {line}\n" for line in part.splitlines()) for part in parts)
    plots = _yaml({"plots": [{name: plot} for name, plot in PLOTS.items()]})
    return f"{HEADER}stages:\n{stages}\n{plots}"


def code_fingerprints() -> dict[str, dict[str, str]]:
    """Return what CODE holds: by stage the fingerprint of its code, by family that of its row."""
    return {
        "stages": {
            name: code.fingerprint(name, family_tracked=_tracks_family(stage))
            for name, stage in sorted(table().items())
            if name != PLAN
        },
        "families": {name: fingerprint(spec.identity()) for name, spec in FAMILIES.items()},
    }


def _tracks_family(stage: Stage) -> bool:
    return stage.over in (LATENTS, CODERS)


def _entry(stage: Stage, config: Config) -> dict[str, Any]:
    """Return a stage as `dvc.yaml` has it."""
    if stage.over is None:
        return _body(stage, "")
    if "{source}" in stage.reads:
        sources = {item: stage.over.source(config, item) for item in stage.over.items(config)}
        return {"foreach": sources, "do": _body(stage, "${key}", "${item}")}
    word = stage.over.option.lstrip("-") or stage.over.keyword
    listed = f"${{{stage.over.key}}}" if stage.over.key else list(stage.over.items(config))
    body = _body(stage, f"${{item.{word}}}")
    return {"matrix": {word: listed}, **body}


def _body(stage: Stage, item: str, source: str = "") -> dict[str, Any]:
    def filled(template: str) -> str:
        for hole, value in (
            ("{item}", item),
            ("{source}", source),
            ("{experiment}", "${experiment}"),
        ):
            template = template.replace(hole, value)
        return template

    words = [stage.over.option, item] if stage.over else []
    params: list[Any] = [filled(key) for key in stage.params]
    if stage.name != PLAN:
        tracked = [f"stages.{stage.name}"]
        tracked += [f"families.{item}"] if _tracks_family(stage) else []
        params.append({paths.CODE.as_posix(): _short(tracked)})
    uncached = [{filled(path): {"cache": False}} for path in stage.small]
    metrics = [{stage.metrics_path(item or None): {"cache": False}}] if stage.metrics else []
    body = {
        "desc": stage.does,
        "cmd": " ".join(("clearnets", stage.name, *filter(None, words))),
        "params": params,
        "deps": [filled(path) for path in stage.reads],
        "outs": [*map(filled, stage.writes), *uncached],
        "metrics": metrics,
    }
    return {key: value for key, value in body.items() if value}


def _short(keys: list[str]) -> list[str]:
    """Return a list that stands on one line, where DVC can read it so: without `${...}`."""
    from ruamel.yaml.comments import CommentedSeq

    listed = CommentedSeq(keys)
    if not any("${" in key for key in keys):
        listed.fa.set_flow_style()
    return listed


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    yaml, out = YAML(), StringIO()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, out)
    return out.getvalue()
