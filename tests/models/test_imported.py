"""A dense and a sparse checkpoint of the original through all stages, with its own formulas."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import originals
import pytest
import synthetic_text as synthetic
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from tiny_data import LATENTS, VOCAB, make_data
from typer.testing import CliRunner
from whole_pipeline import CPU as RUNTIME
from whole_pipeline import ROOT, draw_figures, own_checkpoints, run_behind_data

from clearnets import UserError
from clearnets import config as cfg
from clearnets.cli import app
from clearnets.latents.store import load_layer
from clearnets.models import budget, original
from clearnets.models.loading import load
from clearnets.pipeline import experiments, paths
from clearnets.pipeline.artifacts import read_json, read_jsonl
from clearnets.stages import cache, match, train

FAMILIES = ("native", "transcoder", "neurons", "random-native", "random-transcoder")
CODERS = ["transcoder", "random-transcoder"]
ROTARY = {"rotary_pct": 0.5, "rotary_emb_base": 10048}


def imported(mode: str, out: str) -> originals.State:
    """Import a checkpoint of the original; its weights in the original's names."""
    weights = originals.state(mode, VOCAB)
    Path("checkpoints").mkdir(exist_ok=True)
    path = Path("checkpoints") / f"{mode}.ckpt"
    torch.save({"state_dict": {f"model.{name}": x for name, x in weights.items()}}, path)
    early = {"sparse_mlp": True} if mode == "early_topk" else {}
    tokens = {"bos_token_id": synthetic.BOS, "eos_token_id": synthetic.EOS}
    original.run(path, Path(out), {**originals.SET, **ROTARY, **tokens, **early})
    return weights


def settings(mlp: str = "sparse", families: tuple[str, ...] = FAMILIES, **model: Any) -> cfg.Config:
    """The default with an imported pair, at a tiny size."""
    base = cfg.read_yaml(ROOT / "params.yaml")
    over = {
        "models": ["dense", mlp],
        "families": list(families),
        "data": {"ctx_len": synthetic.CTX, "tokens": {"concept_fit": 0, "concept_test": 0}},
        "model": {
            "kind": "pretrained",
            "name": "models/dense",
            "sparse": {"name": "models/sparse"},
            "hookpoints": "gpt_neox.layers.*.mlp",
            "hidden_size": originals.D,
            "num_layers": originals.LAYERS,
            "expansion": originals.LATENTS // originals.D,
            "k": originals.K,
            "attention": "across",
            **model,
        },
        "coders": {"tokens": 8 * 4 * synthetic.CTX},
        "explain": {"latents": LATENTS, "min_windows": 3},
        "overlap": {"latents": LATENTS},
        "generalize": own_checkpoints(),
        "collate": {"resamples": 20},
    }
    return cfg.parse(cfg.overlay(base, over), "test")


def loss(mode: str, weights: originals.State) -> float:
    """Mean loss over the valid split by the original's formulas, one document at a time."""
    nll, count = 0.0, 0
    for row in np.load(paths.data() / "tokens" / "valid.npy").astype(np.int64):
        ids = torch.from_numpy(row[row != synthetic.PAD])
        logits = originals.reference(mode, weights, ids, 10048.0, 0.5).log_softmax(-1)
        nll -= logits[:-1].gather(1, ids[1:, None]).sum().item()
        count += len(ids) - 1
    return nll / count


def native_latents(weights: originals.State, layer: int) -> np.ndarray:
    """(row, position, latent) on the split `explain`: ReLU, then each group's largest."""
    tokens_RS = np.load(paths.data() / "tokens" / "explain.npy").astype(np.int64)
    seen = {}
    model: Any = load(Path("models/sparse"))
    handle = model.gpt_neox.layers[layer].mlp.register_forward_pre_hook(
        lambda _, args: seen.update(x=args[0])
    )
    with torch.no_grad():
        model(torch.from_numpy(tokens_RS))
    handle.remove()
    at = f"gpt_neox.layers.{layer}.mlp.dense_h_to_4h"
    pre_RSL = seen["x"] @ weights[f"{at}.weight"].T + weights[f"{at}.bias"]
    groups_RSKG = F.relu(pre_RSL).unflatten(-1, (originals.K, -1))
    values, indices = groups_RSKG.max(-1, keepdim=True)
    kept_RSL = torch.zeros_like(groups_RSKG).scatter(-1, indices, values).flatten(-2)
    kept_RSL[~torch.from_numpy(synthetic.counted(tokens_RS))] = 0
    return kept_RSL.numpy()


