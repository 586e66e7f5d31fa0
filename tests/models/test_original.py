"""Checkpoints of the original: converted models give the logits of its own formulas."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from originals import HEADS, MODES, SET, VOCAB, D, K, reference, state
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.models import original
from clearnets.models.loading import load
from clearnets.models.original import State

IDS = torch.randint(VOCAB, (1, 19), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["lightning", "torch", "folder"])
def test_logits_are_those_of_the_originals_formulas(mode, kind, tmp_path):
    weights, share, base = state(mode), 0.5, 10048.0
    values = {**SET, "rotary_pct": share}
    if mode == "early_topk":
        values["sparse_mlp"] = True
    match kind:
        case "lightning":
            path = tmp_path / "last.ckpt"
            inside = {f"model.{name}": tensor for name, tensor in weights.items()}
            torch.save({"epoch": 3, "state_dict": inside, "optimizer_states": [{}]}, path)
        case "torch":
            path = tmp_path / "model.pt"
            torch.save({name: tensor.double() for name, tensor in weights.items()}, path)
        case _:
            path = tmp_path
            save_file(weights, tmp_path / "model.safetensors")
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox", **values}))
            values = {}
    original.run(path, tmp_path / "out", values)
    model = load(tmp_path / "out")
    expected = {"early_topk": "sparse_topk"}.get(mode, mode)
    assert model.config.mlp == expected
    with torch.no_grad():
        logits = model(input_ids=IDS).logits[0]
    torch.testing.assert_close(
        logits, reference(mode, weights, IDS[0], base, share), rtol=1e-4, atol=1e-4
    )


def test_gelu_of_a_latent_is_what_a_hook_reads(tmp_path):
    weights = state("sparse_low_rank")
    torch.save(weights, tmp_path / "model.pt")
    original.run(tmp_path / "model.pt", tmp_path / "out", SET)
    model = load(tmp_path / "out")
    x_SD = torch.randn(5, D, generator=torch.Generator().manual_seed(2))
    acts_SK, indices_SK = model.gpt_neox.layers[0].mlp.encoder(x_SD)
    w = {k.partition(".layers.0.mlp.")[2]: v for k, v in weights.items()}
    pre_SL = x_SD @ w["encoder.0.weight"].T @ w["encoder.1.weight"].T + w["encoder.1.bias"]
    torch.testing.assert_close(acts_SK, F.gelu(pre_SL).gather(1, indices_SK))
    again = tmp_path / "again"
    model.save_pretrained(again)
    assert load(again).config.latent_act == "gelu"


@pytest.mark.parametrize("tied", [True, False])
def test_an_early_dense_gpt_neo_becomes_transformers_own(tmp_path, tied):
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=VOCAB,
        hidden_size=D,
        num_layers=8,
        num_heads=HEADS,
        attention_types=[[["global", "local"], 4]],
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    theirs = GPTNeoForCausalLM(config).eval()
    inside = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": inside}, tmp_path / "last.ckpt")
    original.run(tmp_path / "last.ckpt", tmp_path / "out", {"num_heads": HEADS})
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert ours.config.tie_word_embeddings == tied
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_pickle_with_other_classes_is_refused_and_nothing_runs(way, tmp_path):
    path = tmp_path / "last.ckpt"
    content = {"state_dict": state("dense"), "hyper_parameters": Trap()}
    if way == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="is not unpickled; save model") as error:
        original.run(path, tmp_path / "out", SET)
    assert "\n" not in str(error.value)
    assert not Path("sprung").exists()
    assert not (tmp_path / "out").exists()


def without(name: str) -> State:
    return {key: tensor for key, tensor in state("dense").items() if key != name}


EMBED, QKV = "gpt_neox.embed_in.weight", "gpt_neox.layers.1.attention.query_key_value.weight"


@pytest.mark.parametrize(
    ("weights", "values", "says"),
    [
        (
            state("dense"),
            {},
            "does not say its num_attention_heads; add --set num_attention_heads=",
        ),
        (state("sparse_low_rank"), {"num_attention_heads": 4}, "does not say its k; add --set k="),
        (state("early_topk"), SET, "does not say its sparse_mlp; add --set sparse_mlp="),
        (without(QKV), SET, f"lacks {QKV}"),
        ({**state("dense"), QKV: torch.zeros(5, D)}, SET, r"has the shape \(5, 32\), its config"),
        (
            {**state("dense"), "gpt_neox.extra": torch.zeros(1)},
            SET,
            "unknown weight gpt_neox.extra",
        ),
        ({**state("sparse")}, {**SET, "num_attention_heads": 5}, "not divisible"),
        ({"encoder.weight": torch.zeros(2, 2)}, SET, "no model of the original; its weights are e"),
        ({EMBED: torch.zeros(VOCAB, D)}, SET, "no model of the original"),
        ({}, SET, "holds no state dict"),
        (state("dense"), {"heads": 4}, "--set heads: unknown key; there are: num_attention_heads"),
    ],
)
def test_what_does_not_fit_gets_one_line(weights, values, says, tmp_path):
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(UserError, match=says) as error:
        original.run(tmp_path / "model.pt", tmp_path / "out", values)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("mode", "key"), [("dense", "num_heads"), ("dense", "window_size"), ("sparse", "num_heads")]
)
def test_a_value_that_is_of_no_use_is_refused(mode, key, tmp_path):
    torch.save(state(mode), tmp_path / "model.pt")
    values = {"num_attention_heads": HEADS, key: 4}
    with pytest.raises(UserError, match=f"--set {key}: .*has no such value"):
        original.run(tmp_path / "model.pt", tmp_path / "out", values)
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    for path, says in (
        (tmp_path / "text.ckpt", "is not a file that torch.save wrote|is not unpickled"),
        (tmp_path / "nowhere.pt", "is no checkpoint"),
        (tmp_path, "is no checkpoint"),
    ):
        with pytest.raises(UserError, match=says):
            original.run(path, tmp_path / "out", SET)
    torch.save(state("dense"), tmp_path / "model.pt")
    with pytest.raises(UserError, match="is there already"):
        original.run(tmp_path / "model.pt", tmp_path, SET)


def test_the_command_converts(tmp_path):
    torch.save(state("sparse"), tmp_path / "model.pt")
    words = ["import", str(tmp_path / "model.pt"), str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, [*words, "--set", f"num_attention_heads={HEADS}"])
    assert done.exit_code == 0, done.output
    assert "Writing" not in done.output
    assert "sparse_gpt_neox, sparse, " in done.output
    # k is the number of the groups' offsets.
    assert load(tmp_path / "out").config.k == K
