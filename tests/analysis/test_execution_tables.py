"""Tables of executed explanations against plain loops over the files that they are made from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic_results
from safetensors.numpy import load_file
from synthetic_results import LEFT

from clearnets import UserError
from clearnets.analysis import executed, execution, summary_execution
from clearnets.autointerp.execution import NAMES, ROWS
from clearnets.pipeline import paths

CONFIG = synthetic_results.few()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        synthetic_results.write(CONFIG)
    return folder


@pytest.fixture
def tables(project, monkeypatch):
    monkeypatch.chdir(project)
    return execution.tables(executed.read(CONFIG), CONFIG)


def test_every_number_is_a_ratio_of_sums(tables):
    table = tables["execution"]
    sums = load_file(paths.execute("transcoder", 1) / ROWS)
    tokens = sums["tokens"].sum()
    own = table[(table["family"] == "transcoder") & (table["seed"] == 1)]
    assert len(own) == 5 * len(NAMES)
    for row in own.itertuples():
        at = {"0": [0], "1": [1], "2": [2], "all": [3], "later": [1, 2]}[row.layer]
        nats = kl = worst = 0.0
        for p in at:
            nll = sums["nll"][p, NAMES.index(row.stand_in)]
            nats += float((nll - sums["clean"]).sum()) / tokens
            kl += float(sums["kl"][p, NAMES.index(row.stand_in)].sum()) / tokens
            worst += float(sums["kl"][p, NAMES.index("mean")].sum()) / tokens
        assert row.nats == pytest.approx(nats)
        assert row.kl == pytest.approx(kl)
        assert row.kept == pytest.approx(1 - kl / worst) == pytest.approx(1 - LEFT[row.stand_in])
        assert (row.tokens, row.documents) == (tokens, 30)


def test_intervals_are_over_documents_and_the_same_draws_for_all(tables):
    table = tables["execution"]
    inside = table[table["stand_in"] != "exact"]
    assert (inside["kl_low"] < inside["kl"]).all()
    assert (inside["kl"] < inside["kl_high"]).all()
    # One share in every document has no spread, whatever is drawn.
    assert np.allclose(table["kept_low"], table["kept"])
    # A mean over documents of unequal size: the t interval of their ratio is near.
    sums = load_file(paths.execute("native", 0) / ROWS)
    kl = pd.Series(sums["kl"][3, NAMES.index("mean")]).groupby(sums["document"]).sum()
    tokens = pd.Series(sums["tokens"]).groupby(sums["document"]).sum()
    residual = kl - kl.sum() / tokens.sum() * tokens
    error = np.sqrt((residual**2).sum()) / tokens.sum()
    (row,) = table.query(
        "family == 'native' and seed == 0 and layer == 'all' and stand_in == 'mean'"
    ).itertuples()
    assert (row.kl_high - row.kl_low) / 2 == pytest.approx(1.96 * error, rel=0.25)


def test_the_sum_over_layers_has_an_interval_over_layers(tables):
    table = tables["execution"]
    later = table["layer"] == "later"
    assert table.loc[~later, "kept_low_layers"].isna().all()
    assert table.loc[later, "kept_low_layers"].notna().all()


def test_latents_are_counted(tables):
    latents = tables["execution_latents"]
    row = latents[latents["layer"] == "all"].iloc[0]
    assert (row["latents"], row["explained"], row["r2"]) == (3 * 1024, 3 * 900, 0.25)


def test_the_summary_tells_the_share_kept(tables):
    text = summary_execution.execution_table(tables["execution"], tables["execution_latents"])
    line = next(line for line in text.splitlines() if line.startswith("| native"))
    assert line.startswith("| native | 0.88 | 0.25 | 0.40 (0.40 / 0.40) | 0.40 (0.40 / 0.40) |")


def test_a_missing_result_names_its_stage(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro execute@native"):
        executed.read(CONFIG)
