"""A pretrained base of every kind through all stages, checked on the base itself."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic
import tiny_bases
import torch
from tiny_data import LATENTS, VOCAB, make_data
from typer.testing import CliRunner
from whole_pipeline import CPU as RUNTIME
from whole_pipeline import ROOT, draw_figures, own_checkpoints, run_behind_data

from clearnets import UserError
from clearnets import config as cfg
from clearnets.cli import app
from clearnets.coders.library import load_coder
from clearnets.config import Config
from clearnets.data.tokens import open_tokens
from clearnets.latents.store import load_layer
from clearnets.models import budget, pretrained
from clearnets.models.pretrained import KINDS
from clearnets.pipeline import experiments, paths
from clearnets.pipeline.artifacts import read_json, read_jsonl, write_json
from clearnets.stages import cache, evaluate, match, sparsify, train

FAMILIES = ("transcoder", "sae", "skip-transcoder", "neurons")


def settings(kind: str, **model) -> cfg.Config:
    """The default with a base in `base/`, at a tiny size."""
    base = cfg.read_yaml(ROOT / "params.yaml")
    over = {
        "models": ["dense"],
        "families": list(FAMILIES),
        "data": {"ctx_len": synthetic.CTX, "tokens": {"concept_fit": 0, "concept_test": 0}},
        "model": tiny_bases.settings("base", kind, **model).model_dump(mode="json"),
        "coders": {"tokens": 8 * 4 * synthetic.CTX},
        "explain": {"latents": LATENTS, "min_windows": 5},
        "overlap": {"latents": LATENTS},
        "generalize": own_checkpoints(),
        "collate": {"resamples": 20},
    }
    return cfg.parse(cfg.overlay(base, over), "test")


def make_base(kind: str):
    model = tiny_bases.make(kind, vocab_size=VOCAB, eos=synthetic.EOS, bos=synthetic.BOS)
    model.save_pretrained("base")
    return model


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@torch.no_grad()
def traffic(model, tokens_RS: np.ndarray, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of a feedforward, by a hook of the base's own."""
    seen = {}
    block = getattr(model.base_model, KINDS[model.config.model_type].layers)[layer]
    handle = block.mlp.register_forward_hook(lambda _, args, out: seen.update(x=args[0], y=out))
    model(torch.from_numpy(tokens_RS.astype(np.int64)))
    handle.remove()
    return seen["x"], seen["y"]


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "llama" else pytest.param(kind, marks=pytest.mark.nightly)
        for kind in sorted(KINDS)
    ],
)
def test_the_whole_comparison_on_a_base(kind):
    make_data()
    # Of one kind, and that in every run of the tests, some layers are read, not the first.
    chosen = {"read_layers": (1, 2)} if kind == "llama" else {}
    model, config = make_base(kind), settings(kind, **chosen)
    run_behind_data(config)

    # Two ways to the same loss.
    summary = read_json(paths.evaluate(0) / "summary.json")["models"]["dense"]
    taken = read_json(paths.train("dense", 0) / "summary.json")
    assert summary["heldout_loss"] == pytest.approx(taken["valid_loss"], abs=1e-5)
    assert summary["parameters"] == sum(p.numel() for p in model.parameters())
    assert summary["parameters_without_embeddings"] == taken["non_embedding_parameters"]
    assert (summary["training_tokens"], summary["training_flops"]) == (None, None)
    assert read_json(paths.match(0) / "pair.json")["dense"]["step"] == 0

    tokens_RS = np.asarray(open_tokens(paths.data()).split("explain"))
    counted_RS = synthetic.counted(tokens_RS)
    for layer in config.model.layers:
        point = config.model.hookpoint(layer)
        assert point == f"{KINDS[kind].layers}.{layer}.mlp"
        x_RSD, y_RSD = traffic(model, tokens_RS, layer)
        for family in config.coder_families:
            coder = load_coder(paths.coders(family, 0) / point)
            read_RSD = x_RSD if coder.cfg.transcode else y_RSD
            with torch.no_grad():
                encoded = coder.encode(read_RSD.flatten(0, 1))
            dense_RSL = torch.zeros(len(encoded.top_acts), coder.num_latents)
            dense_RSL.scatter_(1, encoded.top_indices, encoded.top_acts)
            expected_RSL = dense_RSL.view(*tokens_RS.shape, -1).numpy()
            expected_RSL[~counted_RS] = 0
            found = load_layer(paths.cache(family, 0, "explain"), point)
            got_RSL = np.zeros_like(expected_RSL)
            got_RSL[found.row, found.position, found.latent] = found.act
            # float16 in the cache; which of two nearly equal latents is kept may differ.
            wrong = np.abs(got_RSL - expected_RSL) > 2e-3 * np.abs(expected_RSL) + 1e-4
            assert wrong.sum() <= 2
    for family in FAMILIES:
        files = [
            paths.score(family, 0, config.model.hookpoint(layer)) / "scores.jsonl"
            for layer in config.model.layers
        ]
        records = [record for file in files for record in read_jsonl(file)]
        assert len(records) == LATENTS * len(config.model.layers)
        assert any(record["detection"] for record in records)
    assert read_json(paths.metrics("cache-neurons"))["seed-0"]["explain"]["l0"] == {
        config.model.hookpoint(layer): pytest.approx(tiny_bases.K, abs=0.01)
        for layer in config.model.layers
    }
    told_of_the_layers_that_are_read(config)
    assert (paths.results("default") / "summary.csv").exists()
    text = (paths.results("default") / "summary.md").read_text()
    assert "There is one model: it is taken over as it is." in text
    assert f"| – + {config.coders.tokens:,} |" in text
    assert f"| dense | {summary['parameters']:,} |" in text
    assert "nan" not in text
    # Coders are compared with each other, and no table is without a row.
    assert "transcoder − sae" in text
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("| ---")]
    assert heads
    assert all(lines[number + 1].startswith("|") for number in heads)
    if kind == "llama":  # The tables of the other kinds have the same form.
        a_level_and_no_curve(config, taken["valid_loss"])


