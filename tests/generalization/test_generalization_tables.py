"""The tables of leads, rankings and runs, on made-up runs of which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import synthetic_generalization as synthetic
from pandas.testing import assert_frame_equal
from scipy.stats import kendalltau

from clearnets.generalization import change_points
from clearnets.generalization import leads as lead_table
from clearnets.generalization import ranking as ranking_table
from clearnets.generalization.runs import labelled

OPTIONS = {"resamples": 400, "confidence": 0.95, "seed": 0}
RANKED = OPTIONS | {"permutations": 199}


@pytest.fixture(scope="module")
def leads() -> pd.DataFrame:
    return lead_table.leads(*synthetic.both(), **OPTIONS)


@pytest.fixture(scope="module")
def ranking() -> pd.DataFrame:
    runs, _, measures = synthetic.both()
    return ranking_table.ranking(runs, measures, **RANKED)


def test_when_metrics_move_is_found(leads):
    assert list(leads.columns) == list(lead_table.COLUMNS)
    assert set(leads["task"]) == {"grok"}
    found = leads.set_index("metric")
    verdicts = ["before", "with", "after", "undecided", "no change", "before", "before", "with"]
    metrics = ["early", "same", "late", "erratic", "l0"]
    curves = ["train_loss", "train_accuracy", "test_accuracy"]
    assert found["verdict"].to_dict() == dict(zip(metrics + curves, verdicts))
    assert found.loc["early", "lead"] == pytest.approx(0.4, abs=0.1)
    assert found.loc["early", "lead_low"] > 0.2
    assert (found["unit"] == "decades").all()
    assert (found["seeds"] == 6).all()
    assert 350 < found.loc["same", "loss_change"] < 1200
    assert found.loc["late", "change"] > found.loc["same", "change"] > found.loc["early", "change"]
    assert found.loc["same", "together_adjusted"] <= 0.05
    assert found.loc["erratic", "together_adjusted"] > 0.05
    assert math.isnan(found.loc["l0", "lead"])


def test_a_lead_is_paired_by_seed_and_read_at_the_checkpoints(leads):
    runs, curves, measures = synthetic.grok()
    own = []
    for run in runs["run"]:
        rows = measures[(measures["run"] == run) & (measures["metric"] == "early")]
        values = rows.groupby("step")["value"].mean()
        loss = curves[curves["run"] == run].set_index("step")["test_loss"]
        times = np.log10(1 + values.index.to_numpy())
        # By hand: the loss from where it is highest, the metric as long before as after.
        top = int(loss.to_numpy().argmax())
        fall = change_points.transition(times[top - 1 :], loss.to_numpy()[top - 1 :]).middle
        near = times > 2 * fall - times[-1]
        own.append(fall - change_points.transition(times[near], values.to_numpy()[near]).middle)
    assert leads.set_index("metric").loc["early", "lead"] == pytest.approx(np.mean(own))
    # Steps at which only the loss was measured change nothing.
    extra = curves[curves["step"] > 100].assign(test_loss=99.0)
    extra["step"] += 1
    again = lead_table.leads(runs, pd.concat([curves, extra]), measures, **OPTIONS)
    assert_frame_equal(again, leads)


def test_a_loss_without_two_levels_has_no_change():
    runs, curves, measures = synthetic.grok()
    log = np.log10(1 + curves["step"])
    noise = 0.02 * np.random.default_rng(0).normal(size=len(log))
    slope = lead_table.leads(
        runs, curves.assign(test_loss=3 - 0.7 * log + noise), measures, **OPTIONS
    )
    assert set(slope["verdict"]) == {"no change"}
    # A straight slope: its levels explain much, and a line more.
    assert (slope["loss_explained"] > 0.95).all()


def test_a_loss_that_turns_is_asked_where_it_moves_most(leads):
    """Of the whole run it has no two levels, which is why the question was open."""
    runs, curves, measures = synthetic.grok()
    for _, own in curves.groupby("run"):
        whole = change_points.transition(np.log10(1 + own["step"]), own["test_loss"])
        assert whole.explained < change_points.MIN_EXPLAINED
    assert set(leads["leg"]) == {"fall"}
    first = leads.iloc[0]
    tops = [own.loc[own["test_loss"].idxmax(), "step"] for _, own in curves.groupby("run")]
    assert first["leg_start"] <= np.median(tops) < first["loss_change"] < first["leg_end"]
    assert first["leg_end"] == first["span_end"] == synthetic.STEPS[-1]
    # As many decades before the change as after it.
    ahead, behind = first["loss_change"] / first["span_start"], 1e4 / first["loss_change"]
    assert np.log10(ahead) == pytest.approx(np.log10(behind), abs=0.15)
    # Turned upside down it is the rise that is larger.
    turned = lead_table.leads(
        runs, curves.assign(test_loss=-curves["test_loss"]), measures, **OPTIONS
    )
    assert set(turned["leg"]) == {"rise"}
    same = ["leg_start", "span_start", "span_checkpoints", "lead", "p", "verdict"]
    assert_frame_equal(turned[same], leads[same])


def test_a_movement_without_an_end_gives_way_to_a_smaller_one_with_two_levels():
    """Overfitting: the loss falls from 5 to 2, then rises to 6 in a straight line to the end."""
    runs, curves, measures = synthetic.grok()
    log = np.log10(1 + curves["step"])
    falls = 5 - 3 * np.clip((log - 1.4) / 0.4, 0, 1)
    loss = np.where(log < 1.8, falls, 2 + 4 * (log - 1.8) / 2.2)
    overfit = lead_table.leads(runs, curves.assign(test_loss=loss), measures, **OPTIONS)
    assert set(overfit["leg"]) == {"fall"}
    assert overfit["loss_change"].iloc[0] == pytest.approx(10**1.6 - 1, rel=0.3)
    # Where it stays at the top there is a level, and the rise is the larger movement.
    loss = np.where(log < 1.8, falls, 2 + 4 * synthetic.sigmoid(12 * (log - 2.8)))
    settled = lead_table.leads(runs, curves.assign(test_loss=loss), measures, **OPTIONS)
    assert set(settled["leg"]) == {"rise"}
    assert settled["loss_change"].iloc[0] == pytest.approx(10**2.8 - 1, rel=0.3)


def test_the_loss_of_a_group_is_one(leads):
    for name in ("loss_change", "loss_change_low", "loss_explained", "loss_before", "loss_after"):
        assert leads[name].nunique() == 1
    own = leads.iloc[0]
    assert own["loss_before"] == pytest.approx(10, abs=0.3)
    assert own["loss_after"] == pytest.approx(0, abs=0.1)
    assert own["loss_explained"] > 0.99


def test_evenly_spaced_checkpoints_are_measured_in_steps():
    runs, curves, measures = synthetic.grok()
    places = {step: 10 * place for place, step in enumerate(synthetic.STEPS)}
    curves, measures = (
        table.assign(step=table["step"].map(places)) for table in (curves, measures)
    )
    found = lead_table.leads(runs, curves, measures, **OPTIONS).set_index("metric")
    assert (found["unit"] == "steps").all()
    assert (found["tolerance"] == 10).all()
    assert found.loc["early", "verdict"] == "before"
    assert found.loc["early", "lead"] > 10


def test_single_runs_have_no_lead_and_few_seeds_no_interval():
    runs, curves, measures = synthetic.grok()
    assert lead_table.leads(runs[:1], curves, measures, **OPTIONS).empty
    few = lead_table.leads(runs[:3], curves, measures, **OPTIONS).set_index("metric")
    assert few.loc["early", "lead"] == pytest.approx(0.4, abs=0.15)
    assert few["lead_low"].isna().all()
    assert few.loc["early", "verdict"] == "undecided"


def test_runs_of_other_settings_are_groups_of_their_own():
    runs, curves, measures = synthetic.grok()
    settings = runs.assign(width=[8.0] * 3 + [16.0] * 3, depth=1)
    found = lead_table.leads(settings, curves, measures, **OPTIONS)
    assert set(found["setting"]) == {"width 8", "width 16"}
    assert (found["seeds"] == 3).all()


def test_metrics_are_ranked_by_what_they_know(ranking):
    assert list(ranking.columns) == list(ranking_table.COLUMNS)
    assert set(ranking["task"]) == {"grid"}
    assert (ranking["runs"] == 24).all()
    assert (ranking["not_reached"] == 1).all()
    measures = ranking[ranking["kind"] == "measure"].set_index("metric")
    assert list(measures.index) == ["knows", "repeats", "against", "nothing", "broken"]
    assert measures["rank"].tolist()[:4] == [1, 2, 3, 4]
    assert measures["holds"].tolist() == ["both", "tau", "both", "neither", "not ranked"]
    assert measures.loc["against", "tau"] < 0
    assert measures.loc["repeats", "score"] == pytest.approx(0, abs=0.01)
    references = ranking[ranking["kind"] == "reference"].set_index("metric")
    assert set(references.index) == {"pictures", "width", "label_noise", "train_loss"}
    assert references.index[0] == "pictures"
    # All have the same training loss.
    assert references.loc["train_loss", "holds"] == "not ranked"


def test_the_tau_of_the_table_is_scipys_at_the_last_checkpoint(ranking):
    runs, measures = synthetic.grid()
    runs = runs[runs["reached"]].set_index("run")
    own = measures[(measures["metric"] == "knows") & (measures["step"] == 200)].set_index("run")
    expected = kendalltau(own["value"].loc[runs.index], runs["gap"]).statistic
    assert ranking.set_index("metric").loc["knows", "tau"] == pytest.approx(expected)


def test_seeds_of_one_combination_count_as_one(ranking):
    runs, measures = synthetic.grid()
    other_runs = runs.assign(run=runs["run"] + "-b", seed=1, gap=runs["gap"] + 0.1)
    other = measures.assign(run=measures["run"] + "-b", value=measures["value"] + 0.3)
    twice = ranking_table.ranking(
        pd.concat([runs, other_runs]), pd.concat([measures, other]), **RANKED
    )
    # Means over the two are moved by the same amount each: the same order, the same permutations.
    assert_frame_equal(twice.assign(not_reached=1), ranking, rtol=1e-6)
    assert (twice["not_reached"] == 2).all()


def test_few_runs_are_not_ranked():
    runs, measures = synthetic.grid()
    few = ranking_table.ranking(runs[: ranking_table.MIN_RUNS - 1], measures, **RANKED)
    assert few.empty
    assert list(few.columns) == list(ranking_table.COLUMNS)


def test_groups_are_runs_that_differ_in_their_seed_alone():
    made = [
        ("digits", f"{variant}-{size}-{seed}", seed, variant, float(size), 0.0)
        for variant in ("dense", "sparse")
        for size in (40, 1000)
        for seed in (0, 1)
    ]
    # Another task has no such settings.
    made += [("grokking", f"dense-{seed}", seed, "dense", np.nan, np.nan) for seed in (0, 1)]
    columns = pd.Index(["task", "run", "seed", "variant", "train", "label_noise"])
    runs = pd.DataFrame(made, columns=columns)
    steps = {"digits": [0, 1, 2, 5, 10, 100], "grokking": [0, 10, 20, 30]}
    measures = pd.DataFrame(
        [(task, run, step) for task, run, *_ in made for step in steps[task]],
        columns=pd.Index(["task", "run", "step"]),
    )
    table = labelled(runs, measures)
    # By hand: the size alone differs within a task.
    expected = [
        f"{variant}, train {int(size)}" if task == "digits" else variant
        for task, _, _, variant, size, _ in made
    ]
    assert table["group"].tolist() == expected
    assert table["log_steps"].tolist() == [task == "digits" for task, *_ in made]
    assert list(table)[:-2] == list(runs)


def test_a_single_checkpoint_is_on_no_scale():
    runs = pd.DataFrame({"task": ["grid"] * 2, "run": ["a", "b"], "seed": 0, "variant": "dense"})
    measures = pd.DataFrame({"task": ["grid"], "run": ["a"], "step": [700]})
    assert labelled(runs, measures)["log_steps"].tolist() == [False, False]
