"""The table from the original's commands to these: each row runs, at small size."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from ruamel.yaml import YAML
from tiny_experiment import experiment
from transformers import GPTNeoConfig, GPTNeoForCausalLM
from whole_pipeline import ROOT, copy_scripts

from clearnets import cli, config
from clearnets.cli.errors import guarded
from clearnets.config import Config, GPTNeoX
from clearnets.data.storybook import stories
from clearnets.families import FAMILIES
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline import experiments

TABLE = (ROOT / "docs/originals.md").read_text(encoding="utf-8")
# Sizes that a test cannot afford, and in `HERE` names for those of the table.
SMALL: dict[str, Any] = {
    "train.epochs": 2,
    "train.batch_size": 8,
    "data.ctx_len": 32,
    "coders.batch_size": 4,
    "coders.tokens": 2048,
    "model.hidden_size": 64,
    "model.num_layers": 2,
    "model.expansion": 8,
    "model.k": 8,
    "explain.latents": 8,
    "explain.n_examples_train": 10,
    "score.n_examples_test": 10,
    "explain.n_non_activating": 10,
    "score.n_non_activating": 10,
    "data.tokens.explain": 6000,
    "data.tokens.score": 6000,
}
HERE = {
    "FOLDER": "texts.jsonl",
    "T": "tokenizer",
    "CODERS": "theirs",
    "TRANSCODERS": "their-transcoders",
    10048: 400,
    "roneneldan/TinyStories-8M": "tinystories",
    "models/dense": "imported/dense",
    "models/sparse": "imported/sparse",
}
OF_FAMILIES = ("cache", "explain", "score", "overlap", "concepts", "probes")


def rows() -> list[tuple[str, str, dict[str, Any]]]:
    """(original, command, assignments) of each row."""
    inside = TABLE.split("<!-- originals -->", 1)[1].split("<!-- end originals -->", 1)[0]
    found = []
    for line in inside.strip().splitlines()[2:]:
        left, middle, right = line.strip().removeprefix("|").removesuffix("|").split(" | ")
        (command,) = re.findall(r"`([^`]+)`", middle)
        settings = experiments.parse_assignments(re.findall(r"`([^`]+)`", right))
        found.append((left.strip(), command, settings))
    return found


def here(key: str, value: Any) -> Any:
    """A value of the table at the test's size, with the names that there are in the project."""
    if key in SMALL:
        return SMALL[key]
    if isinstance(value, dict):
        return {name: here(f"{key}.{name}", part) for name, part in value.items()}
    return HERE.get(value, value) if isinstance(value, str | int) else value


def write_params(values: dict[str, Any], assignments: dict[str, Any]) -> Config:
    over: dict[str, Any] = {}
    for key, value in assignments.items():
        *parents, last = key.split(".")
        part = over
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = here(key, value)
    values = config.overlay(values, over)
    YAML().dump(values, Path("params.yaml"))
    return config.load()


def run(command: str) -> int:
    words = shlex.split(command)
    # Every row is as it would be typed; but workers cost more than they save at this size.
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        return guarded(lambda: cli.app(words, standalone_mode=False))


def commands(cfg: Config) -> list[str]:
    """Every stage of the pipeline, in order."""
    coders = [family for family in cfg.families if FAMILIES[family].is_coder]
    return [
        "data",
        "words",
        *(f"train --mlp {mlp}" for mlp in cfg.models),
        "match",
        *(f"sparsify --aux {family}" for family in coders),
        "evaluate",
        "embed",
        "qualify",
        *(f"{stage} --aux {family}" for stage in OF_FAMILIES for family in cfg.families),
        *(f"{stage} --aux {f}" for stage in ("execute", "effects") for f in cfg.executed_families),
        *(f"circuits --aux {f}" for f in cfg.circuit_families),
        *(f"reseed --aux {family}" for family in cfg.reseeded_families),
        *(f"stability --aux {family}" for family in cfg.stability_families),
        *(f"intervene --aux {f}" for f in cfg.executed_families),
        "similarity",
        "planted",
        *(f"generalize {task}" for task in cfg.generalize.tasks),
        "sample",
        "collate",
    ]


