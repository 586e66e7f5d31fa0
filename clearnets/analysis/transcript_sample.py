"""A sample of the exchanges with the language models that explain and judge.

`transcripts.jsonl` has, of every stage and family, the first few exchanges of its transcripts, an
object per line: stage, family, seed, hookpoint, settings, messages (role and content each), and
`reply`, or `error` where there was none. The transcripts themselves lie in DVC's cache (see
`clearnets.autointerp.llm.transcripts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearnets.autointerp.records import TRANSCRIPT_SAMPLE
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl

FILE = "transcripts.jsonl"
MOST = 3


def _groups(config: Config) -> Iterator[tuple[dict[str, Any], list[Path]]]:
    """Yield the keys of a group of exchanges, and the units that hold its transcripts."""
    if config.compares and config.score.judge:
        yield {"stage": "qualify"}, [paths.qualify()]
    asked = {
        "explain": (paths.explain, config.explain.explainer.kind == "delphi"),
        "score": (paths.score, config.score.judge is not None),
    }
    for family in config.families:
        points = config.hookpoints(family)
        for stage, (place, by_model) in asked.items():
            if by_model:
                units = [place(family, seed, point) for seed in config.seeds for point in points]
                yield {"stage": stage, "family": family}, units


def inputs(config: Config) -> dict[str, Path]:
    """Return the units that the sample is taken from, by name; none without a language model."""
    return {
        "/".join(unit.parts[1:]): unit
        for names, units in _groups(config)
        if names["stage"] != "score"  # The tables need those anyway.
        for unit in units
    }


def sample(config: Config) -> list[dict[str, Any]]:
    """Return the exchanges in order; none without a language model."""
    return [
        exchange
        for names, units in _groups(config)
        for exchange in [
            {**names, **_readable(entry, unit)}
            for unit in units
            for entry in read_jsonl(unit / TRANSCRIPT_SAMPLE)
        ][:MOST]
    ]


def _readable(entry: dict[str, Any], unit: Path) -> dict[str, Any]:
    said = {"error": entry["error"]} if "error" in entry else {"reply": entry["reply"]["text"]}
    where = {}
    if unit != paths.qualify():
        where = {"seed": int(unit.parts[-2].removeprefix("seed-")), "hookpoint": unit.name}
    return {**where, "settings": entry["settings"], "messages": entry["messages"], **said}