@pytest.mark.nightly
def test_the_whole_comparison_on_two_checkpoints_of_the_original():
    make_data()
    weights = {"dense": imported("dense", "models/dense")}
    weights["sparse"] = imported("sparse", "models/sparse")
    config = settings()
    run_behind_data(config)
    draw_figures(config)

    pair = read_json(paths.match(0) / "pair.json")
    for mlp in config.models:
        expected = loss(mlp, weights[mlp])
        assert pair[mlp]["step"] == 0
        assert pair[mlp]["valid_loss"] == pytest.approx(expected, abs=1e-4)
        evaluated = read_json(paths.evaluate(0) / "summary.json")["models"][mlp]
        assert evaluated["heldout_loss"] == pytest.approx(expected, abs=1e-4)
        assert evaluated["training_tokens"] is None
    difference = pair["sparse"]["valid_loss"] - pair["dense"]["valid_loss"]
    assert pair["sparse"]["difference"] == pytest.approx(difference, abs=1e-6)
    assert pair["sparse"]["matched"] == (abs(difference) <= config.match.tolerance)

    for layer in config.model.layers:
        expected_RSL = native_latents(weights["sparse"], layer)
        point = config.model.hookpoint(layer)
        found = load_layer(paths.cache("native", 0, "explain"), point)
        got_RSL = np.zeros_like(expected_RSL)
        got_RSL[found.row, found.position, found.latent] = found.act
        wrong = np.abs(got_RSL - expected_RSL) > 2e-3 * np.abs(expected_RSL) + 1e-4
        assert wrong.sum() <= 2
        assert (got_RSL > 0).sum() > 1000

    for family in FAMILIES:
        files = [
            paths.score(family, 0, config.model.hookpoint(layer)) / "scores.jsonl"
            for layer in config.model.layers
        ]
        records = [record for file in files for record in read_jsonl(file)]
        assert len(records) == LATENTS * originals.LAYERS
        assert any(record["detection"] for record in records)
    tables = paths.results("default")
    with (tables / "summary.csv").open(newline="") as file:
        summary = {row["family"]: row for row in csv.DictReader(file)}
    assert set(summary) == set(FAMILIES)
    assert summary["native"]["model"] == summary["random-native"]["model"] == "sparse"
    assert "nan" not in (tables / "summary.md").read_text()
    assert (paths.FIGURES / "scores.svg").exists()


@pytest.mark.parametrize(
    ("mode", "mlp", "family"),
    [
        ("early_topk", "sparse_topk", "topk-native"),
        ("sparse_low_rank", "sparse_low_rank", "low-rank-native"),
    ],
)
def test_the_top_k_modes_with_their_untrained_twin(mode, mlp, family):
    make_data()
    imported("dense", "models/dense")
    weights = imported(mode, "models/sparse")
    twin = f"random-{family}"
    config = settings(mlp, (family, twin))
    for member in config.models:
        train.run(config, runtime=RUNTIME, mlp=member)
    match.run(config, runtime=RUNTIME)
    summary = read_json(paths.train(mlp, 0) / "summary.json")
    assert summary["valid_loss"] == pytest.approx(loss(mode, weights), abs=1e-4)
    taken, untrained = load(paths.checkpoint(mlp, 0, 0)), load(paths.untrained(mlp, 0))
    assert taken.config.mlp == untrained.config.mlp == mlp
    assert taken.config.latent_act == untrained.config.latent_act == "gelu"
    for name, value in taken.named_parameters():
        other = untrained.get_parameter(name)
        assert other.shape == value.shape
        assert "weight" not in name or not torch.equal(other, value)
    cache.run(config, runtime=RUNTIME, families=[twin])
    config_beside = read_json(paths.cache(twin, 0, "explain") / "layers.0.mlp/config.json")
    assert config_beside["checkpoint"] == paths.untrained(mlp, 0).as_posix()


