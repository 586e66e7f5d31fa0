"""Tasks on pictures: what a run is trained and tested on, where it stops, how it goes on."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pictures import local, pixels, write
from whole_pipeline import CPU, ROOT

from clearnets import UserError
from clearnets.config import (
    ConvNeXtV2,
    Digits,
    LocalPictures,
    PictureCurves,
    PictureGrid,
    PictureTraining,
    SparseFeedforward,
    SwinV2,
    ViT,
    load,
    overlay,
    parse,
    read_yaml,
)
from clearnets.data import images
from clearnets.generalization import pictures
from clearnets.generalization.checkpoint_metrics import WHOLE_MODEL, measure_run
from clearnets.generalization.classification import measure
from clearnets.generalization.pictures import PictureTask
from clearnets.generalization.tasks import curve
from clearnets.latents.hooks import capture
from clearnets.pipeline.artifacts import fingerprint, read_json, read_jsonl
from clearnets.pipeline.progress import progress
from clearnets.stages import generalize

SAMPLES = Path(os.environ.get("CLEARNETS_TEST_DATA", "absent")).resolve()
DIGITS = Digits(kind="digits", test=1600)
VIT = ViT(kind="vit", patch_size=4, hidden_size=8, num_layers=1, num_heads=2, mlp_ratio=2)
SPARSE = VIT.model_copy(update={"feedforward": SparseFeedforward(kind="sparse", expansion=4, k=4)})
TRAINING = PictureTraining(batch_size=16, learning_rate=0.01, warmup_steps=2, betas=(0.9, 0.99))


def curves(**options):
    values = {
        "pictures": DIGITS,
        "training": TRAINING,
        "train": (20, 50),
        "label_noise": (0.0, 0.3),
        "seeds": (3, 4),
        "observed": 2000,
        "models": {"dense": VIT, "sparse": SPARSE},
        "weight_decay": 0.1,
        "steps": 8,
        "checkpoints": 4,
        "spacing": "log",
    }
    return PictureCurves.model_validate({**values, **options})


def grid(**options):
    values = {
        "pictures": DIGITS,
        "training": TRAINING,
        "train": (20,),
        "label_noise": (0.0, 0.5),
        "seeds": (0,),
        "observed": 2000,
        "model": VIT,
        "hidden_size": (4, 8),
        "num_layers": (1, 2),
        "weight_decay": (0.0, 0.1),
        "target_loss": 1.5,
        "check_steps": 2,
        "max_steps": 60,
    }
    return PictureGrid.model_validate({**values, **options})


def trained(task, folder):
    """All files that training leaves."""
    with progress("train", task.work(), "steps") as bar:
        task.train(folder, device=torch.device("cpu"), bar=bar)
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def whole(task, run, split):
    batches = list(task.batches(run, split))
    return torch.cat([b.inputs for b in batches]), torch.cat([b.labels_N for b in batches])


def keys(x_NCHW):
    return [x.numpy().tobytes() for x in x_NCHW]


def test_every_combination_is_a_run():
    runs = PictureTask(curves()).runs()
    found = {(r.variant, r.settings["train"], r.settings["label_noise"], r.seed) for r in runs}
    assert len(runs) == len({run.name for run in runs}) == len(found) == 16
    many = PictureTask(grid()).runs()
    assert len(many) == len({run.name for run in many}) == 16
    assert len({tuple(run.settings.values()) for run in many}) == 16


def test_the_default_has_the_seeds_and_the_grid_that_the_question_needs():
    config = load(ROOT / "params.yaml").generalize
    assert config.digits is not None
    assert config.grid is not None
    assert len(config.digits.seeds) >= 5
    few, many = min(config.digits.train), max(config.digits.train)
    assert (few, many >= 10 * few) == (40, True)
    runs = PictureTask(config.grid).runs()
    assert len(runs) >= 24
    for key in ("hidden_size", "num_layers", "weight_decay", "train", "label_noise"):
        assert len({run.settings[key] for run in runs}) >= 2


def test_what_a_run_is_trained_and_tested_on():
    task = PictureTask(curves())
    by = {
        (r.variant, r.settings["train"], r.settings["label_noise"], r.seed): r for r in task.runs()
    }
    few, many, noisy, other, sparse = (
        whole(task, by[key], "train")
        for key in (
            ("dense", 20, 0.0, 3),
            ("dense", 50, 0.0, 3),
            ("dense", 50, 0.3, 3),
            ("dense", 50, 0.0, 4),
            ("sparse", 50, 0.0, 3),
        )
    )
    assert keys(few[0]) == keys(many[0])[:20]
    assert np.bincount(few[1]).tolist() == [2] * 10
    assert keys(noisy[0]) == keys(many[0]) == keys(sparse[0])
    assert int((noisy[1] != many[1]).sum()) == 15
    assert set(keys(many[0])) != set(keys(other[0]))
    tests = [whole(task, run, "test") for run in by.values()]
    assert all(torch.equal(x, tests[0][0]) and torch.equal(y, tests[0][1]) for x, y in tests)
    assert len(tests[0][0]) == len(images.load(DIGITS).test)
    for run in by.values():
        assert not set(keys(whole(task, run, "train")[0])) & set(keys(tests[0][0]))
    # Standardized by the pool that training sets are drawn from.
    pool = images.load(DIGITS).train.pixels_NCHW.astype(np.float64)
    shown = images.load(DIGITS).test.pixels_NCHW
    wanted = (shown - pool.mean()) / pool.std()
    np.testing.assert_allclose(tests[0][0], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_observed_is_capped():
    task = PictureTask(curves(observed=30))
    run = task.runs()[2]
    assert len(whole(task, run, "test")[0]) == len(whole(task, task.runs()[-1], "train")[0]) == 30
    assert len(whole(task, task.runs()[0], "train")[0]) == 20


def test_checkpoints_give_what_the_curve_says(tmp_path):
    task = PictureTask(curves(seeds=(3,), train=(20,)))
    trained(task, tmp_path)
    for run in task.runs():
        rows = curve(run, tmp_path)
        assert task.checkpoints(run, tmp_path) == [row["step"] for row in rows] == [0, 1, 3, 8]
        assert read_json(tmp_path / run.name / "run.json")["reached"] is True
        for row in rows:
            model = task.model(run, tmp_path, row["step"])
            assert not model.training
            for split in ("train", "test"):
                nll = right = count = 0
                for batch in task.batches(run, split):
                    with torch.no_grad():
                        logits = task.logits(model, batch)
                    nll -= logits.log_softmax(1)[range(len(logits)), batch.labels_N].sum().item()
                    right += (logits.argmax(1) == batch.labels_N).sum().item()
                    count += len(logits)
                assert row[f"{split}_loss"] == pytest.approx(nll / count, rel=1e-5)
                assert row[f"{split}_accuracy"] == right / count
        assert rows[0]["train_loss"] == pytest.approx(np.log(10), abs=0.5)
        assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_models_of_every_kind_are_observed(tmp_path):
    # Windows of 3 on 4 by 4 patches are padded, and there are four of each picture.
    swin = SwinV2(
        kind="swinv2", patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=3
    )
    convnext = ConvNeXtV2(kind="convnextv2", patch_size=2, hidden_sizes=(4, 8), depths=(1, 1))
    options = {"seeds": (3,), "train": (20,), "label_noise": (0.0,), "steps": 2, "observed": 40}
    task = PictureTask(curves(models={"swin": swin, "convnext": convnext}, **options))
    trained(task, tmp_path)
    coders = load(ROOT / "params.yaml").generalize.coders.model_copy(update={"steps": 2})
    for run, points in zip(task.runs(), (4, 2)):
        rows = list(measure_run(task, run, tmp_path, coders, device=torch.device("cpu")))
        models = [row for row in rows if row["hookpoint"] == WHOLE_MODEL]
        assert len(rows) == len(models) * (1 + points)
        assert all(row["davies_bouldin"] > 0 for row in models)
        assert all(row["l0"] <= coders.k for row in rows if row not in models)


def test_coders_of_pictures_may_read_the_input_of_every_block(tmp_path):
    swin = SwinV2(
        kind="swinv2", patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=3
    )
    convnext = ConvNeXtV2(kind="convnextv2", patch_size=2, hidden_sizes=(4, 8), depths=(1, 1))
    vit = SPARSE.model_copy(update={"num_layers": 2})
    models = {"swin": swin, "convnext": convnext, "vit": vit}
    options = {"seeds": (3,), "train": (20,), "label_noise": (0.0,), "steps": 2, "observed": 40}
    task = PictureTask(curves(models=models, **options))
    trained(task, tmp_path)
    coders = load(ROOT / "params.yaml").generalize.coders
    coders = coders.model_copy(update={"steps": 2, "reads": "input"})
    for run in task.runs():
        rows = list(measure_run(task, run, tmp_path, coders, device=torch.device("cpu")))
        last = {row["hookpoint"]: row for row in rows if row["step"] == 2}
        first, second = sorted(set(last) - {WHOLE_MODEL})
        # A sparse feedforward has latents of its own, but not of what its block reads.
        assert min(last[first]["fvu"], last[second]["fvu"]) > 0
        pixels_NCHW, _ = whole(task, run, "test")
        base = task.model(run, tmp_path, 2).base_model
        with torch.no_grad():
            read = base.embeddings(pixels_NCHW)
        read = read[0] if isinstance(read, tuple) else read
        norms = read.norm(dim=1 if run.variant == "convnext" else -1)
        assert last[first]["norm_mean"] == pytest.approx(float(norms.mean()), rel=1e-5)
        # The width doubles, or the first block has added to the stream.
        assert last[second]["norm_mean"] != pytest.approx(last[first]["norm_mean"], rel=1e-4)


def test_latents_of_a_sparse_variant_are_its_own(tmp_path):
    task = PictureTask(curves(seeds=(3,), train=(20,), label_noise=(0.0,), steps=2))
    trained(task, tmp_path)
    dense, sparse = (task.model(run, tmp_path, 2) for run in task.runs())
    assert task.hookpoints(dense) == ["layers.0.attention.o_proj", "layers.0.mlp"]
    assert task.native(dense) == {}
    assert task.native(sparse) == {"layers.0.mlp": "layers.0.mlp.encoder"}
    batch = next(task.batches(task.runs()[1], "test"))
    with torch.no_grad(), capture(sparse, ["layers.0.mlp", "layers.0.mlp.encoder"]) as seen:
        task.logits(sparse, batch)
    (acts, indices), given = seen["layers.0.mlp.encoder"], seen["layers.0.mlp"]
    decoder = sparse.base_model.get_submodule("layers.0.mlp").decoder
    codes = torch.zeros(*acts.shape[:-1], 32).scatter(-1, indices, acts)
    torch.testing.assert_close(given, codes @ decoder.weight + decoder.bias)


def test_a_grids_runs_stop_at_one_loss(tmp_path):
    task = PictureTask(grid(weight_decay=(0.1,)))
    trained(task, tmp_path)
    for run in task.runs():
        outcome, rows = read_json(tmp_path / run.name / "run.json"), curve(run, tmp_path)
        assert [row["step"] for row in rows] == [0, rows[-1]["step"]]
        assert outcome["reached"] == (rows[-1]["train_loss"] <= 1.5)
        assert outcome["reached"] or rows[-1]["step"] == 60
        assert rows[-1]["step"] % 2 == 0
        model = task.model(run, tmp_path, rows[-1]["step"])
        assert model.config.hidden_size == run.settings["hidden_size"]
        assert len(model.vit.layers) == run.settings["num_layers"]
    assert any(curve(run, tmp_path)[-1]["step"] < 60 for run in task.runs())
    options = {"hidden_size": (8,), "num_layers": (1,), "weight_decay": (0.0,)}
    never = PictureTask(grid(target_loss=1e-6, max_steps=4, **options))
    trained(never, tmp_path / "never")
    for run in never.runs():
        assert read_json(tmp_path / "never" / run.name / "run.json") == {"reached": False}
        assert curve(run, tmp_path / "never")[-1]["step"] == 4


def test_a_killed_task_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = grid(hidden_size=(8,), num_layers=(1,))
    straight = trained(PictureTask(settings), tmp_path / "straight")
    train_one, made = PictureTask.train_one, []

    def until_killed(task, name, folder, **options):
        made.append(name)
        if len(made) == 3:
            raise KeyboardInterrupt
        train_one(task, name, folder, **options)

    monkeypatch.setattr(PictureTask, "train_one", until_killed)
    with pytest.raises(KeyboardInterrupt):
        trained(PictureTask(settings), tmp_path / "killed")
    monkeypatch.setattr(PictureTask, "train_one", train_one)
    names = [run.name for run in PictureTask(settings).runs()]
    there = [name for name in names if (tmp_path / "killed" / name / "run.json").exists()]
    assert there == names[:2]
    before = (tmp_path / "killed" / names[0] / "run.json").stat().st_mtime_ns
    assert trained(PictureTask(settings), tmp_path / "killed") == straight
    assert (tmp_path / "killed" / names[0] / "run.json").stat().st_mtime_ns == before
    assert not list((tmp_path / "killed").rglob("resume.pt"))


def test_several_runs_at_a_time_leave_the_same_bytes(tmp_path, monkeypatch):
    settings = grid(hidden_size=(8,), num_layers=(1,))
    monkeypatch.setattr(pictures, "cores", lambda: 1)
    one_by_one = trained(PictureTask(settings), tmp_path / "one")
    monkeypatch.setattr(pictures, "cores", lambda: 2)
    assert trained(PictureTask(settings), tmp_path / "two") == one_by_one
    monkeypatch.undo()


def test_what_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="training pictures are asked for; there are"):
        trained(PictureTask(curves(train=(20, 5000))), tmp_path)
    large = VIT.model_copy(update={"patch_size": 5})
    with pytest.raises(UserError, match="a patch_size of 5 does not divide pictures of 8 pixels"):
        trained(PictureTask(curves(models={"fits": VIT, "does not": large})), tmp_path)
    assert not list(tmp_path.iterdir())


def test_sizes_of_a_grid_have_to_fit():
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_heads"):
        grid(hidden_size=(8, 9))


# As a stage


def config(**options):
    """The smoke test's, with a task on pictures alone."""
    values = overlay(read_yaml(ROOT / "params.yaml"), read_yaml(ROOT / "experiments/smoke.yaml"))
    of = values["generalize"]
    of["tasks"] = list(options)
    for name, settings in options.items():
        of[name] = settings.model_dump(mode="json")
    return parse(values, "test")


