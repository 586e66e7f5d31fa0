"""Coders of others in the place of trained ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clearnets import UserError
from clearnets.coders import existing
from clearnets.coders.library import coder_class, load_coder
from clearnets.config import Existing
from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, settings_of
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import evaluate, sparsify

RUNTIME = Runtime("cpu", 1)
POINTS = ("layers.0.mlp", "layers.1.mlp")
WIDTH, LATENTS, K = 16, 48, 6


def make(folder: Path, *, prefix: str = "", skip: bool = False, **cfg) -> Path:
    """Coders as sparsify itself writes them, of another width and k than the experiment's."""
    cls = coder_class()
    from sparsify import SparseCoderConfig

    config = SparseCoderConfig(
        **{"num_latents": LATENTS, "k": K, "transcode": True, "skip_connection": skip, **cfg}
    )
    for number, point in enumerate(POINTS):
        torch.manual_seed(number)
        cls(WIDTH, config, dtype=torch.bfloat16).save_to_disk(folder / f"{prefix}{point}")
    return folder


def with_existing(project, **sources: Existing):
    coders = project.coders.model_copy(
        update={"existing": {name.replace("_", "-"): source for name, source in sources.items()}}
    )
    return project.model_copy(update={"coders": coders})


def test_they_are_taken_over_and_evaluated(project):
    make(Path("theirs"), prefix="gpt_neox.")
    cfg = with_existing(project, transcoder=Existing(name="theirs"))
    for family in cfg.coder_families:
        sparsify.run(cfg, runtime=RUNTIME, families=[family])
    for point in POINTS:
        coder = load_coder(paths.coders("transcoder", 0) / point)
        assert (coder.num_latents, coder.cfg.k, coder.cfg.transcode) == (LATENTS, K, True)
        weights = load_file(f"theirs/gpt_neox.{point}/sae.safetensors")
        assert torch.equal(coder.encoder.weight, weights["encoder.weight"].float())
    assert json.loads(paths.metrics("sparsify-transcoder").read_text())["seed-0"] == {
        "tokens": None
    }
    evaluate.run(cfg, runtime=RUNTIME)
    summary = read_json(paths.evaluate(0) / "summary.json")["coders"]
    assert summary["transcoder"]["training_tokens"] is None
    assert summary["transcoder"]["training_flops"] is None
    assert summary["sae"]["training_tokens"] == cfg.coders.tokens
    own = 2 * LATENTS * WIDTH + LATENTS + WIDTH
    assert summary["transcoder"]["parameters"] == 2 * own


def test_a_change_of_a_file_is_noticed(project):
    folder = make(Path("theirs"))
    cfg = with_existing(project, transcoder=Existing(name="theirs"))
    sparsify.run(cfg, runtime=RUNTIME, families=["transcoder"])
    (unit,) = sparsify.units(cfg, family="transcoder")
    assert unit.fresh()
    before = settings_of(unit.out)["coders"]["existing"]
    assert before["name"] == "theirs"
    make(folder, k=5)
    (unit,) = sparsify.units(cfg, family="transcoder")
    assert not unit.fresh()
    assert sparsify.units(cfg, family="sae")[0].settings["coders"]["existing"] is None
    recorded = Existing(name="theirs", fingerprint="0" * 16)
    with pytest.raises(UserError, match="has changed since it was recorded"):
        sparsify.units(with_existing(project, transcoder=recorded), family="transcoder")


def test_an_early_transcoder_has_its_kind_in_the_file_of_the_run():
    folder = make(Path("theirs"))
    for point in POINTS:
        path = folder / point / "cfg.json"
        cfg = json.loads(path.read_text())
        del cfg["transcode"], cfg["skip_connection"]
        path.write_text(json.dumps({**cfg, "signed": False}))
    (folder / "config.json").write_text(json.dumps({"transcode": True, "batch_size": 8}))
    source = Existing(name="theirs")
    coders = existing.take_over(source, FAMILIES["transcoder"], POINTS, d_in=WIDTH)
    assert all(coder.cfg.transcode for coder in coders.values())
    with pytest.raises(UserError, match=r"is no sae: its cfg\.json says transcode True"):
        existing.take_over(source, FAMILIES["sae"], POINTS, d_in=WIDTH)


def damage(folder: Path, how: str) -> None:
    first = folder / POINTS[0]
    cfg = json.loads((first / "cfg.json").read_text())
    match how:
        case "other":
            first.rename(folder / "layers.9.mlp")
        case "none":
            shutil.rmtree(folder)
            folder.mkdir()
        case "pickle":
            (first / "sae.safetensors").rename(first / "sae.pt")
        case "cut":
            data = (first / "sae.safetensors").read_bytes()
            (first / "sae.safetensors").write_bytes(data[:-9])
        case "json":
            (first / "cfg.json").write_text("{")
        case "width":
            (first / "cfg.json").write_text(json.dumps({**cfg, "d_in": 768}))
        case "shape":
            (first / "cfg.json").write_text(json.dumps({**cfg, "num_latents": LATENTS + 1}))
        case "uneven":
            (first / "cfg.json").write_text(json.dumps({**cfg, "k": 3}))
        case "skip":
            (first / "cfg.json").write_text(json.dumps({**cfg, "skip_connection": True}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("other", r"has no coder for layers\.0\.mlp; it has: layers\.1\.mlp, layers\.9\.mlp"),
        ("none", "holds no coders"),
        ("pickle", "has no sae.safetensors; weights in any other format are not read"),
        ("cut", "sae.safetensors is damaged"),
        ("json", "cfg.json is not readable JSON"),
        ("width", "reads width 768, the model's is 16"),
        ("shape", "sparsify cannot load"),
        ("uneven", "differ in their latents: 48 with k 3, 48 with k 6"),
        ("skip", "is no transcoder: its cfg.json says skip_connection True"),
    ],
)
def test_what_is_not_right_gets_one_line(how, says):
    damage(make(Path("theirs")), how)
    with pytest.raises(UserError, match=says) as error:
        existing.take_over(Existing(name="theirs"), FAMILIES["transcoder"], POINTS, d_in=WIDTH)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "revision", "says"),
    [
        ("./nowhere", None, "there is no folder ./nowhere"),
        ("theirs", "main", "theirs is a folder; remove its revision"),
        ("EleutherAI/sae-x", None, "EleutherAI/sae-x is not in the hub's cache and the hub is out"),
        ("EleutherAI/sae-x", "v1", "EleutherAI/sae-x at v1 is not in the hub's cache"),
    ],
)
def test_the_hub_out_of_reach_and_no_such_folder(name, revision, says, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("theirs").mkdir()
    with pytest.raises(UserError, match=says) as error:
        existing.identity(Existing(name=name, revision=revision))
    assert "\n" not in str(error.value)


def test_a_hub_id_is_known_by_its_commit(monkeypatch):
    commit = "c" * 40
    snapshot = make(Path("cache/snapshots") / commit)
    asked = []

    def download(name, *, revision, allow_patterns, local_files_only):
        asked.append((name, revision))
        assert all(pattern.endswith((".json", ".safetensors")) for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = Existing(name="EleutherAI/sae-x", revision="v2")
    assert existing.identity(source) == {"commit": commit}
    coders = existing.take_over(source, FAMILIES["transcoder"], POINTS, d_in=WIDTH)
    assert set(coders) == set(POINTS)
    assert asked == [("EleutherAI/sae-x", "v2")] * 2
