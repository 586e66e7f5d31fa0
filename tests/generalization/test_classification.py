"""Training of classifiers: measured on whole sets, stopped at a loss, resumed to the same bytes."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clearnets import UserError
from clearnets.config import PictureTraining, SwinV2, ViT
from clearnets.generalization import classification
from clearnets.generalization.classification import Labelled, Stop, Trainer, measure, train
from clearnets.models.classifiers import build_classifier
from clearnets.pipeline.artifacts import read_jsonl

VIT = ViT(kind="vit", patch_size=4, hidden_size=8, num_layers=1, num_heads=2, mlp_ratio=2)
SWIN = SwinV2(
    kind="swinv2",
    patch_size=2,
    embed_dim=8,
    depths=(1, 1),
    num_heads=(2, 2),
    window_size=2,
    drop_path=0.5,
)


def settings(**options):
    values = {
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 3,
        "betas": (0.9, 0.99),
    }
    return PictureTraining(**{**values, **options})


def pictures(count, seed):
    rng = torch.Generator().manual_seed(seed)
    y_N = torch.arange(count) % 3
    x_NCHW = torch.randn(count, 1, 8, 8, generator=rng) + y_N[:, None, None, None]
    return Labelled(x_NCHW, y_N)


def trainer(model=VIT, count=20, **options):
    built = build_classifier(model, shape=(1, 8, 8), classes=3, seed=0)
    return Trainer(built, pictures(count, seed=1), settings(**options), weight_decay=0.1, seed=4)


def run(folder, made=None, *, last=12, checkpoints=(0, 5), stop=None):
    """Curve and weights by step of one whole run."""
    folder.mkdir(exist_ok=True)
    train(
        made or trainer(),
        pictures(30, seed=2),
        checkpoints=checkpoints,
        last=last,
        stop=stop,
        folder=folder,
        advanced=lambda steps: None,
    )
    return contents(folder)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@torch.no_grad()
def test_measuring_counts_every_picture_once(monkeypatch):
    monkeypatch.setattr(classification, "_MEASURED_AT_ONCE", 7)
    made = trainer()
    loss, accuracy = measure(made.model, made.data)
    nll, right = [], 0
    for x, y in zip(made.data.x_NCHW, made.data.y_N):
        p = made.model(pixel_values=x[None]).logits[0].double().softmax(0)
        nll.append(-math.log(p[y]))
        right += int(p.argmax() == y)
    assert loss == pytest.approx(np.mean(nll), rel=1e-5)
    assert accuracy == right / 20


def test_a_run_writes_its_curve_and_checkpoints(tmp_path):
    run(tmp_path)
    rows = read_jsonl(tmp_path / "curve.jsonl")
    assert [row["step"] for row in rows] == [0, 5, 12]
    made = trainer()
    for row in rows:
        weights = load_file(tmp_path / "checkpoints" / f"{row['step']:06d}.safetensors")
        made.model.load_state_dict(weights)
        for name, data in (("train", made.data), ("test", pictures(30, seed=2))):
            found = measure(made.model, data)
            assert (row[f"{name}_loss"], row[f"{name}_accuracy"]) == found
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.1


def test_a_step_is_torchs_adamw():
    made, other = trainer(), trainer()
    plain = torch.optim.AdamW(other.model.parameters(), 0.01, (0.9, 0.99), weight_decay=0.1)
    order = np.random.default_rng(classification.seed_for(4, "order", 0)).permutation(20)
    for step, rows in enumerate((order[:8], order[8:16], order[16:])):
        made.advance()
        plain.param_groups[0]["lr"] = 0.01 * (step + 1) / 4
        data = other.data.take(rows)
        plain.zero_grad()
        other.model(pixel_values=data.x_NCHW, labels=data.y_N).loss.backward()
        plain.step()
    for ours, theirs in zip(made.model.parameters(), other.model.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_epoch_shows_every_picture_once():
    made = trainer()
    shown = []
    for _ in range(6):
        shown.append(made._batch().x_NCHW)
        made.step += 1
    first, second = torch.cat(shown[:3]), torch.cat(shown[3:])
    every = {x.numpy().tobytes() for x in made.data.x_NCHW}
    assert [len(batch) for batch in shown[:3]] == [8, 8, 4]
    assert {x.numpy().tobytes() for x in first} == {x.numpy().tobytes() for x in second} == every
    assert not torch.equal(first, second)


def test_a_run_stops_at_the_first_look_at_which_its_loss_is_low(tmp_path):
    run(tmp_path / "long", checkpoints=range(0, 40, 4), last=40)
    rows = read_jsonl(tmp_path / "long" / "curve.jsonl")
    target = rows[5]["train_loss"]
    wanted = next(row for row in rows if row["train_loss"] <= target)
    run(tmp_path / "stopped", last=40, stop=Stop(target, every=4))
    assert read_jsonl(tmp_path / "stopped" / "curve.jsonl")[-1] == wanted
    run(tmp_path / "never", last=40, stop=Stop(1e-9, every=4))
    assert read_jsonl(tmp_path / "never" / "curve.jsonl")[-1] == rows[-1]


@pytest.mark.parametrize("model", [VIT, SWIN])
@pytest.mark.parametrize(
    "killed_at", [5, *(pytest.param(at, marks=pytest.mark.nightly) for at in (3, 6))]
)
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, model, killed_at):
    whole = run(tmp_path / "whole", trainer(model))

    class Killed(Exception):
        pass

    made = trainer(model)
    advance = made.advance

    def until_killed():
        if made.step == killed_at:
            raise Killed
        advance()

    made.advance = until_killed
    # A resume state before each step, so the last is that of the step at which it was killed.
    monkeypatch.setattr(classification, "SAVE_SECONDS", -1.0)
    with pytest.raises(Killed):
        run(tmp_path / "killed", made)
    assert (tmp_path / "killed" / "resume.pt").exists()
    torch.manual_seed(99)
    resumed = trainer(model)
    assert run(tmp_path / "killed", resumed) == whole
    assert resumed.step == 12
    # A kill between the checkpoint and its row.
    (tmp_path / "torn" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torn" / "checkpoints" / "000000.safetensors").write_bytes(b"old")
    assert run(tmp_path / "torn", trainer(model)) == whole


def test_measuring_more_often_changes_no_weight(tmp_path):
    seldom = run(tmp_path / "seldom", trainer(SWIN), checkpoints=())
    often = run(tmp_path / "often", trainer(SWIN), checkpoints=range(12), stop=Stop(1e-9, every=1))
    last = next(path for path in seldom if path.name == "000012.safetensors")
    assert seldom[last] == often[last]


def test_divergence_is_one_line(tmp_path):
    with pytest.raises(UserError, match="training diverged before step 5; lower its learning_rate"):
        run(tmp_path, trainer(learning_rate=1e30))
