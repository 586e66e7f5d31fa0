"""Tables of what people answered, against scipy, scikit-learn and counts in plain Python."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import synthetic_results
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from clearnets import UserError
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate

CONFIG = synthetic_results.few(seeds=[0])
RATERS = ("ida", "mara")
TABLES = {"ratings", "ratings_families", "ratings_agreement"}
OUTDATED = 3


def explain() -> None:
    """An explanation for every latent that collate reads scores of."""
    for family in CONFIG.families:
        for point in CONFIG.hookpoints(family):
            scored = (paths.score(family, 0, point) / "scores.jsonl").read_text().splitlines()
            latents = [json.loads(line)["latent"] for line in scored]
            lines = [json.dumps({"latent": n, "explanation": f"word {n}"}) for n in latents]
            synthetic_results._unit(
                "explain",
                paths.explain(family, 0, point),
                lambda out, lines=lines: (out / EXPLANATIONS).write_text("\n".join(lines) + "\n"),
            )


def rate(rater: str, latents: pd.DataFrame) -> list[dict]:
    """Answers that follow the score of the rules, with noise; the first few are outdated."""
    rng = np.random.default_rng(len(rater))
    drawn = latents.dropna(subset="rule-detection").sample(60, random_state=len(rater))
    records = []
    for row in drawn.to_dict("records"):
        for question, noise in (("interpretable", 0.5), ("fits", 0.05)):
            seen = row["rule-detection"] + rng.normal(0, noise)
            answer = "yes" if seen > 0.82 else "no" if seen < 0.76 else "unsure"
            old = len(records) < OUTDATED
            records.append(
                {
                    "experiment": "default",
                    "rater": rater,
                    "family": row["family"],
                    "seed": row["seed"],
                    "layer": int(row["layer"]),
                    "latent": row["latent"],
                    "explanation": "another word" if old else f"word {row['latent']}",
                    "question": question,
                    "answer": answer,
                }
            )
    return records


def save(rater: str, records: list[dict]) -> None:
    folder = paths.ratings("default")
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{rater}.jsonl").write_text(text)


def made() -> dict[str, pd.DataFrame]:
    collate.run(CONFIG, runtime=Runtime())
    return {path.stem: pd.read_csv(path) for path in paths.results("default").glob("*.csv")}


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Tables without ratings and with them, and the answers by rater."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("rated"))
        synthetic_results.write(CONFIG)
        before = made()
        explain()
        answers = {rater: rate(rater, before["latents"]) for rater in RATERS}
        for rater, records in answers.items():
            save(rater, records)
        yield before, made(), answers


def test_only_where_there_are_ratings_there_are_tables_of_them(rated):
    before, after, _ = rated
    assert not TABLES & set(before)
    assert set(after) == set(before) | TABLES
    pd.testing.assert_frame_equal(after["latents"], before["latents"])


def current(answers, raters, question, **equals) -> list[dict]:
    return [
        record
        for rater in raters
        for place, record in enumerate(answers[rater])
        if place >= OUTDATED
        and record["question"] == question
        and all(record[key] == value for key, value in equals.items())
    ]


@pytest.mark.parametrize("rater", ["ida", "(all)"])
@pytest.mark.parametrize("question", ["interpretable", "fits"])
def test_agreement_is_that_of_scikit_learn_and_scipy(rated, rater, question):
    _, tables, answers = rated
    scores = tables["latents"].set_index(["family", "layer", "latent"])["rule-detection"]
    raters = RATERS if rater == "(all)" else (rater,)
    records = current(answers, raters, question)
    given = [r["answer"] for r in records]
    score = np.array([scores.loc[(r["family"], r["layer"], r["latent"])] for r in records])
    row = tables["ratings_agreement"].set_index(["rater", "question", "scorer"]).loc[
        (rater, question, "rule-detection")
    ]  # fmt: skip
    sure = np.array([answer != "unsure" for answer in given])
    yes = np.array([answer == "yes" for answer in given])
    assert row["auroc"] == pytest.approx(roc_auc_score(yes[sure], score[sure]), abs=1e-5)
    worth = [{"no": 0, "unsure": 1, "yes": 2}[answer] for answer in given]
    assert row["spearman"] == pytest.approx(spearmanr(score, worth).statistic, abs=1e-5)
    for measure in ("auroc", "spearman"):
        assert row[f"{measure}_low"] < row[measure] < row[f"{measure}_high"]
    assert [row[name] for name in ("yes", "no", "unsure")] == [
        given.count(name) for name in ("yes", "no", "unsure")
    ]
    assert row["latents"] == len({(r["family"], r["layer"], r["latent"]) for r in records})


def test_a_rater_who_follows_the_score_agrees_and_one_who_guesses_does_not(rated):
    _, tables, _ = rated
    rows = tables["ratings_agreement"].set_index(["rater", "question", "scorer"])
    for rater in RATERS:
        assert rows.loc[(rater, "fits", "rule-detection")]["auroc_low"] > 0.8
        assert rows.loc[(rater, "interpretable", "rule-detection")]["auroc"] < 0.8


def test_shares_of_families_have_wilsons_interval(rated):
    _, tables, answers = rated
    for row in tables["ratings_families"].to_dict("records"):
        raters = RATERS if row["rater"] == "(all)" else (row["rater"],)
        given = [
            r["answer"] for r in current(answers, raters, row["question"], family=row["family"])
        ]
        yes, sure = given.count("yes"), len(given) - given.count("unsure")
        assert (row["yes"], row["yes"] + row["no"]) == (yes, sure)
        z = norm.isf(0.025)
        middle = (yes + z * z / 2) / (sure + z * z)
        reach = z * np.sqrt(yes * (sure - yes) / sure + z * z / 4) / (sure + z * z)
        assert row["share"] == pytest.approx(yes / sure, abs=1e-5)
        assert row["low"] == pytest.approx(middle - reach, abs=1e-5)
        assert row["high"] == pytest.approx(middle + reach, abs=1e-5)
    outdated = tables["ratings_families"].query("rater == '(all)'")["outdated"].sum()
    assert outdated == OUTDATED * len(RATERS)
    assert (~tables["ratings"]["current"]).sum() == outdated


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "maybe"}, "answers no, unsure, yes; correct the line"),
        ({"layer": 7}, "no such family, seed and layer"),
        ({"experiment": "other"}, "move the file to paper/ratings/other"),
        ({"question": None}, "questions are interpretable, fits"),
    ],
)
def test_a_line_that_is_no_rating_is_named(tmp_path, monkeypatch, rated, change, says):
    _, _, answers = rated
    save("ida", [answers["ida"][0], answers["ida"][1] | change])
    from clearnets.analysis import rating_files

    places = {(f, 0, n): tmp_path for f in CONFIG.families for n in CONFIG.model.layers}
    (tmp_path / EXPLANATIONS).write_text("")
    with pytest.raises(UserError) as error:
        rating_files.read(CONFIG, places)
    assert "ida.jsonl, line 2: " in str(error.value)
    assert says in str(error.value)
