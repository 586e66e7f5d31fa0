"""Tables of circuits, against numbers that were put in."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_results

from clearnets.analysis import circuits, latents, layers, sources
from clearnets.analysis.frames import pick
from clearnets.analysis.summary_circuits import circuit_tables

CONFIG = synthetic_results.few()


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("results"))
        synthetic_results.write(CONFIG)
        found = sources.read(CONFIG)
        judged = latents.latent_table(found, layers.layer_table(found, CONFIG.collate))
        return {"latents": judged, **circuits.tables(found.circuits, judged, CONFIG)}


def test_faithfulness_is_the_share_of_the_difference(frames):
    kept = pick(frames["circuits"], family="native", seed=0, task="wear", circuit="kept")
    assert kept["nodes"].tolist() == [1, 4, 16, 64]
    assert kept["faithfulness"].tolist() == pytest.approx([1 / 2, 4 / 5, 16 / 17, 64 / 65])
    assert (kept["low"] <= kept["faithfulness"]).all()
    without = pick(frames["circuits"], task="wear", circuit="without")
    assert without["faithfulness"].to_numpy() == pytest.approx(0.2)


def test_the_latents_needed_lie_between_two_sizes(frames):
    (row,) = pick(frames["circuit_sizes"], family="native").to_dict("records")
    assert row["task"] == "wear"  # No model can do the control.
    assert row["pairs"] == 8  # Four of each seed.
    assert row["nodes_80"] == pytest.approx(4)
    # Between 4 (0.8) and 16 (0.941), by a line over the logarithm.
    assert row["nodes_90"] == pytest.approx(4 * 4 ** (0.1 / (16 / 17 - 0.8)))
    assert (row["errors"], row["latents"]) == pytest.approx((0.1, 0.9))


def test_what_no_circuit_reaches_is_infinite():
    assert np.isinf(circuits._needed(np.array([[0.2, 0.5]]), [1, 4], 0.8)).all()


def test_legibility_compares_latents_in_circuits_with_the_others(frames):
    (row,) = pick(frames["circuit_legibility"], family="native", scorer="rule-detection").to_dict(
        "records"
    )
    judged = pick(frames["latents"], family="native").dropna(subset=["rule-detection"])
    inside = judged["latent"].isin(range(0, 140, 14)) & (judged["layer"] == 0)
    inside |= judged["latent"].isin(range(7, 140, 14)) & (judged["layer"] == 1)
    assert (row["inside"], row["outside"]) == (inside.sum(), (~inside).sum())
    own = judged["rule-detection"]
    assert row["difference"] == pytest.approx(own[inside].mean() - own[~inside].mean())


def test_the_summary_tells_all(frames):
    answers, sizes, legible = circuit_tables(frames)
    assert "| wear | 0.90 (+2.00)" in answers
    assert "| native | wear | 4 [4, 4]" in sizes
    assert legible.count("\n") == 5