def test_the_stage_writes_a_row_for_each_run_and_checkpoint():
    noise = {"label_noise": (0.3,), "observed": 100}
    made = config(
        digits=curves(seeds=(3,), train=(20,), **noise), grid=grid(num_layers=(1,), **noise)
    )
    tables = {}
    for name, runs in (("digits", 2), ("grid", 4)):
        generalize.run(made, runtime=CPU, task=name)
        folder = Path("artifacts/generalize") / name
        tables[name] = {p.name: p.read_text().splitlines() for p in folder.glob("*.csv")}
        assert len(tables[name]["runs.csv"]) == 1 + runs
    header = tables["grid"]["runs.csv"][0].split(",")
    for column in ("hidden_size", "num_layers", "weight_decay", "train", "label_noise"):
        assert column in header
    assert {"gap", "reached", "train_loss", "test_loss"} <= set(header)
    gap, test, train = (header.index(name) for name in ("gap", "test_loss", "train_loss"))
    for line in tables["grid"]["runs.csv"][1:]:
        cells = line.split(",")
        difference = float(cells[test]) - float(cells[train])
        assert float(cells[gap]) == pytest.approx(difference, abs=1e-4)
    assert len(tables["digits"]["curves.csv"]) == 1 + 2 * 4
    (unit,) = generalize.units(made, task="digits")
    assert unit.fresh()


