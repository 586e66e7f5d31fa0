"""Circuits as the page draws them: the latents with the largest effects on each task."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from clearnets.config import Config, Family
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl

ANSWER = -1
"""The answer as the target of a link."""


class Place(NamedTuple):
    """A latent, by the names that all stages know it by."""

    family: Family
    seed: int
    layer: int
    latent: int


def inputs(config: Config) -> dict[str, Path]:
    """Return the units with circuits, by name."""
    return {
        f"circuits/{family}/seed-{seed}": paths.circuits(family, seed)
        for seed, family in product(config.seeds, config.families)
        if config.runs("circuits", family)
    }


def read(config: Config) -> list[dict[str, Any]]:
    """Return a graph of the linked latents per family, seed and task that has circuits.

    A node has `layer`, `position`, `latent` and `effect` in logits; a link has the number of its
    source, that of its target or `ANSWER`, and its weight.

    Raises:
        UserError: a result is missing; it names the stage to run.
    """
    graphs = []
    for family, seed in product(config.families, config.seeds):
        if not config.runs("circuits", family):
            continue
        unit = paths.circuits(family, seed)
        nodes, links = (read_jsonl(unit / f"{name}.jsonl") for name in ("nodes", "links"))
        for answer in read_jsonl(unit / "answers.jsonl"):
            task = answer["task"]
            own = [node for node in nodes if node["task"] == task][: config.circuits.linked]
            if own:
                between = [link for link in links if link["task"] == task]
                graphs.append(_graph(family, seed, answer, own, between))
    return graphs


def _graph(
    family: Family,
    seed: int,
    answer: dict[str, Any],
    nodes: list[dict[str, Any]],
    links: list[dict[str, Any]],
) -> dict[str, Any]:
    told = ("task", "tokens", "answers", "accuracy", "done")
    return {
        "family": family,
        "seed": seed,
        **{key: answer[key] for key in told},
        **{key: _rounded(answer[key]) for key in ("whole", "none", "errors")},
        "nodes": [
            {key: node[key] for key in ("layer", "position", "latent")}
            | {"effect": _rounded(node["integrated"])}
            for node in nodes
        ],
        "links": [
            [
                link["source"],
                ANSWER if link["target"] is None else link["target"],
                _rounded(link["weight"]),
            ]
            for link in links
        ],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def places(graphs: list[dict[str, Any]]) -> list[Place]:
    """Return the latents of all graphs, each once."""
    every = (
        Place(graph["family"], graph["seed"], node["layer"], node["latent"])
        for graph in graphs
        for node in graph["nodes"]
    )
    return list(dict.fromkeys(every))


def page(
    graphs: list[dict[str, Any]],
    families: list[Family],
    rows: Mapping[Place, int],
    said: Mapping[Place, str | None],
) -> list[dict[str, Any]]:
    """Return the graphs as the page has them: nodes as lists of layer, position, latent, effect,
    row among the page's latents, and a sentence.

    Args:
        rows: the latents that were drawn.
        said: sentences about the others.
    """
    made = []
    for graph in graphs:
        nodes = []
        for node in graph["nodes"]:
            place = Place(graph["family"], graph["seed"], node["layer"], node["latent"])
            nodes.append([*node.values(), rows.get(place), said.get(place)])
        made.append(graph | {"family": families.index(graph["family"]), "nodes": nodes})
    return made
