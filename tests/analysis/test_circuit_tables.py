"""Tables of circuits, against numbers that were put in."""

from __future__ import annotations

import numpy as np
import pandas as pd
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
    assert "for 90% without errors" in sizes
    assert legible.count("\n") == 5


def test_over_training_latents_are_counted_where_the_task_is_done(frames):
    first, last = pick(frames["circuit_training"], family="native", seed=0).to_dict("records")
    assert (first["step"], last["step"]) == (10, 100)
    assert np.isnan(first["nodes_80"])
    assert last["nodes_80"] == pytest.approx(4)  # 1 - 1 / (1 + 4)
    assert (last["accuracy"], last["valid_loss"]) == (0.9, 4)


def test_the_members_are_those_of_the_smallest_circuit(frames):
    sizes, members = frames["circuit_sizes"], frames["circuit_members"]
    for family, own in members.groupby("family"):
        (row,) = pick(sizes, family=family, task="wear").to_dict("records")
        assert len(own) == np.ceil(row["alone_80"])
        assert not own["errors"].any()
        effects = own["integrated"].abs()
        assert effects.is_monotonic_decreasing
    assert set(members["family"]) == set(sizes["family"])


def test_a_circuit_that_needs_errors_says_so():
    sizes = frames_of_sizes(alone_80=float("nan"), nodes_80=2.5)
    nodes = [
        {"task": "wear", "layer": 0, "position": 1, "latent": n, "integrated": 1 / (1 + n)}
        for n in range(5)
    ]
    of = {"family": "sae", "seed": 0}
    answer = {"task": "wear", "tokens": ["<bos>", " it", " rains"], **of}
    found = sources.Circuits(
        pd.DataFrame([answer]), pd.DataFrame(), pd.DataFrame(nodes).assign(**of), pd.DataFrame()
    )
    members = circuits._members(found, sizes, CONFIG)
    assert members["latent"].tolist() == [0, 1, 2]
    assert members["errors"].all()
    assert set(members["token"]) == {" it"}


def frames_of_sizes(**least: float) -> pd.DataFrame:
    return pd.DataFrame([{"family": "sae", "task": "wear", **least}])
