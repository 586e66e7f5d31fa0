"""Tables of a language model's judgements, from results whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic_judge
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from clearnets.analysis import llm_judge_rows
from clearnets.analysis.samples import own_scores
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate

TABLES = ("", "_means", "_contrasts", "_noise", "_probabilities")


def collated(folder, monkeypatch, name="judged", **how) -> dict[str, pd.DataFrame]:
    monkeypatch.chdir(folder)
    config = synthetic_judge.few()
    synthetic_judge.write(config, **how)
    collate.run(config, runtime=Runtime())
    results = paths.results(config.experiment)
    assert {path.stem for path in results.glob("judged*")} | {
        path.stem for path in results.glob("demonstration*")
    } == {f"{name}{suffix}" for suffix in TABLES}
    made = {suffix: pd.read_csv(results / f"{name}{suffix}.csv") for suffix in TABLES}
    return made | {
        "latents": pd.read_csv(results / "latents.csv"),
        "judge": pd.read_csv(results / "judge.csv"),
        "judges": read_json(paths.qualify() / "judges.json"),
        "summary": (results / "summary.md").read_text(),
        "sample": pd.read_json(results / "transcripts.jsonl", lines=True),
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield collated(tmp_path_factory.mktemp("judged"), monkeypatch)


def test_means_are_those_of_the_latents_and_hold_the_truth(tables):
    latents, means = tables[""], tables["_means"].set_index(
        ["family", "scorer", "explanation", "measure"]
    )  # fmt: skip
    for family in ("native", "transcoder"):
        for scorer in ("detection", "fuzzing"):
            own = latents[(latents["family"] == family) & (latents["scorer"] == scorer)]
            for measure in ("accuracy", "auroc", "precision", "recall"):
                row = means.loc[(family, scorer, "own", measure)]
                assert row["mean"] == pytest.approx(own[measure].mean(), abs=1e-5)
                assert row["n"] == own[measure].notna().sum()
                assert row["low"] < row["mean"] < row["high"]
            truth = synthetic_judge.TRUTH[family][0]
            assert means.loc[(family, scorer, "own", "accuracy")]["mean"] == pytest.approx(
                truth, abs=0.02
            )


def test_shuffled_explanations_lie_at_chance_and_missing_answers_are_a_column(tables):
    means = tables["_means"]
    shuffled = means[(means["explanation"] == "shuffled") & (means["measure"] == "accuracy")]
    assert set(shuffled["scorer"]) == {"detection", "fuzzing"}
    assert ((shuffled["mean"] - 0.5).abs() < 0.02).all()
    own = means[(means["explanation"] == "own") & (means["measure"] == "accuracy")]
    assert not own["at_chance"].any()
    classified = means[means["scorer"] != "intruder"]
    assert classified["missing"].to_numpy() == pytest.approx(synthetic_judge.MISSING, abs=0.01)


def row_of(tables, **equals) -> pd.Series:
    contrasts = tables["_contrasts"]
    equals = {"a": "native", "b": "transcoder", "seed": "all", "latents": "explained"} | equals
    for column, value in equals.items():
        contrasts = contrasts[contrasts[column] == value]
    (row,) = contrasts.to_dict("records")
    return row


@pytest.mark.parametrize("scorer", ["detection", "fuzzing", "intruder"])
def test_contrasts_are_between_judged_latents(tables, scorer):
    scores = tables[""].merge(
        tables["latents"], on=["family", "seed", "layer", "latent"], suffixes=("", "_rule")
    )
    scores = scores[(scores["scorer"] == scorer) & scores["accuracy"].notna()]
    native, other = (scores[scores["family"] == f] for f in ("native", "transcoder"))
    how = {"scorer": scorer, "measure": "accuracy", "layers": "all"}
    row = row_of(tables, **how, matching="none")
    difference = native["accuracy"].mean() - other["accuracy"].mean()
    assert row["difference"] == pytest.approx(difference, abs=1e-5)
    assert (row["n_a"], row["n_b"]) == (len(native), len(other))
    error = np.sqrt(native["accuracy"].var() / len(native) + other["accuracy"].var() / len(other))
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.3)
    # 0.02 is what was put in.
    assert row["low"] < 0.02 < row["high"]

    total = value = 0.0
    for low in np.arange(-6, 0, 0.25):
        bins = [one[(np.log10(one["rate"]) >= low) & (np.log10(one["rate"]) < low + 0.25)]
                for one in (native, other)]  # fmt: skip
        if min(map(len, bins)) >= 10:
            weight = 1 / (1 / len(bins[0]) + 1 / len(bins[1]))
            value += weight * (bins[0]["accuracy"].mean() - bins[1]["accuracy"].mean())
            total += weight
    row = row_of(tables, **how, matching="rate")
    # A rate beside an edge may fall to the other side: rates are written with six digits.
    assert row["difference"] == pytest.approx(value / total, abs=2e-3)
    assert row["unmatched_a"] > 0
    # Layer 2 costs less than 0.01 nats.
    row = row_of(tables, **how | {"layers": "matter"}, matching="none")
    assert row["n_a"] == (native["layer"] < 2).sum()


def test_contrasts_have_every_measure_a_scorer_has(tables):
    contrasts = tables["_contrasts"]
    found = contrasts.groupby("scorer")["measure"].agg(set)
    classified = {"accuracy", "auroc", "precision", "recall"}
    expected = {"detection": classified, "fuzzing": classified, "intruder": {"accuracy"}}
    assert found.to_dict() == expected
    margin = contrasts["equivalence"]
    inside = (contrasts["low"] > -margin) & (contrasts["high"] < margin)
    assert contrasts.loc[inside, "equivalent"].all()
    assert not contrasts.loc[contrasts["difference"].abs() >= margin, "equivalent"].any()
    # Coverage-adjusted scores would call a missing answer a guess.
    assert set(contrasts["latents"]) == {"explained"}


def test_the_summary_has_what_a_qualified_judge_says(tables):
    text = tables["summary"]
    row = row_of(tables, scorer="fuzzing", measure="accuracy", layers="all", matching="none")
    assert f"| native − transcoder | fuzzing | {row['difference']:+.3f} [" in text
    means = tables["_means"].set_index(["family", "scorer", "measure", "explanation"])
    own = means.loc[("native", "intruder", "accuracy", "own")]
    assert f"| **native** | intruder | accuracy | {own['n']} | {own['mean']:.2f} [" in text
    assert "nan" not in text.lower()


def test_the_noise_floor_is_what_was_put_in(tables):
    """A tenth of the answers flips: of n windows with accuracy a, the difference of two shares has
    a variance of 0.1 / n; half of it is that of one score. A new draw of n windows of each kind
    gives a score the variance a(1 - a) / 2n."""
    noise = tables["_noise"].set_index(["family", "scorer", "asked"])
    answered = synthetic_judge.WINDOWS * (1 - synthetic_judge.MISSING)
    for scorer in ("detection", "fuzzing"):
        row = noise.loc[("all", scorer, "reordered")]
        assert row["agreement"] == pytest.approx(1 - synthetic_judge.FLIPPED, abs=0.01)
        mean_shift = (1 - 2 * 0.79) * synthetic_judge.FLIPPED
        flipped = synthetic_judge.FLIPPED / (2 * answered) + mean_shift**2
        assert row["sd"] == pytest.approx(np.sqrt(flipped / 2), rel=0.2)
        assert row["difference"] == pytest.approx(mean_shift, abs=0.02)
        row = noise.loc[("all", scorer, "redrawn")]
        assert row["sd"] == pytest.approx(np.sqrt(0.79 * 0.21 / (2 * answered)), rel=0.2)
        assert np.isnan(row["agreement"])
        assert 0 < row["reliability"] < 1
        assert row["sd"] ** 2 == pytest.approx(
            (1 - row["reliability"]) * row["sd_latents"] ** 2, rel=1e-3
        )


def test_probabilities_are_summed_over_latents(tables):
    given, latents = tables["_probabilities"], tables[""]
    own = latents[latents["scorer"].isin(["detection", "fuzzing"])]
    sums = given.groupby(["family", "scorer"])[["positives", "negatives"]].sum().sum(axis=1)
    answered = own.groupby(["family", "scorer"])["answered"].sum()
    pd.testing.assert_series_equal(sums, answered, check_names=False, check_dtype=False)
    assert np.allclose(given["high"] - given["low"], 1 / 50)


def test_who_has_not_qualified_is_a_demonstration_by_all_tables(tmp_path, monkeypatch):
    tables = collated(tmp_path, monkeypatch, "demonstration", demonstration=True)
    assert len(tables["_means"])
    assert "judge |" not in tables["summary"]
    assert "Judged" not in tables["summary"]


def test_measures_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(40) < 0.5
        said = rng.random(40) < np.where(truth, 0.8, 0.3)
        cells = {
            "tp": int((truth & said).sum()), "fp": int((~truth & said).sum()),
            "tn": int((~truth & ~said).sum()), "fn": int((truth & ~said).sum()),
            "missing_positives": 1, "missing_negatives": 2, "auroc": 0.7,
        }  # fmt: skip
        row = llm_judge_rows.measured("detection", cells)
        assert row["precision"] == pytest.approx(precision_score(truth, said))
        assert row["recall"] == pytest.approx(recall_score(truth, said))
        # Of yes and no alone the area is the balanced accuracy.
        assert row["accuracy"] == pytest.approx(roc_auc_score(truth, said))
        assert (row["answered"], row["missing"], row["auroc"]) == (40, 3, 0.7)
    none = {**dict.fromkeys(cells, 0), "tn": 3, "fn": 2, "auroc": None}
    row = llm_judge_rows.measured("fuzzing", none)
    assert (row["precision"], row["recall"], row["accuracy"]) == (None, 0, 0.5)
    assert llm_judge_rows.measured("fuzzing", {**none, "fn": 0})["accuracy"] is None


def test_a_sample_of_the_exchanges_lies_beside_the_tables(tables):
    found = [
        {
            key: value
            for key, value in row.items()
            if isinstance(value, list | dict) or value == value
        }
        for row in tables["sample"].to_dict("records")
    ]
    places = [{"stage": "qualify"}] + [
        {"stage": "score", "family": family, "seed": 0, "hookpoint": "layers.0.mlp"}
        for family in ("native", "transcoder")
    ]
    assert found == [
        names
        | {"settings": {"seed": n}, "messages": [{"role": "user", "content": f"is it {n}?"}]}
        | ({"error": "status 500"} if n == 1 else {"reply": "é"})
        for names in places
        for n in range(3)
    ]


def test_the_judge_s_own_test_stands_beside_its_scores(tables):
    """As `clearnets qualify` wrote it."""
    (judge,) = tables["judges"].values()
    rows = tables["judge"].set_index("test")
    assert set(rows.index) == set(judge["tests"])
    for name, test in judge["tests"].items():
        assert rows.loc[name, "qualified"] == test["qualified"]
        wanted = np.nan if test["auroc"] is None else test["auroc"]
        assert rows.loc[name, "auroc"] == pytest.approx(wanted, abs=1e-5, nan_ok=True)


def test_where_no_judge_of_rules_scored_there_are_no_rule_scores(tables):
    """Explained latents without one are not at chance: nobody asked."""
    bare = tables["latents"].assign(status="explained", seed=0, matters=True)
    bare["rule-detection"] = np.nan
    for which in ("explained", "all"):
        assert len(own_scores(bare, "rule-detection", "all", which)) == 0
    bare.loc[bare.index[0], "rule-detection"] = 0.75
    assert len(own_scores(bare, "rule-detection", "all", "all")) == len(bare)
