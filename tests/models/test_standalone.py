"""A model as a folder of its own: transformers alone loads the dense one, and computes the same."""

from __future__ import annotations

import json

import pytest
import tiny_pipeline as tiny
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXForCausalLM
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.models import standalone
from clearnets.models.loading import load
from clearnets.pipeline import paths


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data()
        tiny.make_models()
    return folder


@pytest.mark.parametrize("mlp", ["dense", "dense_wide", "sparse"])
def test_the_folder_computes_what_the_checkpoint_does(made, monkeypatch, tmp_path, mlp):
    monkeypatch.chdir(made)
    assert standalone.run(mlp, tmp_path / "out", seed=0).num_parameters() > 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("the fox said no", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == "the fox said no"
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    own = load(paths.checkpoint(mlp, 0, 7))
    torch.testing.assert_close(found(ids).logits, own(ids).logits, rtol=0, atol=0)
    kind = json.loads((tmp_path / "out/config.json").read_text())["model_type"]
    assert (kind, type(found) is GPTNeoXForCausalLM) == (
        ("sparse_gpt_neox", False) if mlp == "sparse" else ("gpt_neox", True)
    )


def test_a_folder_that_is_there_is_left_alone(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made)
    with pytest.raises(UserError, match="is there already"):
        standalone.run("dense", tmp_path, seed=0)
    YAML().dump(tiny.config().model_dump(mode="json"), made / "params.yaml")
    done = CliRunner().invoke(cli.app, ["export-model", str(tmp_path / "out"), "--mlp", "dense"])
    assert done.output.startswith(f"{tmp_path / 'out'}: gpt_neox, dense, ")
