"""`clearnets circuits` on a tiny pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_pipeline as tiny

from clearnets import UserError, config
from clearnets.data import prompts
from clearnets.data.storybook.tasks import CONTROL, TASKS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, read_jsonl
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import circuits

RUNTIME = Runtime(device="cpu", threads=1)
PAIRS, LENGTH = 4, 9


def settings():
    values = tiny.config().model_dump(mode="json")
    own = {
        "families": ["all"],
        "pairs": PAIRS,
        "shown": 2,
        "steps": 12,
        "linked": 5,
        "ablated": 3,
        "checkpoints": 3,
    }
    own["checkpoints"] = 3
    values["circuits"] |= own | {"sizes": [1, 8, 32], "min_difference": -100}
    return config.parse(values, "test")


def random_prompts(_, task: str, count: int, seed: int) -> prompts.Prompts:
    """Prompts of the length that the tiny models take, whatever the task."""
    rng = np.random.default_rng([TASKS.index(task), seed])
    tokens_2PS = rng.integers(3, 270, (2, count, LENGTH))
    return prompts.Prompts(tokens_2PS, rng.integers(3, 270, (2, count)))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A folder with models and coders."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data()
        tiny.make_models()
        tiny.make_coders()
        for mlp in tiny.MODELS:
            curve = paths.train(mlp, tiny.SEED) / "curve.csv"
            curve.write_text("step,valid_loss\n0,6\n7,5\n")
    return folder


@pytest.fixture(scope="module", params=["native", "transcoder", "neurons"])
def made(request, pipeline):
    """A family, and what was written of it."""
    family = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipeline)
        patch.setattr(prompts, "open_prompts", random_prompts)
        circuits.run(settings(), runtime=RUNTIME, family=family)
        out = paths.circuits(family, tiny.SEED)
        return family, {name: read_jsonl(out / f"{name}.jsonl") for name in circuits.FILES}


def test_every_task_is_answered(made):
    _, found = made
    assert [record["task"] for record in found["answers"]] == list(TASKS)
    assert CONTROL in TASKS
    for record in found["answers"]:
        assert record["low"] <= record["difference"] <= record["high"]


def test_effects_sum_to_the_difference(made):
    family, found = made
    for record in found["answers"]:
        change = record["whole"] - record["none"]
        assert record["integrated"] == pytest.approx(change, abs=0.02 * abs(change) + 2e-3)
        assert (abs(record["errors"]) > 1e-5) == (family == "transcoder")


def test_circuits_are_of_all_kinds_and_sizes(made):
    family, found = made
    own = [row for row in found["circuits"] if row["task"] == "wear"]
    kinds = {"whole", "none", "kept", "without", "random"}
    kinds |= {"errors", "latents", "alone"} if family == "transcoder" else set()
    assert {row["circuit"] for row in own} == kinds
    assert [row["nodes"] for row in own if row["circuit"] == "kept"] == [1, 8, 32]
    assert all(len(row["difference"]) == 2 for row in own)


def test_nodes_stand_in_the_order_of_their_effects(made):
    _, found = made
    for task in TASKS:
        effects = [abs(row["integrated"]) for row in found["nodes"] if row["task"] == task]
        assert effects == sorted(effects, reverse=True)
        assert 0 < len(effects) <= 32


def test_links_are_between_the_latents_of_the_largest_effects(made):
    _, found = made
    for task in TASKS:
        nodes = [row for row in found["nodes"] if row["task"] == task]
        links = [row for row in found["links"] if row["task"] == task]
        sizes = [abs(row["weight"]) for row in links]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] > 0
        for row in links:
            assert 0 <= row["source"] < 5
            if row["target"] is not None:
                assert nodes[row["source"]]["layer"] < nodes[row["target"]]["layer"]
        # In the last layer all of an effect goes straight to the answer.
        for number, node in enumerate(nodes[:5]):
            if node["layer"] == tiny.LAYERS - 1:
                (row,) = [row for row in links if row["source"] == number]
                assert row["target"] is None
                assert row["weight"] == pytest.approx(node["patching"], rel=1e-3)


def test_models_are_followed_where_nothing_is_fitted(made, pipeline):
    family, found = made
    rows = read_jsonl(pipeline / paths.circuits(family, tiny.SEED) / circuits.TRAINING)
    if family == "transcoder":
        assert rows == []
        return
    folder = pipeline / paths.train({"native": "sparse", "neurons": "dense"}[family], tiny.SEED)
    saved = {int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("step-*")}
    steps = sorted({row["step"] for row in rows})
    assert steps[0] == min(saved)
    assert steps[-1] == max(saved)
    assert set(steps) <= saved
    assert len(rows) == len(steps) * len(TASKS)
    # The checkpoint that all is found of is among them, and says the same.
    pair = read_json(pipeline / paths.match(tiny.SEED) / "pair.json")
    matched = int(pair[folder.parent.name]["path"].split("step-")[1])
    answers = {row["task"]: row for row in found["answers"]}
    differences = {row["task"]: row["difference"] for row in rows if row["step"] == matched}
    for task, difference in differences.items():
        assert difference == pytest.approx(answers[task]["difference"], rel=1e-4, abs=1e-6)
    assert len(differences) == len(TASKS)
    for row in rows:
        assert [size for size, _ in row["kept"]] == [1, 8, 32]


def test_a_missing_model_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is missing; run"):
        circuits.run(settings(), runtime=RUNTIME, family="native")
