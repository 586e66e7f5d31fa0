"""Tables against the files that they were made from, read again in plain Python."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_judge
import synthetic_results
from scipy import stats as scipy_stats
from synthetic_results import TRUTH

from clearnets import UserError
from clearnets.analysis import models, registry, sources, summary
from clearnets.analysis.embedding import rank_correlation
from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate as stage

CONFIG = synthetic_results.small()


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, config=CONFIG) -> Path:
    """Synthetic results and the tables made of them, below `folder`."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    synthetic_results.write(config)
    stage.run(config, runtime=Runtime())
    return folder / paths.results("default")


def read_tables() -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in paths.results("default").glob("*.csv")}


def built(tmp_path_factory, config=CONFIG) -> Path:
    """A folder with results and tables, which no test may change."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as monkeypatch:
        build(folder, monkeypatch, config)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def frames(project):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        return read_tables()


@pytest.fixture
def tables(project, frames, monkeypatch):
    """By name, the tables; the working directory is the project's."""
    monkeypatch.chdir(project)
    return frames


TWO = synthetic_results.few(coders={"existing": {"transcoder": {"name": "../../EleutherAI/sae-x"}}})


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Of two families, one with coders of others."""
    return built(tmp_path_factory, TWO)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Of one seed, on a corpus without labels."""
    corpus = {"kind": "local", "path": "own.txt"}
    return built(tmp_path_factory, synthetic_results.few(seeds=[0], data={"corpus": corpus}))


ALL = {"seed": "all", "layers": "all", "latents": "explained"}
ACCURACY = {"measure": "balanced_accuracy"}


def raw(family: str, layers=(0, 1, 2), seeds=(0, 1), of=paths.score, file="scores") -> list[dict]:
    """All records of a family."""
    points = FAMILIES[family].hookpoints([CONFIG.model.hookpoint(n) for n in layers])
    files = [of(family, seed, point) / f"{file}.jsonl" for seed in seeds for point in points]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def similar(family: str) -> list[dict]:
    return raw(family, of=paths.similarity, file="similarity")


def accuracy(counts: dict[str, int]) -> float:
    hits = counts["tp"] / (counts["tp"] + counts["fn"])
    return (hits + counts["tn"] / (counts["tn"] + counts["fp"])) / 2


def one(table: pd.DataFrame, **equals) -> pd.Series:
    for column, value in equals.items():
        table = table[table[column].isna() if value is None else table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_all_tables_are_there(tables):
    assert set(tables) == {
        "curves", "ngrams", "pair", "layers", "splice_all", "latents", "means", "rates",
        "layer_means",
        "contrasts", "strata", "coverage", "compute", "families", "summary",
        "protocols", "concepts", "concept_latents", "concept_summary",
        "embedding", "embedding_means", "embedding_contrasts", "embedding_agreement",
        "embedding_roc", "depth", "primary", "layer_contrasts", "layer_interactions",
        "effects", "effect_means", "effect_weighted", "instruments",
        "targets", "steering", "interventions",
        "execution", "execution_latents", "sampled", "sampled_tokens",
        "circuits", "circuit_tasks", "circuit_sizes", "circuit_legibility",
        "circuit_members", "circuit_training",
        "stability", "stability_relations", "probes", "probe_summary",
        "planted", "planted_orders",
        "generalization_runs", "generalization_curves", "generalization_measures",
        "generalization_phases",
        "generalization_leads", "generalization_ranking",
    }  # fmt: skip


PRIMARY = {("native", "groupmax-transcoder"), ("topk-native", "transcoder")}
# Ends of live latents without a score.
SILENT = ("too_rare", "too_frequent", "unscorable")


def test_latents_hold_each_record(tables):
    for family in TRUTH:
        own = tables["latents"][tables["latents"]["family"] == family]
        records = raw(family)
        assert own["latent"].tolist() == [record["latent"] for record in records]
        assert own["status"].tolist() == [record["status"] for record in records]
        expected = [accuracy(r["detection"]) if r["detection"] else np.nan for r in records]
        assert own["rule-detection"].tolist() == pytest.approx(expected, nan_ok=True, abs=1e-5)
        for control in ("shuffled", "elsewhere"):
            expected = [np.nan if (x := r[f"fuzzing_{control}"]) is None else x for r in records]
            found = own[f"rule-fuzzing-{control}"].tolist()
            assert found == pytest.approx(expected, nan_ok=True, abs=1e-5)
    of_tokens = tables["latents"]["family"] == "token-unigram"
    assert tables["latents"].loc[of_tokens, "layer"].isna().all()


@pytest.mark.parametrize("family", ["native", "sae", "token-unigram"])
def test_means_are_those_of_the_records(tables, family):
    means, records = tables["means"], raw(family)
    scores = [accuracy(r["detection"]) for r in records if r["detection"]]
    shuffled = [r["detection_shuffled"] for r in records if r["detection_shuffled"]]
    # What could not be explained counts as chance; layer 2 costs less than 0.01 nats.
    covered = scores + [0.5] * (len(records) - len(scores))
    ends = [record["status"] for record in records]
    matter = [accuracy(r["detection"]) for r in raw(family, (0, 1)) if r["detection"]]
    expected = {
        ("own", "explained", "all"): scores,
        ("shuffled", "explained", "all"): shuffled,
        ("own", "all", "all"): covered,
        ("own", "live", "all"): [0.5] * sum(s in SILENT for s in ends) + scores,
        ("own", "explained", "matter"): matter,
    }
    for (explanation, latents, layers), values in expected.items():
        key = ALL | ACCURACY | {"explanation": explanation, "latents": latents, "layers": layers}
        row = one(means, **key, family=family, scorer="rule-detection")
        assert row["n"] == len(values)
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert row["low"] < row["mean"] < row["high"]
        if explanation == "shuffled":  # the other side of the pairs, a little less exactly
            elsewhere = [r["detection_elsewhere"] for r in records if r["detection_elsewhere"]]
            values = np.array(values) + np.array(elsewhere)
        error = np.std(values) / np.sqrt(len(values))
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.35)


