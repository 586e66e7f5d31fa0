"""A page's data, made up: what `clearnets.browser.gather` gives, of any size, with texts that would
be markup if the page let them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from clearnets.browser.findings import REASONS
from clearnets.browser.gather import family_spec

FAMILIES = ["native", "transcoder", "random-native"]
SCORERS = ["rule-detection", "embedding"]
EVIL = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
TOKENS = ["", "", " ¶", " the", " fox", " ran", " <b>home</b>", ".", "\n", EVIL]
WINDOWS, LENGTH, LEVELS = 40, 8, 255


def page(latents: int = 60, *, layers: int = 2, seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """The same page for the same size."""
    rng = np.random.default_rng(latents)
    names = [
        (family, seed, layer)
        for family in range(len(FAMILIES))
        for seed in seeds
        for layer in range(layers)
    ]
    rows = []
    for number in range(latents):
        family, seed, layer = names[number * len(names) // latents]
        alive = number % 7 != 3
        rows.append(
            {
                "family": family,
                "seed": seed,
                "layer": layer,
                "latent": number,
                "status": "explained" if alive else "too_rare",
                "explanation": f'The word "w{number}" {EVIL if number == 0 else "again"}.'
                if alive
                else None,
                "trigger": "fox" if number % 2 else None,
                "scores": [round(float(rng.random()), 4), None] if alive else [None, None],
                "concept": number % 2 if alive else None,
                "f1": round(float(rng.random()), 4) if alive else None,
                "mcc": 0.5 if alive else None,
                "count": 100,
                "rate": round(float(10 ** rng.uniform(-4, -1)), 6),
                "windows": 0.2,
                "largest": 2.5,
                "histogram": rng.integers(0, 50, 12).tolist(),
                "examples": [_example(rng, quantile) for quantile in (0, 0, 1, 2)],
                "fires": [[1, 5], [], [2], [0]] if alive else [None] * 4,
                "effect": [f'Raises "fox"; lowers "{EVIL}".', 0.9, 0.12] if number % 2 else None,
                "simulated": [1.25, 0.01, 0.4] if alive else None,
                "active": [_example(rng, 0) for _ in range(3)] if alive else [],
                "silent": rng.integers(0, WINDOWS, 3).tolist(),
                "tokens": [[3, 4], [5, 9]] if number % 3 else None,
                "exchanges": 1 if number == 0 else 0,
                "shown": [["explain", "judge", [["user", EVIL]], "a reply"]] if not number else [],
                "near": [[(number + latents // 3) % latents, 420]],
            }
        )
    text = {
        split: rng.integers(2, len(TOKENS), (WINDOWS, LENGTH)).tolist()
        for split in ("explain", "score")
    }
    return {
        "experiment": "made-up",
        "families": FAMILIES,
        "specs": {family: family_spec(family) for family in FAMILIES},
        "reasons": REASONS,
        "seeds": list(seeds),
        "layers": list(range(layers)),
        "scorers": SCORERS,
        "chance": [0.5, 0.5],
        "concepts": ["animal", "colour"],
        "quantiles": 2,
        "levels": LEVELS,
        "tokens": TOKENS,
        "special": ["", "", " ¶", *([None] * (len(TOKENS) - 3))],
        "text": text,
        "circuits": [
            _circuit(family, seed, task, rows, layers)
            for task in ("wear", "nonsense")
            for family in (0, 1)
            for seed in seeds
        ],
        "coverage": [
            {
                "family": FAMILIES[family],
                "seed": seed,
                "layer": layer,
                "latents": latents,
                "drawn": {"explained": 8, "too_rare": 2},
            }
            for family, seed, layer in names
        ],
        "latents": {key: [row[key] for row in rows] for key in rows[0]},
    }


def _circuit(family: int, seed: int, task: str, rows: list[dict], layers: int) -> dict[str, Any]:
    """A graph of six latents, of which every second one is in the page; effects fall."""
    tokens = ["<bos>", *(TOKENS[3 + n % 7] for n in range(LENGTH - 1))]
    own = [i for i, row in enumerate(rows) if (row["family"], row["seed"]) == (family, seed)]
    nodes: list[list[Any]] = []
    for number in range(6):
        effect = (-1) ** (number // 2) * round(0.9 - 0.1 * number, 2)
        if number % 2:
            place = [number % layers, 1 + number % 4, 1000 + number, effect]
            nodes.append([*place, None, f'The word "{EVIL}".'])
        else:
            row = rows[own[number]]
            nodes.append([row["layer"], 1 + number % 4, row["latent"], effect, own[number], None])
    links = [[number, -1, node[3] / 2] for number, node in enumerate(nodes)]
    links += [
        [source, target, 0.01 * (1 + source + target)]
        for source, target in product(range(6), repeat=2)
        if nodes[source][0] < nodes[target][0] and nodes[source][1] <= nodes[target][1]
    ]
    told = {"family": family, "seed": seed, "task": task, "tokens": tokens}
    told |= {"answers": [" boots", f" {EVIL}"], "accuracy": 0.9, "done": task == "wear"}
    return told | {
        "whole": 1.2,
        "none": -0.1,
        "errors": 0.3 * family,
        "nodes": nodes,
        "links": links,
    }


def _example(rng: np.random.Generator, quantile: int) -> list[int]:
    places = np.sort(rng.permutation(LENGTH)[:2]).tolist()
    flat = [int(rng.integers(0, WINDOWS)), quantile]
    for place in places:
        flat += [place, int(rng.integers(1, LEVELS + 1))]
    return flat
