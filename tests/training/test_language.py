from __future__ import annotations

import copy
import csv
import itertools
import math
import multiprocessing
import random
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from schedulefree import AdamWScheduleFree
from tiny_run import BOS, CTX, EOS, PAD, VOCAB, files, losses_of

from clearnets import UserError
from clearnets.models.loading import load
from clearnets.training import language

STEPS = 31  # Two epochs of 62 rows in batches of 4.


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run."""
    folder = tmp_path_factory.mktemp("straight")
    tiny_run.run(folder)
    return folder / "out"


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (5,)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def steps(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], count: int) -> None:
    for index in range(count):
        for p in params:
            p.grad = torch.sin(p.detach() * 3 + index)
        optimizer.step()


HYPER = {"lr": 0.1, "betas": (0.9, 0.95), "warmup_steps": 3, "weight_decay": 0.1}


def test_eval_and_train_are_exact_inverses_and_change_no_step() -> None:
    params, undisturbed = parameters(), parameters()
    original = AdamWScheduleFree(undisturbed, **HYPER)
    original.train()
    steps(original, undisturbed, 12)
    straight = parameters()
    ours = language.ExactScheduleFree(straight, **HYPER)
    ours.train()
    steps(ours, straight, 12)

    optimizer = language.ExactScheduleFree(params, **HYPER)
    optimizer.eval()
    for part in range(4):
        optimizer.train()
        for index in range(3):
            for p in params:
                p.grad = torch.sin(p.detach() * 3 + part * 3 + index)
            optimizer.step()
        optimizer.eval()
        optimizer.eval()
    optimizer.train()
    for p, q, r in zip(params, straight, undisturbed):
        assert torch.equal(p, q)
        torch.testing.assert_close(p, r)
    # And the averages agree with the original's.
    optimizer.eval()
    original.eval()
    for p, r in zip(params, undisturbed):
        torch.testing.assert_close(p, r)


def test_average_agrees_with_the_equations() -> None:
    params = parameters()
    optimizer = language.ExactScheduleFree(params, **{**HYPER, "weight_decay": 0.0})
    optimizer.train()

    beta1, beta2 = HYPER["betas"]
    x = parameters()[0].detach().double()
    y, z, v, weights = x.clone(), x.clone(), torch.zeros_like(x), 0.0
    for index in range(6):
        lr = HYPER["lr"] * min(1, (index + 1) / HYPER["warmup_steps"])
        grad = torch.sin(y * 3 + index)
        v = beta2 * v + (1 - beta2) * grad**2
        z = z - lr * grad / ((v / (1 - beta2 ** (index + 1))).sqrt() + 1e-8)
        weights += lr**2
        x = x + (z - x) * lr**2 / weights
        y = (1 - beta1) * z + beta1 * x
    steps(optimizer, params, 6)
    assert torch.allclose(params[0].double(), y, atol=1e-5)
    optimizer.eval()
    assert torch.allclose(params[0].double(), x, atol=1e-5)
    assert not torch.allclose(x, y, atol=1e-3)


def test_state_saved_in_eval_mode_holds_the_training_weights() -> None:
    params = parameters()
    optimizer = language.ExactScheduleFree(params, **HYPER)
    optimizer.train()
    steps(optimizer, params, 4)
    optimizer.eval()
    state = copy.deepcopy(optimizer.state_dict())
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = language.ExactScheduleFree(others, **HYPER)
    resumed.load_state_dict(state)
    optimizer.train()
    resumed.train()
    for p, q in zip(params, others):
        assert torch.equal(p, q)


def test_checkpoint_steps_by_hand() -> None:
    assert language.checkpoint_steps(40) == [0, 1, 2, 4, 8, *range(10, 41)]
    assert language.checkpoint_steps(1) == [0, 1]
    early, late = [0, 1, 2, 4, 8, 16, 32, 64, 128], [250, 256, 275, 300]
    assert language.checkpoint_steps(1000)[:13] == early + late
    assert language.checkpoint_steps(1000)[-2:] == [975, 1000]


@given(st.integers(1, 100_000))
def test_checkpoint_steps_properties(total: int) -> None:
    kept = language.checkpoint_steps(total)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] == total
    late = [step for step in kept if step >= total / 4]
    assert all(b - a <= total / 40 + 1 for a, b in itertools.pairwise(late))


def test_labels_and_positions_agree_with_loops() -> None:
    tokens = np.concatenate([tiny_run.rows(5, seed=4), tiny_run.padded_rows(5, seed=5)])
    labels = language.labels_of(tokens, bos=BOS, pad=PAD)
    positions = language.positions_of(tokens, bos=BOS)
    for row, labels_row, positions_row in zip(tokens, labels, positions):
        position = -1
        for token, label, given_position in zip(row, labels_row, positions_row):
            position = 0 if token == BOS else position + 1
            assert given_position == position
            assert label == (-100 if token in (BOS, PAD) else token)
    assert (labels == EOS).any()


def test_order_holds_every_row_once_per_epoch_and_depends_on_seed_and_epoch() -> None:
    order = language.train_order(50, epochs=2, seed=0)
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert order[:50].tolist() != order[50:].tolist()
    assert order.tolist() != language.train_order(50, epochs=2, seed=1).tolist()
    assert order.tolist() == language.train_order(50, epochs=2, seed=0).tolist()


@pytest.mark.parametrize("within", [False, True])
def test_attention_crosses_documents_only_where_asked(within: bool) -> None:
    model = tiny_run.new_model().eval()
    torch.nn.init.normal_(model.lm_head.weight)
    tokens = np.array([[1, 5, 6, 7, 2, 1, 8, 9, 10, 11, 12, 13]], np.uint16)
    other = tokens.copy()
    other[0, 1:4] = (14, 15, 16)
    collate = language.Collator(bos=BOS, pad=PAD, within=within)
    with torch.no_grad():
        first, second = (model(**collate(rows)).logits[0, 5:] for rows in (tokens, other))
    assert torch.equal(first, second) == within
    if within:
        alone = collate(tokens[:, 5:])
        with torch.no_grad():
            assert torch.allclose(model(**alone).logits[0], first, atol=1e-5)


def test_training_agrees_with_a_plain_loop(tmp_path: Path) -> None:
    """The same order and loss with the original optimizer, without evaluation or collator."""
    tiny_run.run(tmp_path, centring=0, bias_step=0)
    model = tiny_run.new_model()
    settings = tiny_run.train_settings()
    optimizer = AdamWScheduleFree(
        model.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        warmup_steps=settings.warmup_steps,
    )
    train_rows = tiny_run.rows(62, seed=1).astype(np.int64)
    order = language.train_order(62, epochs=2, seed=3)
    optimizer.train()
    losses = []
    for step in range(STEPS):
        batch = torch.from_numpy(train_rows[order[step * 4 : step * 4 + 4]])
        logs = model(input_ids=batch).logits.log_softmax(-1)
        nll, count = torch.zeros(()), 0
        for row, log in zip(batch, logs):
            for position in range(1, CTX):
                if row[position] != BOS:
                    nll = nll - log[position - 1, row[position]]
                    count += 1
        loss = nll / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    optimizer.eval()
    final = load_file(tmp_path / "out" / "final" / "model.safetensors")
    start = tiny_run.new_model().state_dict()
    for name, weight in model.state_dict().items():
        assert torch.allclose(final[name], weight, atol=2e-4), name
    assert any(not torch.allclose(final[name], start[name], atol=1e-2) for name in start)

    curve = list(csv.DictReader((tmp_path / "out" / "curve.csv").open()))
    last_two = [int(row["step"]) for row in curve[-2:]]
    mean = np.mean(losses[last_two[0] : last_two[1]])
    assert float(curve[-1]["train_loss"]) == pytest.approx(mean, abs=1e-4)


def test_curve_and_checkpoints(straight: Path) -> None:
    curve = {int(row["step"]): row for row in csv.DictReader((straight / "curve.csv").open())}
    kept = language.checkpoint_steps(STEPS)
    assert sorted(curve) == sorted({*kept, *range(5, STEPS + 1, 5)})
    folders = sorted(path.name for path in (straight / "checkpoints").iterdir())
    assert folders == [f"step-{step:06d}" for step in kept]
    assert {path.name for path in straight.iterdir()} == {
        "checkpoints",
        "curve.csv",
        "final",
        "summary.json",
    }
    assert not [name for name in files(straight) if name.endswith((".bin", ".pt", ".pth"))]
    assert curve[8]["tokens"] == str(8 * 4 * CTX)
    assert curve[0]["train_loss"] == ""
    # Small random weights predict all tokens nearly alike.
    assert float(curve[0]["valid_loss"]) == pytest.approx(math.log(VOCAB), abs=0.3)
    assert float(curve[STEPS]["valid_loss"]) < 0.9 * math.log(VOCAB)

    untrained = tiny_run.new_model().state_dict()
    saved = load_file(straight / "checkpoints" / "step-000000" / "model.safetensors")
    assert all(torch.equal(saved[name], untrained[name]) for name in untrained)
    final = files(straight / "final")
    assert final == files(straight / "checkpoints" / f"step-{STEPS:06d}")


@pytest.mark.parametrize("step", [4, 22, STEPS])
def test_valid_loss_is_that_of_the_saved_weights(straight: Path, step: int) -> None:
    model = load(straight / "checkpoints" / f"step-{step:06d}")
    nll = count = 0
    for row in tiny_run.padded_rows(9, seed=2).astype(np.int64):
        with torch.no_grad():
            logs = model(input_ids=torch.from_numpy(row)[None]).logits[0].double().log_softmax(-1)
        for position in range(1, CTX):
            if row[position] not in (BOS, PAD):
                nll -= logs[position - 1, row[position]].item()
                count += 1
    curve = {int(row["step"]): row for row in csv.DictReader((straight / "curve.csv").open())}
    assert float(curve[step]["valid_loss"]) == pytest.approx(nll / count, abs=2e-6)


def test_neither_evaluating_nor_saving_more_often_changes_a_byte(
    straight: Path, tmp_path: Path
) -> None:
    tiny_run.run(tmp_path, eval_steps=1, save_seconds=0.0)
    for part in ("checkpoints", "final"):
        assert files(tmp_path / "out" / part) == files(straight / part)
    curve = list(csv.DictReader((tmp_path / "out" / "curve.csv").open()))
    assert len(curve) == STEPS + 1


def test_killed_runs_resume_to_the_same_bytes(straight: Path, tmp_path: Path) -> None:
    """SIGKILL at three moments, each a random while after some step."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clearnets.training.language", "clearnets.models"])
    rng = random.Random()
    state = tmp_path / "state" / "training.pt"

    def newest() -> int:
        return torch.load(state, weights_only=True)["step"] if state.exists() else 0

    reached = [0]
    for target in (3, 11, 20):
        process = context.Process(target=tiny_run.run_saving_always, args=(tmp_path,))
        process.start()
        while newest() < target and process.is_alive():
            process.join(0.01)
        process.join(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert newest() > reached[-1]  # It went on; it did not begin anew.
        reached.append(newest())
    # What a kill in the middle of saving leaves must not be taken for a state.
    state.with_name(".training.pt.part").write_bytes(b"torn")
    torn = tmp_path / "out" / "checkpoints" / f"step-{STEPS:06d}" / ".tmpAbCdEf"
    torn.parent.mkdir()
    torn.write_bytes(b"torn")
    assert 0 < newest() < STEPS

    tiny_run.run(tmp_path)
    assert files(tmp_path / "out") == files(straight)


def test_a_finished_state_is_not_trained_again(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last step and the end: the rest is done from the last state."""
    tiny_run.run(tmp_path)
    for name in ("curve.csv", "summary.json"):
        (tmp_path / "out" / name).unlink()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(language.ExactScheduleFree, "step", never)
    tiny_run.run(tmp_path)
    assert files(tmp_path / "out") == files(straight)


def test_sample_is_seeded_and_leaves_the_generator_alone() -> None:
    model = tiny_run.new_model().eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = language.sample(model, bos=BOS, count=3, length=6, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == language.sample(model, bos=BOS, count=3, length=6, seed=0)
    assert first != language.sample(model, bos=BOS, count=3, length=6, seed=1)
    assert len(first) == 3
    assert all(1 <= len(row) <= 6 for row in first)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"batch_size": 500}, "lower train.batch_size"),
        ({"learning_rate": 1e39}, "lower train.learning_rate"),
        ({"betas": (0.0, 0.95)}, "train.betas"),
    ],
)
def test_user_errors(tmp_path: Path, settings: dict[str, object], cure: str) -> None:
    with pytest.raises(UserError, match=cure):
        tiny_run.run(tmp_path, **settings)


def ragged_rows() -> np.ndarray:
    """Rows with as many targets as it comes: means of micro-batches are not the batch's mean."""
    return tiny_run.padded_rows(62, seed=4)


@pytest.mark.parametrize("rows", [None, ragged_rows()], ids=["full", "ragged"])
def test_micro_batches_change_only_rounding(rows: np.ndarray | None, tmp_path: Path) -> None:
    for pieces in (1, 2, 4):
        tiny_run.run(tmp_path / str(pieces), train_rows=rows, grad_acc_steps=pieces)
    whole = load_file(tmp_path / "1" / "out" / "final" / "model.safetensors")
    curve = losses_of(tmp_path / "1")
    for pieces in (2, 4):
        split = load_file(tmp_path / str(pieces) / "out" / "final" / "model.safetensors")
        for name, weight in whole.items():
            torch.testing.assert_close(split[name], weight, rtol=0, atol=2e-4)
        np.testing.assert_allclose(losses_of(tmp_path / str(pieces)), curve, rtol=0, atol=2e-5)


def test_a_run_in_micro_batches_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "whole", grad_acc_steps=2)

    class Stop(Exception):
        pass

    def stop(self: language._Loop) -> None:
        real(self)
        if self.step == 13:
            raise Stop

    real = language._Loop.save_if_due
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(language._Loop, "save_if_due", stop)
        tiny_run.run(tmp_path / "cut", grad_acc_steps=2, save_seconds=0.0)
    assert not (tmp_path / "cut" / "out" / "final").exists()
    tiny_run.run(tmp_path / "cut", grad_acc_steps=2)
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")


def test_bfloat16_trains_float32_weights_and_measures_in_float32(
    straight: Path, tmp_path: Path
) -> None:
    tiny_run.run(tmp_path, precision="bfloat16")
    weights = load_file(tmp_path / "out" / "final" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    exact = load_file(straight / "final" / "model.safetensors")
    assert any(not torch.equal(weights[name], exact[name]) for name in exact)
    rounded, curve = losses_of(tmp_path), losses_of(straight.parent)
    # bfloat16 has 8 bits: close, and not equal.
    assert 1e-5 < np.abs(rounded - curve).max() < 0.1
    test_valid_loss_is_that_of_the_saved_weights(tmp_path / "out", STEPS)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_a_gpu_follows_the_cpu(straight: Path, tmp_path: Path, precision: str) -> None:
    tiny_run.run(tmp_path, device="cuda", precision=precision)
    atol = 1e-3 if precision == "float32" else 0.1
    np.testing.assert_allclose(losses_of(tmp_path), losses_of(straight.parent), rtol=0, atol=atol)