def test_rates_are_means_of_the_latents_of_a_bin(tables):
    rates, records = tables["rates"], [r for r in raw("native") if r["fuzzing"]]
    own = rates[(rates["family"] == "native") & (rates["scorer"] == "rule-fuzzing")]
    found = 0
    for row in own.itertuples():
        # Edges are written with six digits.
        inside = [r for r in records if row.rate_low <= r["rate"] * (1 + 1e-9) < row.rate_high]
        score = {
            "own": lambda r: accuracy(r["fuzzing"]),
            "shuffled": lambda r: r["fuzzing_shuffled"],
        }
        values = [score[row.explanation](r) for r in inside]
        assert row.n == len(values) >= 5
        assert row.mean == pytest.approx(np.mean(values), abs=1e-5)
        assert row.low < row.mean < row.high
        if row.explanation == "shuffled":
            # What the givers add, by the spread of their own means over the latents of a layer.
            judged = np.var(values) / len(values)
            given = np.var([r["fuzzing_elsewhere"] for r in records]) / len(records)
            width = 2 * 1.96 * np.sqrt(judged + given)
            assert row.high - row.low == pytest.approx(width, rel=0.4)
        found += 1
    assert found > 4


def test_shuffled_explanations_lie_at_chance(tables):
    means = tables["means"]
    shuffled = means[(means["explanation"] == "shuffled") & (means["layers"] == "all")]
    shuffled = shuffled[shuffled["seed"] == "all"]
    margin = synthetic_results.small().collate.margin
    near = (shuffled["low"] >= 0.5 - margin) & (shuffled["high"] <= 0.5 + margin)
    assert (shuffled["at_chance"] == near).all()
    # Intervals of 95 % coverage: fewer than 80 % hits would be a fault.
    holds = (shuffled["low"] <= 0.5) & (shuffled["high"] >= 0.5)
    assert len(shuffled) == 2 * len(TRUTH)
    assert holds.mean() >= 0.8
    own = means[(means["explanation"] == "own") & (means["family"] == "native")]
    assert not own["at_chance"].any()


def test_contrasts_find_the_planted_differences(tables):
    contrasts = tables["contrasts"]
    primary = contrasts[contrasts["kind"] == "primary"]
    assert set(zip(primary["a"], primary["b"])) == PRIMARY
    assert contrasts.loc[0, "kind"] == "primary"
    for matching in ("none", "rate", "activity"):
        key = ALL | ACCURACY | {"a": "native", "b": "random-native", "matching": matching}
        row = one(contrasts, **key, scorer="rule-detection")
        assert row["low"] > 0.08
        assert row["difference"] == pytest.approx(0.14, abs=0.06)
    own = one(contrasts, **ALL, kind="own shuffled", a="sae", scorer="rule-fuzzing")
    pairs = [r for r in raw("sae") if r["fuzzing"]]
    expected = np.mean([accuracy(r["fuzzing"]) - r["fuzzing_shuffled"] for r in pairs])
    assert own["difference"] == pytest.approx(expected, abs=1e-5)


