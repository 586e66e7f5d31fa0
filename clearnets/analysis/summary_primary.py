"""The summary's tables of the primary contrasts, of dead latents and of the depth of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis.contrasts import PRIMARY
from clearnets.analysis.frames import pick, records
from clearnets.analysis.layer_contrasts import KEYS
from clearnets.analysis.samples import WHICH
from clearnets.analysis.text import DASH, Row, difference, number, percent, table
from clearnets.families import FAMILIES

# A row's p-value is written as a bound below this.
SMALLEST = 0.0001
NATS = ("sum_single", "joint", "joint_all")


def primary_parts(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the table of primary contrasts, and by layer; nothing where there are none."""
    if not len(frames["primary"]):
        return []
    return [_primary_table(frames["primary"], frames["contrasts"]), _layer_table(frames)]


def _primary_table(primary: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """Return the primary contrasts, tested, and beside them those of other latents."""
    same = {key: value for key, value in PRIMARY.items() if key != "latents"}
    shown = pick(contrasts, **same)
    rows = []
    for row in records(primary):
        own = _of(shown, row)
        cells = [difference(records(pick(own, latents=which))[0]) for which in WHICH]
        simultaneous = difference(row).partition(" ")[2] or DASH
        tests = [_p(row["p_adjusted"]), _p(row["p_equivalent_adjusted"])]
        rows.append([_pair(row), row["scorer"], *cells, simultaneous, row["level"], *tests])
    return table(
        [
            *("primary contrast", "scorer", *(f"{which} latents" for which in WHICH)),
            *("simultaneous", "over", "p", "p of equivalence"),
        ],
        rows,
    )


def _layer_table(frames: Mapping[str, pd.DataFrame]) -> str:
    """Return the primary contrasts by layer, and the tests of whether they vary."""
    by_layer = frames["layer_contrasts"]
    layers = sorted(set(by_layer["layer"]))
    rows = []
    for test in records(frames["layer_interactions"]):
        cells = {row["layer"]: row for row in records(_of(by_layer, test))}
        rows.append(
            [
                _pair(test),
                test["scorer"],
                *(_in_layer(cells[layer]) if layer in cells else DASH for layer in layers),
                _p(test["p"]),
                difference(test, "slope"),
            ]
        )
    head = ["by layer", "scorer", *(f"layer {layer:.0f}" for layer in layers)]
    return table([*head, "p of layer × family", "per layer"], rows)


def _in_layer(row: Row) -> str:
    """Return a difference; in brackets where the layer does not matter in both models."""
    return difference(row) if row["matters"] else f"({difference(row)})"


def dead_table(layers: pd.DataFrame) -> str:
    """Return the share of latents that are active nowhere, by trained family and layer; the mean
    over seeds."""
    own = pick(layers, kind="family").dropna(subset=["dead"])
    numbers = sorted(set(own["layer"]))
    rows = []
    for family in own["name"].unique():
        if FAMILIES[family].trained:
            dead = pick(own, name=family)
            by_layer: Any = dead.groupby("layer")["dead"].mean()
            most = float(np.max(dead["dead"]))
            rows.append([family, *map(percent, by_layer.reindex(numbers)), percent(most)])
    return table(["dead latents", *(f"layer {n:.0f}" for n in numbers), "most, any seed"], rows)


def depth_table(depth: pd.DataFrame) -> str:
    """Return how much of its depth each model uses; means over seeds."""
    rows = []
    for model in depth["model"].unique():
        own = pick(depth, model=model)
        nats = [number(float(np.mean(own[name])), ".3f") for name in NATS]
        matter = f"{own['layers_that_matter'].min()} of {own['layers'].max()}"
        rows.append([str(model), *nats, matter])
    return table(
        [
            *("depth: model", "all but layer 0, one by one", "together", "all layers together"),
            "layers that matter",
        ],
        rows,
    )


def _of(frame: pd.DataFrame, row: Row) -> pd.DataFrame:
    return pick(frame, **{key: row[key] for key in KEYS})


def _pair(row: Row) -> str:
    return f"**{row['a']} − {row['b']}**"


def _p(value: float) -> str:
    return f"< {SMALLEST:g}" if value < SMALLEST else number(value, ".2g")
