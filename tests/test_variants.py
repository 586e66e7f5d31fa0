"""Whole pipelines, in one process and at the smallest size, of experiments with other models."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny_experiment import experiment
from whole_pipeline import CPU, ROOT, draw_figures, run_behind_data

from clearnets.config import Config
from clearnets.models.loading import load
from clearnets.pipeline import dvc, paths
from clearnets.pipeline.artifacts import read_json
from clearnets.pipeline.stage import names_of
from clearnets.stages import data

# What every comparison has; the runs are too short for figures of their checkpoints.
FIGURES = {
    *("losses", "ablation", "scores", "precision_recall", "layers", "rates", "contrasts"),
    *("embedding", "protocols", "concepts", "concept_map", "executed", "effects", "circuits"),
    "circuit_training",
}
# Drawn where a circuit is found at all, which is chance in models of this size.
BY_CHANCE = {"circuit_members"}


def run(cfg: Config) -> Path:
    """Every stage, in the working directory; the folder of the tables."""
    data.run(cfg, runtime=CPU)
    run_behind_data(cfg)
    draw_figures(cfg)
    return paths.results(cfg.experiment)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.nightly
def test_a_dense_model_alone():
    cfg = experiment(["dense"], ["transcoder", "neurons", "random-transcoder"])
    tables = run(cfg)
    pair = read_json(paths.match(0) / "pair.json")
    assert set(pair) == {"dense"}
    last = table(paths.train("dense", 0) / "curve.csv")[-1]
    assert pair["dense"]["step"] == int(last["step"])
    assert {row["model"] for row in table(tables / "curves.csv")} == {"dense"}
    summary = {row["family"]: row for row in table(tables / "summary.csv")}
    assert list(summary) == ["transcoder", "neurons", "random-transcoder"]
    assert {row["model"] for row in summary.values()} == {"dense"}
    # k comes from the experiment's model: as many neurons are active as latents may be.
    assert float(summary["neurons"]["l0"]) == pytest.approx(cfg.model.k, rel=0.01)
    contrasts = {(row["a"], row["b"]) for row in table(tables / "contrasts.csv")}
    assert ("transcoder", "random-transcoder") in contrasts
    assert not any("native" in pair for pair in contrasts)
    text = (tables / "summary.md").read_text()
    assert "There is one model" in text
    assert "nan" not in text
    captions = json.loads((paths.FIGURES / "captions.json").read_text())
    assert "paired" not in captions["losses"]
    assert set(captions) == {path.stem for path in paths.FIGURES.glob("*.pdf")}
    assert set(captions) - BY_CHANCE == FIGURES | {"fvu", "recovered", "roc", "densities"}


def test_a_dense_model_without_coders_has_fewer_figures():
    run(experiment(["dense"], ["neurons"]))
    drawn = {path.stem for path in paths.FIGURES.glob("*.svg")}
    assert drawn - BY_CHANCE == FIGURES | {"roc"}


@pytest.mark.nightly
def test_a_pair_with_a_low_rank_sparse_model():
    mode = "sparse_low_rank"
    cfg = experiment(["dense", mode], ["low-rank-native", "transcoder", "random-low-rank-native"])
    tables = run(cfg)
    pair = read_json(paths.match(0) / "pair.json")
    assert set(pair) == {"dense", mode}
    assert pair[mode]["path"].startswith(f"artifacts/train/{mode}/seed-0/checkpoints/")
    model = load(Path(pair[mode]["path"]))
    assert model.config.mlp == mode
    summary = {row["family"]: row for row in table(tables / "summary.csv")}
    assert {summary[f"{kind}low-rank-native"]["model"] for kind in ("", "random-")} == {mode}
    assert summary["transcoder"]["model"] == "dense"
    parameters = sum(p.numel() for p in model.parameters())
    assert int(summary["low-rank-native"]["parameters"]) == parameters
    assert 0 < float(summary["low-rank-native"]["l0"]) <= cfg.model.k
    (matched,) = (row for row in table(tables / "pair.csv") if row["model"] == mode)
    assert matched["step"] == str(pair[mode]["step"])
    assert f"| {mode} |" in (tables / "summary.md").read_text()
    captions = json.loads((paths.FIGURES / "captions.json").read_text())
    assert f"the dense and the {mode} transformer" in captions["losses"]


@pytest.mark.parametrize(
    ("models", "families"),
    [(["dense"], ["transcoder"]), (["dense", "sparse_topk"], ["topk-native", "transcoder"])],
)
def test_dvc_lists_the_stages_of_an_experiment(models, families):
    cfg = experiment(models, families)
    shutil.copytree(ROOT / ".dvc", ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.local"))
    YAML().dump(cfg.model_dump(mode="json"), Path("params.yaml"))
    Path("dvc.yaml").write_text(dvc.pipeline(cfg))
    subprocess.run(["git", "init", "-q"], check=True)
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert set(listed) == set(names_of(cfg))
    of_each = ("explain", "score", "cache", "concepts", "probes", "overlap")
    of_each += ("execute", "effects", "intervene", "circuits")
    expected = {f"train@{mlp}" for mlp in models} | {"sparsify@transcoder", "match", "plan"}
    expected |= {f"{stage}@{family}" for stage in of_each for family in families}
    expected |= {"reseed@transcoder", "stability@transcoder"}
    assert expected <= set(listed)
    assert len([name for name in listed if "@" in name]) == len(expected) - 2 + 1