def test_matched_contrasts_say_how_many_found_no_match(tables):
    contrasts, strata = tables["contrasts"], tables["strata"]
    key = ALL | ACCURACY | {"a": "native", "b": "neurons", "scorer": "rule-fuzzing"}
    row = one(contrasts, **key, matching="rate")
    bins = strata[(strata["a"] == "native") & (strata["b"] == "neurons")]
    bins = bins[bins["scorer"] == "rule-fuzzing"]
    enough = bins[(bins["n_a"] >= 10) & (bins["n_b"] >= 10)]
    assert (bins["used"] == bins.index.isin(enough.index)).all()
    assert row["n_a"] == enough["n_a"].sum()
    assert row["unmatched_b"] == pytest.approx(1 - row["n_b"] / bins["n_b"].sum(), abs=1e-5)
    paired = one(contrasts, **key, matching="activity")
    assert paired["n_a"] == paired["n_b"]
    assert paired["unmatched_a"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_every_seed_has_its_own_rows(tables, seed):
    scores = [accuracy(r["fuzzing"]) for r in raw("sae", seeds=[seed]) if r["fuzzing"]]
    key = ALL | ACCURACY | {"seed": str(seed), "scorer": "rule-fuzzing"}
    row = one(tables["means"], **key, family="sae", explanation="own")
    assert row["n"] == len(scores)
    assert row["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
    other = one(tables["means"], **key, family="topk-native", explanation="own")["mean"]
    found = one(tables["contrasts"], **key, a="topk-native", b="sae", matching="none")
    assert found["difference"] == pytest.approx(other - row["mean"], abs=2e-5)


def test_no_column_is_empty(tables):
    for name, table in tables.items():
        if name == "generalization_ranking":
            # These results have no grid of runs; see tests/generalization.
            assert table.empty
            continue
        if name == "generalization_leads":
            # Runs differ in their seed and variant alone.
            table = table.drop(columns="setting")
        if name == "generalization_phases":
            # The one task here groks, and its phases are others.
            table = table.drop(columns=["learned", "best"])
        if name == "layers":
            table = table[table["kind"] == "family"].drop(columns="cost")
        assert not table.columns[table.isna().all()].tolist(), name


def test_concepts_are_summed_up_beside_their_null(tables):
    folder = {seed: paths.concepts("native", seed) for seed in (0, 1)}
    draws = {seed: pd.read_csv(folder[seed] / "draws.csv") for seed in folder}
    found = {seed: pd.read_csv(folder[seed] / "concepts.csv") for seed in folder}
    key = {"kind": "lexical", "family": "native"}
    for name, seeds in (("all", (0, 1)), ("1", (1,))):
        row = one(tables["concept_summary"], **key, seed=name)
        assert row["null"] == "random-directions"
        for source, prefix in (("own", ""), ("random-directions", "null_")):
            drawn = pd.concat([draws[seed] for seed in seeds])
            drawn = drawn[(drawn["source"] == source) & (drawn["kind"] == "lexical")]
            assert row[f"{prefix}f1"] == pytest.approx(drawn["mean_f1"].mean(), abs=1e-5)
            assert row[f"{prefix}recovered"] == pytest.approx(drawn["recovered"].mean(), abs=1e-4)
            assert row[f"{prefix}f1_low"] < row[f"{prefix}f1"] < row[f"{prefix}f1_high"]
        above = row["f1"] - row["null_f1"]
        assert row["f1_above_null"] == pytest.approx(above, abs=1e-5)
        own = pd.concat([found[seed] for seed in seeds])
        own = own[(own["source"] == "own") & (own["kind"] == "lexical")]
        recovered = (own["f1"] >= CONFIG.concepts.recovered).sum() / len(seeds)
        assert row["recovered_by_all"] == recovered
        assert row["split"] == (own["main_latents"] == 2).sum() / len(seeds)
    rules = [pd.read_csv(folder[seed] / "rules.csv") for seed in folder]
    clear = pd.concat(rules)
    clear = clear[(clear["kind"] == "lexical") & (clear["f1"] >= CONFIG.concepts.named_from)]
    row = one(tables["concept_summary"], **key, seed="all")
    assert row["rules"] == len(clear) > 0
    assert row["named"] == pytest.approx(clear["named"].mean(), abs=1e-5)


def test_latents_have_precision_recall_and_coverage(tables):
    own = tables["latents"][tables["latents"]["family"] == "sae"]
    for name in ("detection", "fuzzing"):
        counts = [record[name] for record in raw("sae")]
        expected = {
            "precision": [c and c["tp"] / (c["tp"] + c["fp"]) for c in counts],
            "recall": [c and c["tp"] / (c["tp"] + c["fn"]) for c in counts],
            "coverage": [c and sum(c.values()) / 100 for c in counts],
        }
        for measure, values in expected.items():
            found = own[f"rule-{name}-{measure}"].tolist()
            values = [np.nan if value is None else value for value in values]
            assert found == pytest.approx(values, nan_ok=True, abs=1e-5)
            key = {"family": "sae", "scorer": f"rule-{name}", "seed": "all", "measure": measure}
            row = one(tables["means"], **key)
            assert row["mean"] == pytest.approx(np.nanmean(values), abs=1e-5)
            assert row["low"] <= row["mean"] <= row["high"]


def test_seeds_and_layers_have_intervals_of_their_own(tables):
    """By scipy's t interval over their means, which weighs them alike."""
    key = ALL | ACCURACY | {"scorer": "rule-detection", "explanation": "own", "family": "sae"}
    row = one(tables["means"], **key)
    latents = tables["latents"].dropna(subset=["rule-detection"])
    own = latents[latents["family"] == "sae"]
    for level in ("seed", "layer"):
        means = own.groupby(level)["rule-detection"].mean()
        error = scipy_stats.sem(means) * scipy_stats.t.ppf(0.975, len(means) - 1)
        found = row[f"high_{level}s"] - row["mean"]
        assert found == pytest.approx(error, rel=0.15)
        assert row["mean"] - row[f"low_{level}s"] == pytest.approx(found, rel=1e-3)
    alone = one(tables["means"], **key | {"seed": "1"})
    assert np.isnan(alone["low_seeds"])
    assert np.isfinite(alone["low_layers"])


def test_equivalence_follows_the_interval_and_the_margin(tables, project, monkeypatch):
    contrasts = tables["contrasts"]
    assert (contrasts["equivalence"] == CONFIG.collate.equivalence).all()
    # What the 95 % interval shows, the 90 % one does.
    margin = CONFIG.collate.equivalence
    inside = (contrasts["low"] > -margin) & (contrasts["high"] < margin)
    assert contrasts.loc[inside, "equivalent"].all()
    beyond = contrasts["difference"].abs() >= margin
    assert beyond.any()
    assert not contrasts.loc[beyond, ["equivalent", "equivalent_layers"]].any(axis=None)
    assert not contrasts.loc[contrasts["matching"] == "activity", "equivalent_seeds"].any()
    monkeypatch.chdir(project)
    wide = synthetic_results.few(collate={"equivalence": 0.9})
    frames = registry.make(sources.read(wide), wide)
    enough = frames["contrasts"]["low"].notna()
    assert frames["contrasts"].loc[enough, "equivalent"].all()


def test_one_seed_is_no_sample_of_seeds(bare):
    for name in ("means", "contrasts"):
        columns = set(pd.read_csv(bare / paths.results("default") / f"{name}.csv"))
        assert "low_layers" in columns
        assert not {column for column in columns if column.endswith("_seeds")}


def test_every_latent_is_in_one_bin_of_its_concept(tables):
    bins = tables["concept_latents"]
    for family in TRUTH:
        own = bins[bins["family"] == family]
        latents = [pd.read_csv(paths.concepts(family, s) / "latents.csv") for s in (0, 1)]
        every = pd.concat(latents)
        every = every[every["source"] == "own"]
        assert own["latents"].sum() == len(every)
        assert own["share"].sum() == pytest.approx(1, abs=1e-4)
        high = own[(own["f1_low"] >= 0.5) & (own["kind"] == "lexical")]["latents"].sum()
        assert high == ((every["f1"] >= 0.5) & (every["kind"] == "lexical")).sum()


def test_protocols_are_compared_within_latents(tables):
    frames = []
    for family, seed in product(("native", "token-unigram"), (0, 1)):
        frame = pd.read_csv(paths.overlap(family, seed) / "overlap.csv").assign(seed=seed)
        frames.append(frame.assign(family=family))
    raw = pd.concat(frames)
    for family, own in raw.groupby("family"):
        row = one(tables["protocols"], family=family, scorer="rule-fuzzing", rate_low=None)
        latents = own.dropna(subset=["protocol"])
        assert row["drawn"] == len(latents) / 3 + own["protocol"].isna().sum()
        assert row["n"] == len(latents) / 3
        assert row["too_few"] == sum(one == "unscorable" for one in own["status"]) > 0
        first = latents[latents["protocol"] == "delphi"]
        assert row["seen"] == pytest.approx((first["seen"] / first["positives"]).mean(), abs=1e-5)
        means = {}
        for protocol, part in latents.groupby("protocol"):
            tp = part["fuzzing_tp"].to_numpy()
            means[protocol] = (tp / (tp + part["fuzzing_fn"].to_numpy()) / 2 + 0.25).mean()
        assert row["overlap"] == pytest.approx(means["delphi"] - means["disjoint"], abs=1e-5)
        assert row["both"] == pytest.approx(means["delphi"] - means["held-out"], abs=1e-5)
        assert row["overlap"] + row["text"] == pytest.approx(row["both"], abs=1e-5)
        # Half of 0.06 and of 0.1 is what was put in.
        assert row["overlap_low"] < 0.03 < row["overlap_high"]
        assert row["both_low"] < 0.05 < row["both_high"]


def test_protocols_by_rate_leave_out_few_latents(tables):
    bins = tables["protocols"].dropna(subset=["rate_low"])
    assert len(bins)
    assert (bins["n"] >= CONFIG.collate.min_stratum).all()
    for row in bins.itertuples():
        frames = [pd.read_csv(paths.overlap(row.family, s) / "overlap.csv") for s in (0, 1)]
        rate = pd.concat(frames).query("protocol == 'delphi'")["rate"]
        inside = (rate >= row.rate_low) & (rate < row.rate_high)
        assert abs(inside.sum() - row.n) <= 1  # edges are written with six digits


def test_a_corpus_without_labels_has_empty_tables_of_concepts(bare):
    folder = bare / paths.results("default")
    for name in ("concepts", "concept_latents", "concept_summary"):
        assert pd.read_csv(folder / f"{name}.csv").empty
    assert "concept" not in (folder / "summary.md").read_text()


def test_few_latents_give_no_interval(project, monkeypatch):
    monkeypatch.chdir(project)
    config = synthetic_results.few(collate={"min_stratum": 100_000})
    frames = registry.make(sources.read(config), config)
    assert frames["means"]["mean"].notna().all()
    ends = [f"{end}{level}" for end in ("low", "high") for level in ("", "_layers", "_seeds")]
    for name in ("means", "contrasts"):
        assert frames[name][ends].isna().all(axis=None)
    assert not frames["contrasts"]["equivalent"].any()
    # The ranges of concepts are over draws of latents.
    text, _, _ = summary.markdown(frames, config).partition("| concepts:")
    # Those of circuits are over prompts.
    parts = [part for part in text.split("\n\n") if not part.startswith("| circuits:")]
    assert "[" not in "".join(parts)


def test_the_depth_of_models_is_summed_over_later_layers(tables):
    layers, depth = tables["layers"], tables["depth"]
    assert set(depth["model"]) == set(CONFIG.models)
    for row in depth.itertuples():
        own = layers[(layers["name"] == row.model) & (layers["seed"] == row.seed)]
        cost = own.sort_values("layer")["cost"].tolist()
        assert row.sum_single == pytest.approx(sum(cost[1:]), rel=1e-4)
        assert row.joint == pytest.approx(1.5 * sum(cost[1:]), rel=1e-4)
        assert (row.layers_that_matter, row.layers) == (2, 3)


def test_losses_are_told_in_nats_above_the_clean_model(tables):
    coders = pd.read_csv(paths.evaluate(0) / "coders.csv").query("family == 'sae'")
    found = tables["layers"].query("name == 'sae' and seed == 0")["nats_splice"]
    expected = (coders["loss_splice"] - coders["loss_clean"]).to_numpy()
    assert found.to_numpy() == pytest.approx(expected, rel=1e-4)
    splice = tables["splice_all"]
    nats = splice["loss_ablate"] - splice["loss_clean"]
    assert splice["nats_ablate"].to_numpy() == pytest.approx(nats.to_numpy(), rel=1e-4)
    row = one(tables["summary"], family="sae")
    own = splice.query("family == 'sae'")["nats_splice"]
    assert row["nats_splice_all_layers"] == pytest.approx(own.mean(), rel=1e-4)
    every = tables["depth"].query("model == 'dense'")["joint_all"]
    assert row["nats_ablate_all_layers"] == pytest.approx(every.mean(), rel=1e-4)
    assert row["dead_max"] == pytest.approx(0.05)


def test_the_primary_contrasts_of_live_latents_are_tested(tables):
    primary, contrasts = tables["primary"], tables["contrasts"]
    assert set(zip(primary["a"], primary["b"])) == PRIMARY
    assert set(primary["tests"]) == {4}
    key = {"layers": "matter", "latents": "live", "seed": "all", "matching": "none"}
    for row in primary.itertuples():
        found = one(contrasts, **key, **ACCURACY, a=row.a, b=row.b, scorer=row.scorer)
        assert found["role"] == "primary"
        assert row.low < found["low"] < row.difference == found["difference"]
    assert (contrasts["role"] == "primary").sum() == 4
    assert set(tables["embedding_contrasts"]["role"]) == {"exploratory"}


def test_all_layers_at_once_recover_what_was_measured(tables):
    splice = tables["splice_all"]
    gained = splice["loss_ablate"] - splice["loss_splice"]
    share = gained / (splice["loss_ablate"] - splice["loss_clean"])
    assert splice["loss_recovered"].to_numpy() == pytest.approx(share, abs=1e-4)
    found = tables["summary"].set_index("family").loc["sae", "loss_recovered_all_layers"]
    own = splice.loc[splice["family"] == "sae", "loss_recovered"]
    assert found == pytest.approx(own.mean(), abs=1e-5)


def test_coverage_counts_every_drawn_latent(tables):
    coverage = tables["coverage"]
    assert (coverage["drawn"] == 40).all()
    ends = ["explained", "dead", "too_rare", "too_frequent", "unscorable"]
    assert (coverage[ends].sum(axis=1) == 40).all()
    dead = sum(record["status"] == "dead" for record in raw("native"))
    assert coverage.loc[coverage["family"] == "native", "dead"].sum() == dead


def test_loss_recovered_is_left_out_where_a_layer_does_not_matter(tables):
    layers = tables["layers"]
    coders = layers[(layers["kind"] == "family") & ~layers["name"].str.contains("native")]
    assert coders.loc[coders["layer"] == 2, "loss_recovered"].isna().all()
    # Nor of the untrained model, which has no loss to recover.
    of_trained = coders[~coders["name"].str.startswith("step0")]
    assert of_trained.loc[of_trained["layer"] < 2, "loss_recovered"].notna().all()
    assert (layers["matters"] == (layers["layer"] < 2)).all()


def test_summary_gives_costs_of_model_and_coders_together(tables):
    rows = tables["summary"].set_index("family")
    assert rows.loc["sae", "parameters"] == 531_000 + 1_057_280
    assert rows.loc["native", "parameters"] == 1_190_000
    assert rows.loc["random-native", "model_tokens"] == 0
    assert rows.loc["step0-transcoder", "model_tokens"] == 0
    assert np.isnan(rows.loc["step0-transcoder", "loss_recovered"])
    assert rows.loc["step0-transcoder", "fvu"] > 0
    assert np.isnan(rows.loc["token-unigram", "parameters"])
    shares = rows[["explained", "dead", "too_rare", "too_frequent", "unscorable"]].sum(axis=1)
    assert shares.to_numpy() == pytest.approx(1, abs=1e-5)


def test_markdown_says_what_intervals_describe(project):
    text = (project / paths.results("default") / "summary.md").read_text()
    assert "describe these trained models only (2 training seeds)" in text
    assert "Over seeds: the 2 training seeds are drawn" in text
    rows = [line for line in text.splitlines() if line.startswith("| **native** |")]
    assert len(rows) == 6
    for line in text.splitlines():
        assert "nan" not in line.lower()
    head, rule, row = text.splitlines()[:3]
    assert head.count("|") == rule.count("|") == row.count("|")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("trigger", "Half of the negatives of rule-detection are windows that hold the latent's"),
        ("random", "The negatives of rule-detection are random silent windows."),
        ("co-occurrence", "active that often are when it is, filled up with random ones."),
        ("decoder-similarity", "similar decoder weights"),
        ("encoder-similarity", "similar encoder weights"),
        ("similar", "most similar in meaning"),
    ],
)
def test_markdown_says_which_negatives_there_were(tables, kind, words):
    over = {"score": {"non_activating": kind}, "embed": {"splits": ["score"]}}
    text = summary.markdown(tables, synthetic_results.small(**over))
    assert words in text
    assert ("token while it is silent" in text) == (kind == "trigger")
    assert "on unseen text" in text
    seen = synthetic_results.small(explain={"protocol": "delphi"})
    assert "on unseen text" not in summary.markdown(tables, seen)


