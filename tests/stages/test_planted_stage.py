"""`clearnets planted` at a small size, and its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from clearnets import config
from clearnets.analysis import planted as tables
from clearnets.analysis.summary_planted import planted_table
from clearnets.latents.planted_truth import DICTIONARIES
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import planted

KINDS = ("topk", "jumprelu")
ROOT = Path(__file__).parents[2]
SIZES = {"seeds": [0, 1], "features": 16, "dimensions": 16, "active": 2, "noise": 0.02}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> pd.DataFrame:
    values = config.read_yaml(ROOT / "params.yaml")
    values["planted"] |= {**SIZES, "tokens": 1000, "steps": 40}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted, "SELECTIONS", KINDS)
        patch.chdir(tmp_path_factory.mktemp("planted"))
        planted.run(config.parse(values, "test"), runtime=Runtime(device="cpu", threads=1))
        return pd.read_csv(paths.planted() / planted.TABLE)


def test_every_measure_is_taken_of_every_dictionary(found):
    names = {*DICTIONARIES, *KINDS, "untrained"}
    assert set(found["dictionary"]) == names
    sizes = found.groupby(["seed", "measure"])["dictionary"].nunique()
    assert (sizes == len(names)).all()
    assert found["value"].between(-1, 1).all()


def test_where_features_hardly_disturb_each_other_they_are_recovered(found):
    by_name = found.pivot_table(index="dictionary", columns="measure", values="value")
    assert by_name["truth"]["true"] == pytest.approx(1)
    assert by_name["stability"]["true"] == 1
    for measure in by_name:
        assert by_name[measure]["true"] > by_name[measure]["random"], measure
    assert by_name["truth"]["topk"] > by_name["truth"]["untrained"] + 0.1


def test_orders_are_those_of_every_world(found):
    made = tables.tables(found)
    orders = made["planted_orders"].set_index(["measure", "better", "worse"])
    row = orders.loc[("explained", "true", "rotated")]
    values = found[found["measure"] == "explained"].pivot(
        index="dictionary", columns="seed", values="value"
    )
    difference = values.loc["true"] - values.loc["rotated"]
    assert row["difference"] == pytest.approx(difference.mean())
    assert (row["least"], row["largest"]) == (difference.min(), difference.max())
    assert row["passes"] == (difference > 0).all()
    assert ("stability", "topk", "untrained") in orders.index
    text = planted_table(made["planted"], made["planted_orders"])
    assert "coder: topk" in text
    assert "nan" not in text