def told_of_the_layers_that_are_read(config: Config) -> None:
    for table in ("layers", "latents", "execution_latents"):
        rows = read_csv(paths.results("default") / f"{table}.csv")
        numbers = {row["layer"] for row in rows} - {"", "all"}
        assert {int(float(number)) for number in numbers} == {*config.model.layers}
    (depth,) = read_csv(paths.results("default") / "depth.csv")
    # Where the first layer is not among them, all but the first are all.
    assert (depth["joint"] == depth["joint_all"]) == (0 not in config.model.layers)


def a_level_and_no_curve(config: Config, loss: float) -> None:
    draw_figures(config)
    captions = read_json(paths.FIGURES / "captions.json")
    assert (paths.FIGURES / "losses.pdf").exists()
    assert "transformer, taken over as it is. Dotted" in captions["losses"]
    assert "generator" not in captions["losses"]
    code = (
        "import losses, pathlib, sys\n"
        "axes = losses.draw(pathlib.Path(sys.argv[1]))[0].axes[0]\n"
        "print(axes.get_xscale(), axes.get_xlabel(), axes.get_lines()[0].get_ydata()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, paths.results("default")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "paper/scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    scale, level = done.stdout.split()
    assert (scale, float(level)) == ("linear", pytest.approx(loss, abs=1e-5))


def test_saes_where_input_and_output_have_different_widths_and_no_transcoders():
    make_data()
    make_base("gpt2")
    config = settings("gpt2", hookpoints="transformer.h.*.mlp.c_proj")
    assert config.model.hookpoint(1) == "h.1.mlp.c_proj"
    train.run(config, runtime=RUNTIME, mlp="dense")
    match.run(config, runtime=RUNTIME)
    says = r"h\.0\.mlp\.c_proj reads 40 numbers and writes 16: no transcoder"
    with pytest.raises(UserError, match=says):
        sparsify.run(config, runtime=RUNTIME, families=["transcoder"])
    assert not list(paths.WORK.rglob("*.*"))
    sparsify.run(config, runtime=RUNTIME, families=["sae"])
    evaluate.run(config.model_copy(update={"families": ("sae",)}), runtime=RUNTIME)
    cache.run(config, runtime=RUNTIME, families=["sae"])
    point = config.model.hookpoint(2)
    assert load_layer(paths.cache("sae", 0, "explain"), point).num_latents == 64


def test_changed_files_of_the_base_make_the_run_stale():
    make_data()
    make_base("gpt2")
    config = settings("gpt2")
    train.run(config, runtime=RUNTIME, mlp="dense")
    (unit,) = train.units(config, mlp="dense")
    assert unit.fresh()
    tiny_bases.make("gpt2", vocab_size=VOCAB, eos=2, bos=2).save_pretrained("base")
    (unit,) = train.units(config, mlp="dense")
    assert not unit.fresh()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_compute_counts_a_base_without_its_weights(kind):
    model = make_base(kind)
    Path("base/model.safetensors").unlink()
    (cost,) = budget.models(settings(kind))
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    text = "\n".join(budget.report(settings(kind)))
    assert f"{cost.parameters:,}" in text
    assert "skip-transcoder" in text
    assert "more to train" not in text
    dense = next(line for line in text.splitlines() if line.startswith("dense"))
    assert dense.split()[-2:] == ["–", "–"]
    assert "taken over as it is" in text


def test_one_line_at_the_command_line(tmp_path):
    make_base("gpt2")
    values = settings("gpt2").model_dump(mode="json")
    write_json(Path("params.yaml"), values)  # JSON is YAML.
    values["model"]["num_layers"] = 7
    make_data()
    write_json(Path("params.yaml"), values)
    done = CliRunner().invoke(app, ["train", "--mlp", "dense"])
    assert done.exit_code != 0
    assert not paths.train("dense", 0).exists()
    assert "set model.num_layers to 3" in str(done.exception)


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"models": ["dense", "sparse"]}, "a pretrained model has no sparse twin"),
        ({"model": {"hookpoints": "h.*.mlp.*"}}, "names no module of every layer: write *"),
        ({"model": {"hookpoints": "h.3.mlp"}}, "model.read_layers says which layers are read"),
        ({"model": {"hookpoints": "h.(1|2).mlp"}}, "'h.(1|2).mlp' names no module of every layer"),
        ({"model": {"read_layers": [1, 3]}}, "read_layers must be numbers from 0 to 2 in rising"),
        ({"model": {"read_layers": [2, 1]}}, "read_layers must be numbers from 0 to 2 in rising"),
        ({"model": {"read_layers": []}}, "model.read_layers: "),
        (
            {"model": {"kind": "bert"}},
            "model.kind: unknown kind 'bert'; there are: 'gptneox', 'pretrained'",
        ),
        ({"model": {"k": 100}}, "k must not exceed hidden_size * expansion"),
    ],
)
def test_settings_that_do_not_fit(over, says):
    values = settings("gpt2").model_dump(mode="json")
    with pytest.raises(UserError) as error:
        cfg.parse(cfg.overlay(values, over), "params.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "relative"),
    [
        ("transformer.h.*.mlp", "h.3.mlp"),
        ("h.*.mlp", "h.3.mlp"),
        ("gpt_neox.layers.*.mlp", "layers.3.mlp"),
        ("model.layers.*.mlp.down_proj", "layers.3.mlp.down_proj"),
    ],
)
def test_hookpoints_are_named_relative_to_the_base_model(pattern, relative):
    assert tiny_bases.settings("x", hookpoints=pattern).hookpoint(3) == relative