def test_markdown_flags_a_pair_that_does_not_match(tables):
    frames = dict(tables)
    frames["pair"] = frames["pair"].assign(difference=0.04)
    frames["summary"] = frames["summary"].assign(pair_matched=False)
    assert "**The models are not matched" in summary.markdown(frames, CONFIG)
    assert "not matched" not in summary.markdown(tables, CONFIG)


def test_the_same_results_give_the_same_bytes(two, tmp_path, monkeypatch):
    again = build(tmp_path, monkeypatch, TWO)
    first = two / paths.results("default")
    contents = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (first, again)]
    assert contents[0] == contents[1]


def test_a_second_run_has_nothing_to_do(project, monkeypatch):
    monkeypatch.chdir(project)
    before = (paths.results("default") / "means.csv").stat().st_mtime_ns
    stage.run(CONFIG, runtime=Runtime())
    assert (paths.results("default") / "means.csv").stat().st_mtime_ns == before


def test_missing_scores_name_the_stage(project, tmp_path, monkeypatch):
    shutil.copytree(project / "artifacts", tmp_path / "artifacts")
    monkeypatch.chdir(tmp_path)
    scores = paths.score("sae", 1, CONFIG.model.hookpoint(2))
    (scores / "manifest.json").unlink()
    with pytest.raises(UserError, match="run `dvc repro score@sae` first"):
        stage.run(CONFIG, runtime=Runtime())
    assert not paths.results("default").exists()


