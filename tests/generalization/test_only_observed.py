"""An experiment without models: only the tables and figures of generalization."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results

from clearnets import UserError, config
from clearnets.generalization.tables import phases
from clearnets.paper import figures
from clearnets.pipeline import experiments, paths
from clearnets.pipeline.artifacts import read_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate

ROOT = Path(__file__).parents[2]


def resolved(monkeypatch, tmp_path, name: str) -> config.Config:
    monkeypatch.chdir(ROOT)
    values = experiments.resolve(name, [])
    monkeypatch.chdir(tmp_path)
    return config.parse(values, name)


def test_grokking_alone_is_collated_and_drawn(monkeypatch, tmp_path):
    cfg = resolved(monkeypatch, tmp_path, "grokking-113")
    assert list(cfg.generalize.tasks) == ["grokking"]
    assert not cfg.compares
    synthetic_results.write(cfg)
    assert {path.name for path in paths.ARTIFACTS.iterdir()} >= {"generalize"}
    collate.run(cfg, runtime=Runtime("cpu", 1))
    tables = paths.results("grokking-113")
    assert all(path.stem.startswith("generalization_") for path in tables.glob("*.csv"))
    phases = pd.read_csv(tables / "generalization_phases.csv")
    assert phases[["memorised", "formed", "cleaned_up"]].drop_duplicates().values.tolist() == [
        [10, 50, 100]
    ]
    Path("paper").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "paper/scripts", "paper/scripts")
    shutil.copyfile(ROOT / "paper/clearnets.mplstyle", "paper/clearnets.mplstyle")
    figures.run(tables, paths.FIGURES)
    captions = read_json(paths.FIGURES / "captions.json")
    assert {"observed-grokking", "observed-grokking-all"} <= set(captions)
    assert "losses" not in captions
    assert "Shaded" in captions["observed-grokking"]
    svg = (paths.FIGURES / "observed-grokking.svg").read_text()
    for text in ("memorisation", "circuit formation", "clean-up", "test loss"):
        assert text in svg


def test_measures_are_written_wide_and_hold_what_was_measured(monkeypatch, tmp_path):
    cfg = resolved(monkeypatch, tmp_path, "grokking-113")
    synthetic_results.write(cfg)
    collate.run(cfg, runtime=Runtime("cpu", 1))
    written = pd.read_csv(paths.results("grokking-113") / "generalization_measures.csv")
    source = pd.read_csv(paths.generalize("grokking") / "measures.csv")
    keys = ["run", "step", "hookpoint"]
    pd.testing.assert_frame_equal(written.drop(columns="task")[list(source)], source)
    assert not written.duplicated(keys).any()


def test_what_an_experiment_without_models_cannot_have_is_refused():
    base = config.read_yaml(ROOT / "params.yaml")
    with pytest.raises(UserError, match="nothing to compare"):
        config.parse({**base, "models": []}, "x")
    bare = {**base, "models": [], "families": []}
    with pytest.raises(UserError, match="reads the models that are trained here"):
        config.parse(bare, "x")
    # An overlay need not name what the default compares.
    assert config.read_yaml(ROOT / "experiments/mnist.yaml")["models"] == []
    assert "families" not in config.read_yaml(ROOT / "experiments/mnist.yaml")


def phases_of(losses: dict[int, float]) -> dict:
    """Of a run with one metric at every checkpoint."""
    run = {"task": "digits", "run": "a"}
    curves = pd.DataFrame([run | {"step": s, "test_loss": loss} for s, loss in losses.items()])
    # Between checkpoints the curve has been lower.
    curves = pd.concat([curves, pd.DataFrame([run | {"step": 33, "test_loss": 0.0}])])
    measures = pd.DataFrame(
        [run | {"step": s, "hookpoint": "mlp", "metric": "hoyer", "value": 0.5} for s in losses]
    )
    (row,) = phases(curves, measures).to_dict("records")
    return row


def test_learning_ends_near_the_lowest_loss_and_overfitting_begins_there():
    # It falls from 4 to 1: nine tenths of the way are made below 1.3.
    losses = {0: 4.0, 1: 3.9, 10: 1.31, 20: 1.29, 40: 1.0, 80: 1.2, 160: 2.5}
    row = phases_of(losses)
    assert (row["learned"], row["best"]) == (20, 40)
    assert pd.isna([row["memorised"], row["formed"], row["cleaned_up"]]).all()
    assert phases_of({0: 4.0, 1: 3.0, 2: 2.0, 3: 1.5, 4: 1.0})["best"] == 4
    rising = phases_of({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0})
    assert pd.isna([rising["learned"], rising["best"]]).all()
