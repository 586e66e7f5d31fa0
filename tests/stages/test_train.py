"""The stages `train` and `match` on a hand-made data unit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clearnets import UserError, config
from clearnets.data.tokenizer import save_tokenizer, train_tokenizer
from clearnets.models.loading import load
from clearnets.models.matching import load_pair
from clearnets.models.untrained import untrained
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, check, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import match, train
from clearnets.training import language

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import tiny_run

CPU = Runtime(device="cpu", threads=1)


@pytest.fixture(scope="module")
def settings() -> config.Config:
    base = config.read_yaml(tiny_run.ROOT / "params.yaml")
    small = {
        "seeds": [0, 1],
        "models": ["dense", "sparse"],
        "families": ["native", "groupmax-transcoder"],
        "data": {"ctx_len": tiny_run.CTX},
        "model": tiny_run.model_settings().model_dump(mode="json"),
        "train": {**tiny_run.train_settings(epochs=1).model_dump(mode="json")},
        "explain": {"window": tiny_run.CTX},
    }
    return config.parse(config.overlay(base, small), "test")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, settings: config.Config) -> Path:
    """A project folder in which everything up to `match` has been run."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for _, work in build_all([Unit(stage="data", out=paths.data(), settings={}, inputs={})]):
            tokens = {
                "train": tiny_run.rows(62, seed=1),
                "valid": tiny_run.padded_rows(9, seed=2),
            }
            (work.out / "tokens").mkdir()
            for name, rows in tokens.items():
                np.save(work.out / "tokens" / f"{name}.npy", rows)
            tokenizer = train_tokenizer(["a story"], vocab_size=260)
            save_tokenizer(tokenizer, work.out / "tokenizer", ctx_len=tiny_run.CTX)
            ids = {"pad": tiny_run.PAD, "bos": tiny_run.BOS, "eos": tiny_run.EOS}
            sizes = {"vocab_size": tiny_run.VOCAB, "ctx_len": tiny_run.CTX}
            write_json(work.out / "meta.json", {**sizes, **ids, "concepts": []})
        for mlp in ("dense", "sparse"):
            train.run(settings, runtime=CPU, mlp=mlp)
        match.run(settings, runtime=CPU)
    return root


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def test_units_are_whole_and_nothing_is_left_behind(settings: config.Config) -> None:
    for mlp in ("dense", "sparse"):
        for unit in train.units(settings, mlp=mlp):
            check(unit.out)
            assert unit.fresh()
            assert unit.settings["mlp"] == mlp
    assert not [path for path in paths.WORK.rglob("*") if path.is_file()]
    assert len(match.units(settings)) == 2


def test_a_second_run_trains_nothing(
    settings: config.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(language, "train", never)
    before = paths.metrics("train-sparse").read_bytes()
    train.run(settings, runtime=CPU, mlp="sparse")
    assert paths.metrics("train-sparse").read_bytes() == before
    slower = settings.model_copy(
        update={"train": settings.train.model_copy(update={"learning_rate": 0.001})}
    )
    with pytest.raises(AssertionError, match="trained again"):
        train.run(slower, runtime=CPU, mlp="sparse")


def test_a_state_of_another_configuration_is_not_gone_on_from(
    settings: config.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run left is found by the fingerprint of its settings and inputs only."""

    class Stop(Exception):
        pass

    found: list[list[str]] = []

    def killed(model: object, settings: object, text: object, where: language.Run) -> None:
        state = where.state
        found.append([path.name for path in state.iterdir()])
        (state / "training.pt").touch()
        raise Stop

    def run(**values: object) -> None:
        changed = settings.train.model_copy(update=values)
        with pytest.raises(Stop):
            train.run(
                settings.model_copy(update={"train": changed}), runtime=CPU, mlp="sparse_topk"
            )

    monkeypatch.setattr(language, "train", killed)
    for values in ({}, {"learning_rate": 0.001}, {"precision": "bfloat16"}, {"grad_acc_steps": 2}):
        run(**values)
    assert found == [[]] * 4
    run()
    assert found[-1] == ["training.pt"]
    # Nor is it by the same settings on other data.
    data = paths.data() / "manifest.json"
    manifest = data.read_bytes()
    try:
        data.write_bytes(manifest.replace(b'"stage"', b' "stage"'))
        run()
    finally:
        data.write_bytes(manifest)
    assert found[-1] == []


def test_seeds_differ_and_metrics_come_from_the_units(settings: config.Config) -> None:
    weights = [
        (paths.train("sparse", seed) / "final" / "model.safetensors").read_bytes()
        for seed in settings.seeds
    ]
    assert weights[0] != weights[1]
    metrics = read_json(paths.metrics("train-sparse"))
    assert sorted(metrics) == ["seed-0", "seed-1"]
    model = load(paths.train("sparse", 1) / "final")
    total = sum(parameter.numel() for parameter in model.parameters())
    hidden = settings.model.hidden_size
    assert metrics["seed-1"]["parameters"] == total
    embeddings = 2 * tiny_run.VOCAB * hidden
    assert metrics["seed-1"]["non_embedding_parameters"] == total - embeddings
    assert metrics["seed-1"]["steps"] == 62 // 4


def test_log_holds_times_and_samples(settings: config.Config) -> None:
    text = paths.log("train-dense").read_text()
    assert text.count("sample 3: ") == len(settings.seeds)
    assert "tokens/s" in text


def test_pair(settings: config.Config) -> None:
    for seed in settings.seeds:
        pair = load_pair(seed)
        record = json.loads((paths.match(seed) / "pair.json").read_text())
        assert pair.dense == paths.checkpoint("dense", seed, record["dense"]["step"])
        assert pair.untrained["sparse"].name == "step-000000"
        assert load(pair.dense).config.mlp == "dense"
        for folder in (pair.trained["sparse"], pair.untrained["sparse"]):
            assert load(folder).config.mlp == "sparse"
        last = {"dense": 62 // 4, "sparse": 62 // 4}
        assert any(record[mlp]["step"] == last[mlp] for mlp in last)
        assert (
            read_json(paths.metrics("match"))[f"seed-{seed}"]["sparse_matched"]
            is record["sparse"]["matched"]
        )


def test_a_missing_pair_or_run_names_its_stage(settings: config.Config) -> None:
    with pytest.raises(UserError, match="run `dvc repro match` first"):
        load_pair(5)
    other = settings.model_copy(update={"seeds": (5,)})
    with pytest.raises(UserError, match="run `dvc repro train@dense` first"):
        match.run(other, runtime=CPU)
    assert not paths.match(5).exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_initial_weights_can_be_made_anew(seed: int) -> None:
    """The coders of the untrained model read what training itself has kept as its checkpoint 0."""
    kept = load(paths.checkpoint("dense", seed, 0)).state_dict()
    made = untrained(load_pair(seed).dense, seed).state_dict()
    assert made.keys() == kept.keys()
    for name, weight in kept.items():
        assert torch.equal(made[name], weight), name
    other = untrained(load_pair(seed).dense, 2).state_dict()
    assert any(not torch.equal(other[name], weight) for name, weight in kept.items())