def experiment_on_a_base(**model) -> None:
    """A project with the experiment `b`, whose base is the folder `base`."""
    make_base("gpt2")
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    values = settings("gpt2", **model).model_dump(mode="json")
    write_json(Path("experiments/b.yaml"), {**values, "experiment": "b"})


def said(*words: str) -> str:
    """The one line with which a command is refused."""
    done = CliRunner().invoke(app, list(words))
    assert isinstance(done.exception, UserError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_compute_finds_the_folder_of_an_experiment_s_base():
    experiment_on_a_base()
    done = CliRunner().invoke(app, ["compute", "--experiment", "b"])
    assert done.exit_code == 0, done.exception
    assert f"{budget.models(settings('gpt2'))[0].parameters:,}" in done.output


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_new_experiment_is_filled_in_from_its_base(kind):
    make_base(kind)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = CliRunner().invoke(app, ["exp", "--new", "mine", "--base", "base"])
    assert done.exit_code == 0, done.exception
    assert "experiments/mine.yaml: edit and commit it" in done.output
    config = cfg.parse(experiments.resolve("mine", []), "mine")
    # The sizes and modules are the model's own: `check` would say which are not.
    pretrained.check(experiments.name_sources_from_here(config, experiments.worktree("mine")).model)
    assert config.model.layers == (0, 1, 2)
    assert config.data.ctx_len == tiny_bases.POSITIONS
    assert "is there already" in said("exp", "--new", "mine", "--base", "base")
    assert "no such folder" in said("exp", "--new", "other", "--base", "./nowhere")
    assert not Path("experiments/other.yaml").exists()
    done = CliRunner().invoke(app, ["exp", "mine", "--new", "other"])
    assert "a new experiment takes --new NAME and --base FOLDER" in done.output


def test_an_experiment_is_refused_before_its_corpus_is_read():
    experiment_on_a_base(num_layers=7, hidden_size=32, hookpoints="layers.*.mlp")
    cures = "model.hidden_size to 16, model.num_layers to 3, model.hookpoints to h.*.mlp"
    assert said("exp", "b", "--dry-run").endswith(f"set {cures}")
    write_json(Path("base/config.json"), {"model_type": "bert"})
    Path("base/model.safetensors").unlink()
    assert "unknown kind 'bert'; there are: GPT-NeoX" in said("exp", "b", "--dry-run")


def test_what_a_config_leaves_out_is_its_class_s_and_odd_values_are_one_line():
    Path("base").mkdir()
    write_json(Path("base/config.json"), {"model_type": "gpt2", "vocab_size": 5})
    # A table about another model than the parameters describe would mean nothing.
    cure = "other sizes than the parameters; set model.hidden_size to 768, model.num_layers to 12"
    with pytest.raises(UserError, match=cure):
        budget.architecture(settings("gpt2"), "dense")
    own = {"n_embd": tiny_bases.HIDDEN, "n_layer": tiny_bases.LAYERS}
    write_json(Path("base/config.json"), {"model_type": "gpt2", "vocab_size": 5, **own})
    sizes = budget.architecture(settings("gpt2"), "dense")
    assert (sizes.intermediate_size, sizes.vocab_size) == (4 * tiny_bases.HIDDEN, 5)
    for values in (
        {"model_type": "gpt_neo", "num_heads": "x"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "gpt2", "n_layer": None},
    ):
        write_json(Path("base/config.json"), values)
        with pytest.raises(UserError, match=r"base/config\.json describes no model") as error:
            list(budget.report(settings("gpt2")))
        assert "\n" not in str(error.value)
