from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearnets import UserError
from clearnets.models.matching import checkpoint_losses, match
from clearnets.pipeline.artifacts import Unit, build_all, write_text

losses = st.floats(0.5, 7).map(lambda loss: round(loss, 6))
curves = st.dictionaries(st.integers(0, 1000), losses, min_size=1, max_size=12)


def test_the_better_model_is_taken_back() -> None:
    dense = {0: 7.0, 100: 2.0, 200: 1.61}
    sparse = {0: 7.0, 100: 1.7, 150: 1.6, 200: 1.4}
    assert match({"dense": dense, "sparse": sparse}, tolerance=0.02) == {
        "dense": {"step": 200, "valid_loss": 1.61, "difference": 0.0, "matched": True},
        "sparse": {"step": 150, "valid_loss": 1.6, "difference": -0.01, "matched": True},
    }
    assert not match({"dense": dense, "sparse": sparse}, tolerance=0.005)["sparse"]["matched"]
    swapped = match({"dense": sparse, "sparse": dense}, tolerance=0.02)
    assert swapped["dense"]["step"] == 150
    assert swapped["sparse"]["difference"] == 0.01


def test_all_models_are_taken_to_the_worst_final_loss() -> None:
    curves = {
        "dense": {0: 7.0, 100: 2.0, 200: 1.4},
        "sparse": {0: 7.0, 100: 1.99, 200: 1.5},
        "sparse_topk": {0: 7.0, 100: 3.0, 200: 1.98},
    }
    matched = match(curves, tolerance=0.015)
    assert {name: one["step"] for name, one in matched.items()} == {
        "dense": 100,
        "sparse": 100,
        "sparse_topk": 200,
    }
    assert [one["difference"] for one in matched.values()] == [0.0, -0.01, -0.02]
    assert [one["matched"] for one in matched.values()] == [True, True, False]


def test_equal_finals_pair_the_finals() -> None:
    curves = {"dense": {0: 7.0, 9: 1.5}, "sparse_topk": {0: 7.0, 5: 1.5, 9: 1.5}}
    pair = match(curves, tolerance=0.02)
    assert (pair["dense"]["step"], pair["sparse_topk"]["step"]) == (9, 9)


def test_a_model_alone_is_taken_at_its_end() -> None:
    alone = match({"dense": {0: 7.0, 9: 1.5, 12: 1.6}}, tolerance=0.02)
    assert (alone["dense"]["step"], alone["dense"]["valid_loss"]) == (12, 1.6)


@given(curves, curves)
def test_no_checkpoint_of_the_better_model_is_nearer(
    dense: dict[int, float], sparse: dict[int, float]
) -> None:
    pair = match({"dense": dense, "sparse": sparse}, tolerance=0.02)
    final = {"dense": dense[max(dense)], "sparse": sparse[max(sparse)]}
    worse = "dense" if final["dense"] >= final["sparse"] else "sparse"
    curve = {"dense": sparse, "sparse": dense}[worse]
    assert pair[worse]["valid_loss"] == final[worse]
    nearest = min(abs(loss - final[worse]) for loss in curve.values())
    assert abs(pair["sparse"]["difference"]) == pytest.approx(nearest, abs=1e-6)
    assert dense[pair["dense"]["step"]] == pair["dense"]["valid_loss"]
    assert sparse[pair["sparse"]["step"]] == pair["sparse"]["valid_loss"]


def unit(folder: Path, csv: str, steps: list[int], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    run = Unit(stage="train", out=Path("run"), settings={}, inputs={})
    for _, work in build_all([run]):
        write_text(work.out / "curve.csv", csv)
        for step in steps:
            write_text(work.out / "checkpoints" / f"step-{step:06d}" / "config.json", "{}\n")
    return run.out


def test_only_checkpoints_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv = "step,tokens,train_loss,valid_loss\n0,0,,7.0\n5,50,3,2.5\n10,90,2,1.5\n"
    assert checkpoint_losses(unit(tmp_path, csv, [0, 10], monkeypatch)) == {0: 7.0, 10: 1.5}


def test_a_checkpoint_without_a_loss_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = "step,tokens,train_loss,valid_loss\n0,0,,7.0\n"
    with pytest.raises(UserError, match="no row for step 10"):
        checkpoint_losses(unit(tmp_path, csv, [0, 10], monkeypatch))
