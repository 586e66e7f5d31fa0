"""The figures and tables of the grid, on cells whose scores and losses are made up."""

from __future__ import annotations

import importlib
import itertools
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, t

from clearnets.config import overlay, read_yaml
from clearnets.families import FAMILIES

ROOT = Path(__file__).parents[2]
SCORES = {"native": 0.72, "topk-native": 0.7, "transcoder": 0.74, "groupmax-transcoder": 0.73}
SCORES |= {"random-native": 0.6, "sae": 0.69}
LOSS = {"dense": 1.0, "sparse": 1.01, "sparse_topk": 0.99}


@pytest.fixture(scope="module")
def grid():
    """The script, which imports nothing of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "paper/scripts"))
        yield importlib.import_module("grid")
        for name in ("grid", "common"):
            sys.modules.pop(name, None)


def cell(folder: Path, shift: float, seeds=(0, 1, 2)) -> None:
    """The tables of a cell: `shift` moves coders' scores against those of native latents."""
    rows, spliced = [], []
    for number, (family, seed) in enumerate(itertools.product(SCORES, seeds)):
        coder = family.endswith(("transcoder", "sae"))
        for scorer in ("rule-detection", "rule-fuzzing"):
            score = SCORES[family] + shift * coder + 0.001 * ((7 * number) % 5)
            row = {"family": family, "seed": seed, "scorer": scorer, "mean": score}
            row |= {"measure": "balanced_accuracy", "explanation": "own"}
            rows.append(row | {"latents": "live", "layers": "matter"})
            rows.append(row | {"latents": "explained", "layers": "all", "mean": 9})
            rows.append(row | {"seed": "all", "latents": "live", "layers": "matter", "mean": 9})
        if coder:
            spliced.append({"family": family, "seed": seed, "loss_clean": 1, "loss_splice": 1.25})
    models = [
        {"kind": "model", "name": name, "seed": seed, "heldout_loss": loss}
        for (name, loss), seed in itertools.product(LOSS.items(), seeds)
    ]
    folder.mkdir(parents=True)
    for name, table in (("means", rows), ("splice_all", spliced), ("compute", models)):
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
    families = pd.DataFrame([asdict(row) for row in FAMILIES.values()])
    families.rename(columns={"name": "family"}).to_csv(folder / "families.csv", index=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory, grid):
    folder = tmp_path_factory.mktemp("results")
    cell(folder / "default", 0)
    cell(folder / "grid-k8", 0)
    cell(folder / "grid-k4", 0)
    cell(folder / "grid-tokens-4m", -0.03)
    cell(folder / "grid-selections", 0)
    importlib.import_module("common").load_families(folder / "default")
    return folder


def test_points_take_the_score_of_live_latents_and_the_loss_above_the_dense_model(results, grid):
    points = grid.points(results)
    assert len(points) == 4 * len(SCORES) * 3 * 2
    found = points.set_index(["cell", "family", "seed", "scorer"]).loc["grid-k8"]
    nats = found["nats"].groupby("family").mean()
    assert nats["transcoder"] == pytest.approx(0.25)
    assert nats["native"] == pytest.approx(0.01)
    assert nats["topk-native"] == pytest.approx(-0.01)
    assert np.isnan(nats["random-native"])
    assert found.loc["native", 1, "rule-fuzzing"]["score"] == pytest.approx(0.72 + 0.002)


def test_orders_are_kendalls_tau_within_seeds(results, grid):
    points = grid.points(results)
    orders = grid.orders(points).set_index(["scorer", "cell"])
    trained = [name for name in SCORES if name != "random-native"]
    wide = points[points["scorer"] == "rule-detection"].pivot_table(
        index="family", columns=["cell", "seed"], values="score"
    )
    wide = wide.loc[trained]
    by_cell = {}
    for name in ("grid-k4", "grid-tokens-4m", "grid-selections"):
        taus = [kendalltau(wide[name, s], wide["grid-k8", s]).statistic for s in (0, 1, 2)]
        by_cell[name] = taus
        assert orders.loc["rule-detection", name]["tau"] == pytest.approx(np.mean(taus))
    assert orders.loc["rule-detection", "grid-k4"]["low"] == 1
    mean = np.mean(list(by_cell.values()), axis=0)
    row = orders.loc["rule-detection", "all"]
    for seeds, reach in grid.REACH.items():
        assert reach == pytest.approx(t.ppf((1 + grid.LEVEL) / 2, seeds - 1), abs=1e-3)
    low, high = t.interval(grid.LEVEL, 2, mean.mean(), mean.std(ddof=1) / 3**0.5)
    assert row["tau"] == pytest.approx(mean.mean())
    if mean.std():
        assert row[["low", "high"]].tolist() == pytest.approx([low, min(high, 1)], abs=1e-4)


def test_figures_are_drawn_and_left_out_where_there_is_no_grid(results, grid, tmp_path):
    drawn = grid.draw(results / "default")
    assert set(drawn) == {"grid", "grid-order"}
    for figure, caption in drawn.values():
        figure.savefig(tmp_path / "one.svg")
        assert "3 training seeds" in caption
    cell(tmp_path / "default", 0)
    assert grid.draw(tmp_path / "default") is None
    cell(tmp_path / "grid-k8", 0)
    assert grid.draw(tmp_path / "default") is None


def test_factors_are_those_of_the_overlays(grid):
    base = read_yaml(ROOT / "params.yaml")
    keys = {"k": ("model", "k"), "width": ("model", "hidden_size"), "tokens": ("data", "tokens")}
    known = {
        name: overlay(base, read_yaml(ROOT / f"experiments/{name}.yaml")) for name in grid.CELLS
    }
    assert {f"experiments/{name}.yaml" for name in known} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("grid-*.yaml")
    }
    for factor, cells in grid.FACTORS.items():
        first, second = keys[factor]
        for name, value in cells.items():
            found = known[name][first][second]
            assert (found["train"] / 1e6 if factor == "tokens" else found) == value