def test_a_single_explained_latent_has_no_shuffled_score(project, monkeypatch):
    monkeypatch.chdir(project)
    config = synthetic_results.few()
    found = sources.read(config)
    scores = found.scores.copy()
    lonely = (scores["family"] == "native") & (scores["layer"] == 0)
    control = [f"rule-{a}-{b}" for a in ("detection", "fuzzing") for b in ("shuffled", "elsewhere")]
    scores.loc[lonely, control] = np.nan
    frames = registry.make(replace(found, scores=scores), config)
    key = ALL | ACCURACY | {"family": "native", "scorer": "rule-detection"}
    own, shuffled = (one(frames["means"], **key, explanation=e) for e in ("own", "shuffled"))
    left = scores.loc[(scores["family"] == "native") & ~lonely, "rule-detection-shuffled"].dropna()
    assert shuffled["n"] == len(left) < own["n"]
    assert shuffled["mean"] == pytest.approx(left.mean())


def test_an_experiment_of_two_families_has_its_tables(two):
    contrasts = pd.read_csv(two / paths.results("default") / "contrasts.csv")
    compared = contrasts[contrasts["kind"] != "own shuffled"]
    assert set(zip(compared["a"], compared["b"])) == {("native", "transcoder")}


def test_collating_loads_neither_torch_nor_transformers(project):
    code = (
        "import sys; from clearnets.pipeline.runtime import Runtime; import synthetic_results as s;"
        "from clearnets.stages import collate; collate.run(s.small(), runtime=Runtime());"
        "from clearnets.analysis import registry, sources;"
        "registry.make(sources.read(s.few()), s.few());"
        "assert not {'torch', 'transformers', 'sparsify'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    path = {"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=project, env=path, check=True)