def test_sizes_and_feedforwards_that_differ_are_one_line():
    make_data()
    imported("dense", "models/dense")
    imported("sparse", "models/sparse")

    def refusal(config: cfg.Config) -> str:
        with pytest.raises(UserError) as error:
            train.run(config, runtime=RUNTIME, mlp=config.models[1])
        assert not paths.train(config.models[1], 0).exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    said = refusal(settings(hidden_size=64, num_layers=3, expansion=8, k=8))
    assert said.endswith(
        "set model.hidden_size to 32, model.num_layers to 2, model.expansion to 32, model.k to 4"
    )
    assert refusal(settings("sparse_topk", ("topk-native",))).endswith(
        "set `models: [dense, sparse]`"
    )
    said = refusal(settings(sparse={"name": "models/dense"}))
    assert "models/dense is not sparse by construction" in said
    assert "model.sparse.name './nowhere'" in refusal(settings(sparse={"name": "./nowhere"}))
    with pytest.raises(UserError, match=r"a base has to be dense, and model\.sparse"):
        train.run(settings(name="models/sparse"), runtime=RUNTIME, mlp="dense")


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"model": {"sparse": None}}, "or name one with model.sparse"),
        ({"model": {"hookpoints": "transformer.h.*.mlp"}}, "have no layers in common"),
        (
            {"models": ["dense"], "families": ["transcoder"]},
            "model.sparse is not used",
        ),
    ],
)
def test_settings_that_do_not_fit(over, says):
    values = settings().model_dump(mode="json")
    with pytest.raises(UserError) as error:
        cfg.parse(cfg.overlay(values, over), "params.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_change_of_one_member_leaves_the_other_alone():
    make_data()
    imported("dense", "models/dense")
    imported("sparse", "models/sparse")
    config = settings()
    for mlp in config.models:
        train.run(config, runtime=RUNTIME, mlp=mlp)
    own = Path("models/sparse/config.json")
    own.write_text(json.dumps({**read_json(own), "layer_norm_eps": 1e-4}))
    fresh = {mlp: train.units(config, mlp=mlp)[0].fresh() for mlp in config.models}
    assert fresh == {"dense": True, "sparse": False}


def test_compute_counts_both():
    for mlp in ("dense", "sparse"):
        imported(mlp, f"models/{mlp}")
    costs = {cost.name: cost for cost in budget.models(settings())}
    for mlp, cost in costs.items():
        assert cost.parameters == load(Path("models") / mlp).num_parameters()
    assert costs["sparse"].forward > costs["dense"].forward
    text = "\n".join(budget.report(settings()))
    assert "The models are taken over as they are" in text
    assert "more to train" not in text


def test_an_experiment_names_both_from_its_worktree_and_pins_them():
    for mlp in ("dense", "sparse"):
        imported(mlp, f"models/{mlp}")
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    values = settings().model_dump(mode="json")
    Path("experiments").mkdir()
    values = {**values, "experiment": "imported"}
    YAML().dump(values, Path("experiments/imported.yaml"))
    model = experiments.resolve("imported", [])["model"]
    assert model["name"] == "../../../models/dense"
    assert model["sparse"]["name"] == "../../../models/sparse"
    assert model["sparse"]["fingerprint"] not in (None, model["fingerprint"])
    wrong = ["model.k=8", "model.expansion=8"]
    with pytest.raises(UserError, match=r"set model\.expansion to 32, model\.k to 4"):
        experiments.resolve("imported", wrong)
    for mlp in ("dense", "sparse"):
        command = ["train", "--mlp", mlp, "--experiment", "imported", "--dry-run"]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        reads = done.output.split("# reads\n")[1].split("# writes")[0].splitlines()
        assert reads[0] == f"models/{mlp}"
        assert sum(line.startswith("models/") for line in reads) == 1