def needed(cfg: Config, command: str) -> list[str]:
    """What comes before a command: all of it before `collate`, else only its own family's."""
    every, (stage, *rest) = commands(cfg), shlex.split(command)
    stages = list(dict.fromkeys(one.split()[0] for one in every))
    # Rows of `generalize` change nothing that it reads.
    if stage not in stages or stage == "generalize":
        return []
    earlier = [one for one in every if stages.index(one.split()[0]) < stages.index(stage)]
    if stage != "collate" and "--aux" in rest:
        family = rest[rest.index("--aux") + 1]
        earlier = [
            one
            for one in earlier
            if one != "evaluate" and ("--aux" not in one or one.endswith(f" {family}"))
        ]
    return earlier


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project whose every stage has run, with what the rows name beside it."""
    folder = tmp_path_factory.mktemp("project")
    cfg = experiment(["dense", "sparse"], ["native", "sae", "transcoder", "random-native"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = cfg.model_dump(mode="json")
        values["data"]["tokens"] = {**values["data"]["tokens"], "train": 4000, "valid": 1000}
        values["coders"]["tokens"] = 2048
        write_params(values, {})
        for command in commands(cfg):
            assert run(command) == 0, command
        shutil.copytree("artifacts/data/tokenizer", "tokenizer")
        shutil.copytree("artifacts/coders/sae/seed-0", "theirs")
        shutil.copytree("artifacts/coders/transcoder/seed-0", "their-transcoders")
        lines = (
            json.dumps({"story": one.text}) + "\n" for one in islice(stories(1, "train"), 1500)
        )
        Path("texts.jsonl").write_text("".join(lines))
        shutil.copytree(ROOT / "experiments", "experiments")
        copy_scripts()
        for mlp, name in (("dense", "last"), ("sparse", "sparse")):
            _original_checkpoint(cfg, mlp, Path(f"{name}.ckpt"))
            heads = f"--set num_attention_heads=16 --set bos_token_id={SPECIAL['bos']}"
            assert run(f"import {name}.ckpt imported/{mlp} {heads}") == 0
        _gpt_neo(cfg.data.vocab_size).save_pretrained("tinystories")
    return folder


SPECIAL = {"pad": 0, "bos": 1, "eos": 2}
NAMES = {"lm_head": "embed_out", "encoder": "dense_h_to_4h", "decoder.weight": "values"}


def _original_checkpoint(cfg: Config, mlp: Any, path: Path) -> None:
    """A model in the names of the original."""
    sizes = {key.removeprefix("model."): SMALL[key] for key in SMALL if key.startswith("model.")}
    assert isinstance(cfg.model, GPTNeoX)
    built = build_model(
        cfg.model.model_copy(update={"num_heads": 16, **sizes}),
        mlp=mlp,
        vocab_size=cfg.data.vocab_size,
        ctx_len=64,
        seed=0,
        **SPECIAL,
    )
    state = {}
    for name, tensor in built.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if "decoder" not in name:  # Its bias, which the original lacks.
            state[f"model.{name}"] = tensor
        if name.endswith("values"):
            latents, k = sizes["hidden_size"] * sizes["expansion"], sizes["k"]
            offsets = torch.arange(0, latents, latents // k)
            state[f"model.{name.replace('values', 'offsets')}"] = offsets
    torch.save({"state_dict": state}, path)


def _gpt_neo(vocab_size: int) -> GPTNeoForCausalLM:
    sizes = {
        "hidden_size": SMALL["model.hidden_size"],
        "num_layers": SMALL["model.num_layers"],
        "attention_types": [[["global", "local"], 1]],
    }
    return GPTNeoForCausalLM(GPTNeoConfig(vocab_size=vocab_size, num_heads=4, **sizes))


@pytest.mark.parametrize(("left", "command", "assignments"), rows(), ids=lambda x: str(x)[:60])
def test_each_row_runs(left, command, assignments, project, tmp_path, monkeypatch, capsys):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    program, _, command = command.partition(" ")
    assert program == "clearnets"
    command = re.sub("--layers 0-[0-9,]+", "--layers 0-1", command)  # There are two.
    values = config.read_yaml(Path("params.yaml"))
    cfg = write_params(values, assignments)
    for earlier in needed(cfg, command):
        assert run(earlier) == 0, earlier
    if "hub" in str(assignments):
        # Out of reach here: one line that says what else can be named.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        capsys.readouterr()
        assert run(command) == 2
        assert "local" in capsys.readouterr().err
    else:
        assert run(command) == 0, left
