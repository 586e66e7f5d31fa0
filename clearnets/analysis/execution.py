"""Tables of executed explanations: what is left of a model that runs on them.

| table | one row per |
|---|---|
| execution | family, seed, place (a layer, all `later` ones summed, `all` at once), stand-in |
| execution_latents | family, seed, layer or `all`: how many latents are explained and how well each by itself is simulated |

Share kept is 1 - KL(exact, stand-in) / KL(exact, mean): 1 for the exact latents, 0 for latents at
their mean, whatever the exact latents themselves are worth. Intervals are percentiles of a
bootstrap over documents, the same draws for every family; `kept_low_layers` and `kept_high_layers`
of the sum over layers are of one over layers (`clearnets.analysis.multilevel_bootstrap`).

Shapes: P places, C stand-ins, R rows of text, D documents, B bootstrap draws.
"""  # noqa: E501  # A table.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis.executed import Executed, Key
from clearnets.analysis.frames import sort
from clearnets.analysis.multilevel_bootstrap import interval
from clearnets.analysis.samples import bootstrap
from clearnets.config import Collate, Config

MEAN, TOGETHER, LATER = "mean", "all", "later"
COLUMNS = (
    *("family", "seed", "layer", "stand_in", "tokens", "documents"),
    *(f"{name}{end}" for name in ("nats", "kl", "kept") for end in ("", "_low", "_high")),
    *("kept_low_layers", "kept_high_layers", "confidence"),
)
LATENT_COLUMNS = ("family", "seed", "layer", "latents", "explained", "r2")


def tables(found: Mapping[Key, Executed], config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables by name; without rows where nothing was executed."""
    rows, latents = [], []
    for (family, seed), one in found.items():
        names = {"family": family, "seed": seed}
        rows += [names | row for row in _rows(one, config.collate)]
        latents += [names | row for row in _latents(one)]
    made = {
        "execution": pd.DataFrame(rows, columns=pd.Index(COLUMNS)),
        "execution_latents": pd.DataFrame(latents, columns=pd.Index(LATENT_COLUMNS)),
    }
    return {name: sort(table, ["family", "seed"]) for name, table in made.items()}


def _latents(one: Executed) -> list[dict[str, Any]]:
    """Return the rows of `execution_latents`."""
    layers = {str(number): layer for number, layer in one.layers.items()}
    keys = ("latents", "explained", "error", "variance")
    layers[TOGETHER] = {key: sum(layer[key] for layer in one.layers.values()) for key in keys}
    return [
        {
            "layer": name,
            "latents": layer["latents"],
            "explained": layer["explained"],
            "r2": 1 - layer["error"] / layer["variance"] if layer["variance"] else np.nan,
        }
        for name, layer in layers.items()
    ]


def _rows(one: Executed, settings: Collate) -> list[dict[str, Any]]:
    """Return the rows of `execution`."""
    kl_PCD, above_PCD, tokens_D = _by_document(one)
    how = bootstrap(settings, "execution")
    documents = len(tokens_D)
    weight_BD = how["rng"].multinomial(
        documents, np.full(documents, 1 / documents), size=how["resamples"]
    )
    every_1D = np.ones((1, documents))
    # Of a model's layers some may be read, the first not among them.
    later = slice(int(0 in one.layers), len(one.layers))
    places = [*map(str, one.layers), TOGETHER, LATER]
    value, draws = (
        _numbers(weight_xD, kl_PCD, above_PCD, tokens_D, one.stand_ins, later)
        for weight_xD in (every_1D, weight_BD)
    )
    tail = 50 * (1 - settings.confidence)
    ends = {key: np.nanpercentile(x, [tail, 100 - tail], axis=0) for key, x in draws.items()}
    rows = []
    for p, place in enumerate(places):
        for c, name in enumerate(one.stand_ins):
            row: dict[str, Any] = {"layer": place, "stand_in": name, "documents": documents}
            for key in ("nats", "kl", "kept"):
                row[key] = value[key][0, p, c]
                row[f"{key}_low"], row[f"{key}_high"] = ends[key][:, p, c]
            if place == LATER:
                row |= _over_layers(kl_PCD[later].sum(-1), one.stand_ins, c, row["kept"], how)
            row |= {"tokens": int(one.tokens_R.sum()), "confidence": settings.confidence}
            rows.append(row)
    return rows


def _by_document(one: Executed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums by document: divergences and losses above the clean model's (P, C, D), predicted
    tokens (D,)."""
    documents, place_R = np.unique(one.document_R, return_inverse=True)
    member_RD = (place_R[:, None] == np.arange(len(documents))).astype(np.float64)
    above_PCR = one.nll_PCR - one.clean_R
    return one.kl_PCR @ member_RD, above_PCR @ member_RD, one.tokens_R @ member_RD


def _numbers(
    weight_BD: np.ndarray,
    kl_PCD: np.ndarray,
    above_PCD: np.ndarray,
    tokens_D: np.ndarray,
    stand_ins: Any,
    later: slice,
) -> dict[str, np.ndarray]:
    """Return nats, KL and share kept, (B, P + 1, C), for each weighting of the documents; the last
    place is the sum over the places `later`, the layers behind the model's first."""
    tokens_B11 = (weight_BD @ tokens_D)[:, None, None]
    found = {}
    for key, sums_PCD in (("nats", above_PCD), ("kl", kl_PCD)):
        means_BPC = np.einsum("bd,pcd->bpc", weight_BD, sums_PCD) / tokens_B11
        later_B1C = means_BPC[:, later].sum(axis=1, keepdims=True)
        found[key] = np.concatenate([means_BPC, later_B1C], axis=1)
    at = list(stand_ins).index(MEAN)
    found["kept"] = _kept(found["kl"], found["kl"][..., at, None])
    return found


def _kept(kl: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """Return 1 - KL / KL of the mean; nan where the mean is as good as exact latents."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(worst > 0, 1 - kl / worst, np.nan)


def _over_layers(
    kl_LC: np.ndarray, stand_ins: Any, column: int, value: float, how: Mapping[str, Any]
) -> dict[str, float]:
    """Return the interval of a share kept over layers, from sums by layer and stand-in."""
    layers, at = len(kl_LC), list(stand_ins).index(MEAN)
    draws = np.zeros(0)
    if layers > 1:
        weight_BL = how["rng"].multinomial(
            layers, np.full(layers, 1 / layers), size=how["resamples"]
        )
        sums_BC = weight_BL @ kl_LC
        draws = _kept(sums_BC[:, column], sums_BC[:, at])
    found = interval(value, draws, layers, confidence=how["confidence"])
    return {"kept_low_layers": found.low, "kept_high_layers": found.high}