def test_how_long_a_base_was_trained_is_not_known(tmp_path, monkeypatch):
    config = synthetic_results.small(
        models=["dense"],
        families=["transcoder"],
        coders={"existing": {"transcoder": {"name": "x/theirs"}}},
    )
    monkeypatch.chdir(tmp_path)
    synthetic_results.write(config)
    found = sources.read(config)
    for costs in found.compute.values():
        costs["models"]["dense"] |= {"training_tokens": None, "training_flops": None}
    table = models.compute_table(found)
    assert table["training_tokens"].isna().all()
    # Numbers all the same, of which the summary takes means.
    assert table["training_tokens"].dtype == float


def test_coders_of_others_are_named_and_so_is_their_width(two):
    folder = two / paths.results("default")
    row = one(pd.read_csv(folder / "summary.csv"), family="transcoder")
    assert row["reconstructs"] == "feedforward output, by the coders of EleutherAI/sae-x"
    assert row["latents_per_layer"] == 4096
    assert np.isnan(row["coder_tokens"])
    text = (folder / "summary.md").read_text()
    assert "Latents per layer differ: native 1,024, transcoder 4,096" in text
    assert "nan" not in text


def test_scores_by_language_models_lie_apart_and_demonstrations_apart_from_those(
    tmp_path, monkeypatch
):
    """With a language model alone, rules score nothing; all other tables stand."""
    client = {"kind": "openai", "model": "m"}
    scorer = {"kind": "delphi", "scorers": ["detection", "intruder"], "client": client}
    values = synthetic_results.few().model_dump(mode="json")
    values["explain"]["explainer"] = {"kind": "delphi", "explainer": "default", "client": client}
    values["score"]["scorers"] = [scorer]
    config = type(CONFIG).model_validate_json(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    synthetic_results.write(config)
    counts = {"tp": 3, "fp": 1, "tn": 2, "fn": 1, "missing_positives": 1, "missing_negatives": 2}
    for path in paths.ARTIFACTS.glob("score/*/*/*/scores.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        keys = ("latent", "status", "rate", "windows")
        judged = [{key: record[key] for key in keys} for record in records]
        for record, line in zip(records, judged):
            record |= {key: None for key in record if key not in keys}
            own = line["status"] == "explained"
            # The judge qualified between the seeds.
            line["demonstration"] = "seed-0" in path.parts
            line["detection"] = {**counts, "auroc": 0.75} if own else None
            line["intruder"] = {"right": 1, "wrong": 3, "missing": 0} if own else None
        for name, lines in (("scores", records), ("judged", judged)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            path.with_name(f"{name}.jsonl").write_text(text)
        path.with_name("probabilities.json").write_text("{}")
    synthetic_judge.leave_samples(config)
    for manifest in paths.ARTIFACTS.glob("score/*/*/*/manifest.json"):
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": {}}))
    stage.run(config, runtime=Runtime())

    folder = paths.results("default")
    judged, demonstration = (pd.read_csv(folder / f"{n}.csv") for n in ("judged", "demonstration"))
    assert (set(judged["seed"]), set(demonstration["seed"])) == ({1}, {0})
    own = judged[(judged["scorer"] == "detection") & (judged["status"] == "explained")]
    # 3 of 4 and 2 of 3 that were answered.
    assert own["accuracy"].to_numpy() == pytest.approx((3 / 4 + 2 / 3) / 2, abs=1e-5)
    assert set(zip(own["answered"], own["missing"], own["auroc"])) == {(7, 3, 0.75)}
    intruder = judged[(judged["scorer"] == "intruder") & (judged["status"] == "explained")]
    assert set(intruder["accuracy"]) == {0.25}
    assert judged[judged["status"] != "explained"]["accuracy"].isna().all()
    assert pd.read_csv(folder / "latents.csv")["rule-detection"].isna().all()
    assert "detection" not in set(pd.read_csv(folder / "means.csv")["scorer"])


def test_scores_by_embeddings_have_tables_of_their_own(tables):
    every = tables["embedding"]
    assert every[["family", "latent"]].equals(tables["latents"][["family", "latent"]])
    records = similar("sae")
    there = [record for record in records if record["auroc"] is not None]
    key = ALL | {"family": "sae"}
    for explanation, field in (("own", "auroc"), ("shuffled", "shuffled")):
        row = one(tables["embedding_means"], **key, explanation=explanation)
        assert row["n"] == len(there)
        assert row["mean"] == pytest.approx(np.mean([r[field] for r in there]), abs=1e-5)
    covered = [0.5 if r["auroc"] is None else r["auroc"] for r in records]
    row = one(tables["embedding_means"], **key | {"latents": "all"}, explanation="own")
    assert row["mean"] == pytest.approx(np.mean(covered), abs=1e-5)
    del key["family"]
    above = one(tables["embedding_contrasts"], **key, kind="own shuffled", a="sae")
    both = {f: one(tables["embedding_means"], **key, family=f, explanation="own") for f in TRUTH}
    contrast = one(tables["embedding_contrasts"], **key, a="topk-native", b="sae", matching="none")
    difference = both["topk-native"]["mean"] - both["sae"]["mean"]
    assert contrast["difference"] == pytest.approx(difference, abs=2e-5)
    expected = np.mean([r["auroc"] - r["shuffled"] for r in there])
    assert above["difference"] == pytest.approx(expected, abs=1e-5)
    # No table mixes them with the scores of rules.
    assert set(tables["means"]["scorer"]) == {"rule-detection", "rule-fuzzing"}
    assert set(tables["embedding_means"]["scorer"]) == {"embedding"}


def test_the_area_under_a_mean_curve_is_the_mean_auroc(tables):
    roc, means = tables["embedding_roc"], tables["embedding_means"]
    for (family, explanation), curve in roc.groupby(["family", "explanation"]):
        row = one(means, **ALL, family=family, explanation=explanation)
        assert set(curve["n"]) == {row["n"]}
        assert curve["fpr"].is_monotonic_increasing
        area = np.trapezoid(curve["tpr"], curve["fpr"])
        assert area == pytest.approx(row["mean"], abs=0.02)
    assert set(roc["family"]) == set(TRUTH)


def test_agreement_is_over_the_latents_that_both_judge(tables):
    for family in ("native", "token-unigram"):
        judged = raw(family)
        pairs = [
            (accuracy(a["fuzzing"]), b["auroc"])
            for a, b in zip(judged, similar(family), strict=True)
            if b["auroc"] is not None
        ]
        row = one(tables["embedding_agreement"], family=family, scorer="rule-fuzzing")
        assert row["n"] == len(pairs) < sum(r["fuzzing"] is not None for r in judged)
        ranks = [scipy_stats.rankdata(values) for values in zip(*pairs)]
        assert row["correlation"] == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-5)
        assert row["low"] < row["correlation"] < row["high"]


def test_the_interval_of_a_rank_correlation_covers_the_truth():
    """Normal variables with correlation 0.6, whose Spearman correlation is known."""
    truth, rng = 6 / np.pi * np.arcsin(0.6 / 2), np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        hits += rank_correlation(x, y, 0.9).contains(truth)
    # Binomial: 300 trials at 90 % have a standard deviation of 5.2.
    assert abs(hits - 270) < 16
    assert math.isnan(rank_correlation(np.ones(9), np.arange(9.0), 0.9).value)
    assert rank_correlation(np.arange(9.0), np.arange(9.0), 0.9).high == pytest.approx(1)


def test_the_families_are_those_of_the_table(tables):
    """With the nulls of native latents, drawn in their colour."""
    rows = tables["families"].set_index("family")
    assert list(rows.index) == [*FAMILIES, *DIRECTIONS]
    for name, spec in FAMILIES.items():
        assert (rows.loc[name, "label"], rows.loc[name, "fill"]) == (spec.label, spec.fill)
        assert bool(rows.loc[name, "trained"]) == spec.trained
    assert set(DIRECTIONS) >= {"random-directions", "random-topk-directions"}
    for name, spec in FAMILIES.items():
        if spec.null in DIRECTIONS:
            assert rows.loc[spec.null, "color"] == rows.loc[name, "color"]
            assert rows.loc[spec.null, "fill"] == "none"