def test_local_pictures_are_known_by_their_content(tmp_path):
    folder = tmp_path / "pictures"
    write(folder / "train.parquet", pixels(20, seed=1), labels=[0, 1] * 10)
    write(folder / "test.parquet", pixels(6, seed=2), labels=[0, 1] * 3)
    vit = VIT.model_copy(update={"patch_size": 3})
    options = {"models": {"dense": vit}, "train": (8,), "label_noise": (0.0,), "seeds": (0,)}
    made = config(mnist=curves(pictures=local(folder), **options))
    generalize.run(made, runtime=CPU, task="mnist")
    assert generalize.units(made, task="mnist")[0].fresh()
    known = fingerprint(images.fingerprints(local(folder)))
    recorded = config(mnist=curves(pictures=local(folder, fingerprint=known), **options))
    generalize.units(recorded, task="mnist")
    write(folder / "test.parquet", pixels(6, seed=3), labels=[0, 1] * 3)
    assert not generalize.units(made, task="mnist")[0].fresh()
    with pytest.raises(UserError, match="has changed since it was recorded; run `clearnets exp"):
        generalize.units(recorded, task="mnist")


# Real pictures


SMALL = {
    "vit": VIT,
    "swinv2": SwinV2(
        kind="swinv2", patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
    ),
    "convnextv2": ConvNeXtV2(kind="convnextv2", patch_size=4, hidden_sizes=(8, 8), depths=(1, 1)),
}


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_real_pictures_are_learned(tmp_path, name):
    if not (SAMPLES / name).is_dir():
        pytest.skip("CLEARNETS_TEST_DATA names no such folder")
    column = "img" if name == "cifar10" else "image"
    pictures = LocalPictures(kind="local", path=str(SAMPLES / name), image_column=column)
    training = TRAINING.model_copy(update={"batch_size": 50})
    options = {"train": (100,), "label_noise": (0.0,), "seeds": (0,), "steps": 40}
    task = PictureTask(curves(pictures=pictures, models=SMALL, training=training, **options))
    trained(task, tmp_path)
    for run in task.runs():
        rows = read_jsonl(tmp_path / run.name / "curve.jsonl")
        assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.2
        model = task.model(run, tmp_path, 40)
        data = task._training_set(task._plans[run.name])
        assert measure(model, data)[0] == rows[-1]["train_loss"]
