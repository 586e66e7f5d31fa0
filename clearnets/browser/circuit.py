"""The circuit of one task on a terminal, and as a graph for the viewer of circuit-tracer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Any

from clearnets import UserError
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.config import Config, parse_family, parse_seed
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl

LATENT = "cross layer transcoder"
"""What circuit-tracer calls a latent of any kind."""


@dataclass(frozen=True)
class Circuit:
    """The latents with the largest effects on one task.

    Attributes:
        family, task: whose it is.
        layers: of the model.
        answer: what `clearnets circuits` says of the task.
        nodes: its latents by falling effect, with `explanation`, None where there is none.
        links: between these, and to the answer.
    """

    family: str
    task: str
    layers: int
    answer: dict[str, Any]
    nodes: list[dict[str, Any]]
    links: list[dict[str, Any]]


def find(config: Config, family: str, task: str, count: int, *, seed: int | None) -> Circuit:
    """Return the `count` latents with the largest effects on a task.

    Raises:
        UserError: there is no such family, task or seed, no circuit of it, or no result.
    """
    name, number = parse_family(family, config), parse_seed(seed, config)
    if name not in config.circuit_families:
        there = ", ".join(config.circuit_families) or "none"
        raise UserError(f"{name} has no circuits; families that have: {there}")
    folder = paths.circuits(name, number)
    answers = {record["task"]: record for record in read_jsonl(folder / "answers.jsonl")}
    if task not in answers:
        raise UserError(f"unknown task {task!r}; there are: {', '.join(answers)}")
    own = [node for node in read_jsonl(folder / "nodes.jsonl") if node["task"] == task]
    if not own:
        can = ", ".join(t for t, record in answers.items() if record["tokens"]) or "none"
        raise UserError(f"the model of {name} cannot do {task}; tasks with circuits: {can}")
    said = {
        (layer, record["latent"]): record["explanation"]
        for layer, point in config.hookpoints_by_layer(name).items()
        for record in read_jsonl(paths.explain(name, number, point) / EXPLANATIONS)
    }
    nodes = [
        node | {"explanation": said.get((node["layer"], node["latent"]))} for node in own[:count]
    ]
    links = [
        link
        for link in read_jsonl(folder / "links.jsonl")
        if link["task"] == task and max(link["source"], link["target"] or 0) < count
    ]
    return Circuit(name, task, config.model.num_layers, answers[task], nodes, links)


def lines(circuit: Circuit) -> Iterator[str]:
    """Yield the circuit as lines of text."""
    answer = circuit.answer
    right, wrong = answer["answers"]
    yield f"{circuit.family} · {circuit.task}"
    yield f"{''.join(answer['tokens'][1:])} →{right}, not{wrong}"
    yield (
        f"accuracy {answer['accuracy']:.2f}, logit difference {answer['whole']:+.2f}; "
        f"{answer['none']:+.2f} with all nodes at their mean"
    )
    yield ""
    yield " effect  layer  latent  token"
    for node in circuit.nodes:
        token = answer["tokens"][node["position"]].strip()
        place = f"{token} ({node['position']})"
        yield (
            f"{node['integrated']:+7.3f}  {node['layer']:>5}  {node['latent']:>6}  {place:<16}"
            f"{node['explanation'] or ''}"
        ).rstrip()


def graph(circuit: Circuit) -> dict[str, Any]:
    """Return the circuit in the format of circuit-tracer's graph files: the tokens of one prompt,
    the latents and their links.

    Its viewer wants a probability of the answer: here that of the right one out of the two, at the
    mean logit difference. A latent's `influence` is the share of the summed absolute effects that
    it and all larger ones have, by which the viewer leaves out small ones.
    """
    tokens, (right, _) = circuit.answer["tokens"], circuit.answer["answers"]
    last, probability = len(tokens) - 1, 1 / (1 + exp(-circuit.answer["whole"]))
    said = f'Output "{right}" (p={probability:.3f})'
    answer = _node(circuit.layers + 1, 0, last, "logit", said) | {"token_prob": probability}
    size = [abs(node["integrated"]) for node in circuit.nodes]
    latents = [
        _node(node["layer"], node["latent"], node["position"], LATENT, node["explanation"] or "")
        | {"influence": largest / sum(size)}
        for node, largest in zip(circuit.nodes, accumulate(size))
    ]
    embeddings = [
        _node("E", position, position, "embedding", f'Emb: "{token}"')
        for position, token in enumerate(tokens)
    ]
    links = [
        {
            "source": latents[link["source"]]["node_id"],
            "target": (answer if link["target"] is None else latents[link["target"]])["node_id"],
            "weight": link["weight"],
        }
        for link in circuit.links
    ]
    return {
        "metadata": {
            "slug": f"{circuit.family}-{circuit.task}",
            "scan": circuit.family,
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": "".join(tokens),
            "node_threshold": None,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [*embeddings, *latents, answer],
        "links": links,
    }


def _node(layer: int | str, number: int, position: int, kind: str, clerp: str) -> dict[str, Any]:
    feature, name = number, f"{'L' if kind == 'logit' else layer}_{number}-{position}"
    if kind == LATENT:
        # The viewer knows a latent by one number: Cantor's of its layer and its own.
        total = int(layer) + number
        feature, name = total * (total + 1) // 2 + number, f"{layer}_{number}-0"
    return {
        "node_id": f"{layer}_{number}_{position}",
        "feature": feature,
        "layer": str(layer),
        "ctx_idx": position,
        "feature_type": kind,
        "token_prob": 0.0,
        "run_idx": 0,
        "is_target_logit": kind == "logit",
        "reverse_ctx_idx": 0,
        "jsNodeId": name,
        "clerp": clerp,
        "influence": None,
        "activation": None,
    }
