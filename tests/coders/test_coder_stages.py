"""The stages `sparsify` and `evaluate` on a tiny project."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pair import CTX, VOCAB

from clearnets import UserError, config
from clearnets.coders import training
from clearnets.coders.batches import evenly_spaced
from clearnets.coders.library import coder_class, load_coder
from clearnets.families import FAMILIES
from clearnets.models import flops as compute
from clearnets.models.loading import load
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline import paths, processes
from clearnets.pipeline.runtime import Runtime, seed_for
from clearnets.stages import evaluate, sparsify

RUNTIME = Runtime("cpu", 1)


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def table(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_coders_are_in_sparsifys_format(project):
    sparsify.run(project, runtime=RUNTIME, families=["skip-transcoder"])
    folder = paths.coders("skip-transcoder", 0)
    coders = coder_class().load_many(str(folder), local=True)
    assert list(coders) == ["layers.0.mlp", "layers.1.mlp"]
    for coder in coders.values():
        assert (coder.d_in, coder.num_latents, coder.cfg.k) == (16, 64, 4)
        assert coder.cfg.transcode
        assert coder.W_skip is not None
        assert coder.W_skip.any()
    training_report = json.loads((folder / "training.json").read_text())
    assert training_report["steps"] == 12
    assert training_report["tokens"] == project.coders.tokens
    metrics = json.loads(paths.metrics("sparsify-skip-transcoder").read_text())["seed-0"]
    fvus = [layer["fvu"] for layer in training_report["layers"].values()]
    assert metrics["training_fvu"] == pytest.approx(sum(fvus) / 2)
    assert 0 < metrics["training_fvu"] < 1


def test_same_bytes_again_and_after_an_interruption(project):
    sparsify.run(project, runtime=RUNTIME, families=["sae"])
    folder = paths.coders("sae", 0)
    first = content(folder)
    changed = [path.stat().st_mtime_ns for path in folder.rglob("*")]
    sparsify.run(project, runtime=RUNTIME, families=["sae"])
    assert changed == [path.stat().st_mtime_ns for path in folder.rglob("*")], "nothing to do"

    folder.rename("aside")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, step=8)
        sparsify.run(project, runtime=RUNTIME, families=["sae"])
    assert not folder.exists()
    assert list(paths.WORK.rglob("layers-0-1.pt"))
    sparsify.run(project, runtime=RUNTIME, families=["sae"])
    assert content(folder) == first
    assert not list(paths.WORK.rglob("*.pt"))


def interrupt(monkeypatch, *, step: int) -> None:
    """Have training stop as by Ctrl-C within a step, with a resume state every three."""
    real, steps = training._Run.end_step, []

    def fails(run):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        real(run)

    monkeypatch.setattr(training._Run, "end_step", fails)
    defaults = training.train.__kwdefaults__ | {"save_every": 3}
    monkeypatch.setattr(training.train, "__kwdefaults__", defaults)


FAMILIES_OF_DENSE = ["transcoder", "sae", "random-sae", "skip-transcoder"]
TOGETHER = ["e2e-transcoder", "cross-layer-transcoder"]


def train_in(folder: Path, project: config.Config, families: list[str]) -> dict[str, bytes]:
    """Train families by one command in a folder; gives all that they became."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sparsify.run(project, runtime=RUNTIME, families=families)
        made = {}
        for family in families:
            files = content(paths.coders(family, 0))
            made |= {f"{family}/{name}": data for name, data in files.items()}
            made[family] = paths.metrics(f"sparsify-{family}").read_bytes()
        return made


@pytest.fixture
def alone(project, tmp_path) -> dict[str, bytes]:
    """What families become, each by a command of its own."""
    folder = copy(tmp_path, "alone")
    return {
        name: data
        for family in FAMILIES_OF_DENSE
        for name, data in train_in(folder, project, [family]).items()
    }


def copy(project: Path, name: str) -> Path:
    return shutil.copytree(
        project, project / "copies" / name, ignore=shutil.ignore_patterns("copies")
    )


def test_families_in_one_command_are_those_of_one_each(project, alone, tmp_path):
    """At once; and together after two interruptions, one family ahead of the others."""
    assert train_in(copy(tmp_path, "together"), project, FAMILIES_OF_DENSE) == alone
    folder = copy(tmp_path, "interrupted")
    for families in (["sae"], FAMILIES_OF_DENSE):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, step=8)
            train_in(folder, project, families)
    assert train_in(folder, project, FAMILIES_OF_DENSE) == alone


@pytest.mark.parametrize("workers", ["here", pytest.param("processes", marks=pytest.mark.nightly)])
def test_layers_on_two_workers_are_those_on_one(project, alone, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(processes, "cores", lambda: 2)
    if workers == "here":
        monkeypatch.setattr(processes, "each", lambda call, jobs, **_: [call(*job) for job in jobs])
    assert train_in(copy(tmp_path, "two"), project, FAMILIES_OF_DENSE) == alone


def test_coders_of_all_layers_together_in_the_stages(project, tmp_path, monkeypatch):
    """Alone as beside others, on one worker as on two; evaluated as other coders are."""
    families = [*TOGETHER, "transcoder"]
    expected = {}
    for family in families:
        expected |= train_in(copy(tmp_path, family), project, [family])
    assert "cross-layer-transcoder/layers.0.mlp/cross.safetensors" in expected
    monkeypatch.setattr(processes, "cores", lambda: 2)
    monkeypatch.setattr(processes, "each", lambda call, jobs, **_: [call(*job) for job in jobs])
    assert train_in(tmp_path, project, families) == expected

    evaluate.run(project.model_copy(update={"families": tuple(families)}), runtime=RUNTIME)
    assert len(table(paths.evaluate(0) / "coders.csv")) == 6
    costs = json.loads((paths.evaluate(0) / "summary.json").read_text())["coders"]
    own = costs["transcoder"]
    cross, end_to_end = costs["cross-layer-transcoder"], costs["e2e-transcoder"]
    assert cross["parameters"] == own["parameters"] + 64 * 16
    assert cross["flops_per_token_forward"] == own["flops_per_token_forward"] + 2 * 4 * 16
    assert end_to_end["parameters"] == own["parameters"]
    assert end_to_end["training_flops"] > 2 * own["training_flops"]


def test_the_twin_is_where_training_began(project):
    sparsify.run(project, runtime=RUNTIME, families=["random-sae"])
    sparsify.run(project, runtime=RUNTIME, families=["sae"])
    twin, coder = (
        load_coder(paths.coders(family, 0) / "layers.1.mlp") for family in ("random-sae", "sae")
    )
    for name, weight in twin.state_dict().items():
        moved = (weight - coder.state_dict()[name]).abs().max()
        assert 0 < moved < 12 * 2 * project.coders.learning_rate
    assert json.loads(paths.metrics("sparsify-random-sae").read_text()) == {"seed-0": {"tokens": 0}}


def test_coders_of_the_untrained_model_are_measured_on_it(project):
    """fvu of a step-0 coder by another way: whole arrays and numpy, on the initial model."""
    sparsify.run(project, runtime=RUNTIME, families=["step0-transcoder"])
    sparsify.run(project, runtime=RUNTIME, families=["transcoder"])
    only = {"families": ("transcoder", "step0-transcoder")}
    evaluate.run(project.model_copy(update=only), runtime=RUNTIME)
    model = build_model(
        project.model, mlp="dense", vocab_size=VOCAB, ctx_len=CTX, pad=0, bos=1, eos=2,
        seed=seed_for(0, "init"),
    ).eval()  # fmt: skip
    valid = np.load(paths.data() / "tokens/valid.npy").astype(np.int64)
    counted = valid > 2
    counted[:, 0] = False
    seen: dict[str, np.ndarray] = {}
    mlp = model.gpt_neox.layers[1].mlp
    mlp.register_forward_hook(lambda _, args, out: seen.update(x=args[0].numpy(), y=out.numpy()))
    with torch.no_grad():
        model(torch.from_numpy(valid))
        x_ND, y_ND = seen["x"][counted], seen["y"][counted].astype(np.float64)
        coder = load_coder(paths.coders("step0-transcoder", 0) / "layers.1.mlp")
        made_ND = coder(torch.from_numpy(x_ND), torch.from_numpy(y_ND).float()).sae_out.numpy()
    expected = ((y_ND - made_ND) ** 2).sum() / ((y_ND - y_ND.mean(0)) ** 2).sum()
    rows = {(row["family"], row["layer"]): row for row in table(paths.evaluate(0) / "coders.csv")}
    assert float(rows["step0-transcoder", "1"]["fvu"]) == pytest.approx(expected, rel=1e-4)
    trained = rows["transcoder", "1"]
    assert trained["fvu_token_mean"] != rows["step0-transcoder", "1"]["fvu_token_mean"]
    evaluated = json.loads((paths.evaluate(0) / "summary.json").read_text())
    assert set(evaluated["models"]) == {"dense", "sparse"}


def test_too_few_tokens_and_a_missing_input(project):
    greedy = project.model_copy(
        update={"coders": project.coders.model_copy(update={"tokens": 10**6})}
    )
    with pytest.raises(UserError, match=r"lower coders\.tokens"):
        sparsify.run(greedy, runtime=RUNTIME, families=["sae"])
    with pytest.raises(UserError, match="run `dvc repro sparsify@"):
        evaluate.run(project, runtime=RUNTIME)
    assert not paths.evaluate(0).exists()


def test_evaluate_writes_its_tables_the_same_each_time(project):
    for family in project.coder_families:
        sparsify.run(project, runtime=RUNTIME, families=[family])
    evaluate.run(project, runtime=RUNTIME)
    folder = paths.evaluate(0)
    first = content(folder)
    rows = table(folder / "coders.csv")
    families = set(project.coder_families)
    assert {(row["family"], row["layer"]) for row in rows} == {
        (family, str(layer)) for family in families for layer in range(2)
    }
    fvu = {(row["family"], row["layer"]): float(row["fvu"]) for row in rows}
    for row in rows:
        assert (row["fvu_linear"] == "") == (not FAMILIES[row["family"]].transcode)
        twin = FAMILIES[row["family"]].untrained_twin
        if twin:
            assert fvu[row["family"], row["layer"]] < fvu[twin, row["layer"]]
    # The untrained transcoder writes the mean of its first batch: never better than the mean.
    assert 1 <= fvu["random-transcoder", "0"] < 1.5
    # An untrained model has no loss to recover.
    assert {row["family"] for row in table(folder / "splice_all.csv")} == families - {
        "step0-transcoder"
    }
    for row in rows:
        assert (row["loss_recovered"] == "") == FAMILIES[row["family"]].untrained_model
    assert len(table(folder / "ablation.csv")) == 4
    assert {row["family"] for row in table(folder / "native.csv")} == {"native", "random-native"}

    summary = json.loads((folder / "summary.json").read_text())
    model = load(paths.checkpoint("sparse", 0, 5))
    counted = {name: p.numel() for name, p in model.named_parameters()}
    sparse = summary["models"]["sparse"]
    assert sparse["parameters"] == sum(counted.values())
    ends = counted["gpt_neox.embed_in.weight"] + counted["lm_head.weight"]
    assert sparse["parameters_without_embeddings"] == sum(counted.values()) - ends
    assert sparse["training_tokens"] == 320
    flops = compute.model(compute.Architecture.of(model.config.to_dict(), project.data.ctx_len))
    assert sparse["training_flops"] == 320 * flops.training
    coder = summary["coders"]["transcoder"]
    assert coder["parameters"] == 2 * (64 * 16 + 64 + 64 * 16 + 16)
    own = compute.coder(FAMILIES["transcoder"], d_in=16, num_latents=64, k=4)
    assert coder["flops_per_token_forward"] == 2 * own.forward
    assert coder["flops_per_token_training"] == 2 * own.training
    assert coder["training_tokens"] == project.coders.tokens
    assert summary["coders"]["random-sae"]["training_flops"] == 0

    metrics = json.loads(paths.metrics("evaluate").read_text())["seed-0"]
    assert metrics["heldout_loss_dense"] == summary["models"]["dense"]["heldout_loss"]
    assert metrics["fvu_sae"] == pytest.approx((fvu["sae", "0"] + fvu["sae", "1"]) / 2)

    folder.rename("aside")
    evaluate.run(project, runtime=RUNTIME)
    assert content(folder) == first


def test_evaluate_without_coders(project):
    bare = project.model_copy(update={"families": ()})
    evaluate.run(bare, runtime=RUNTIME)
    assert table(paths.evaluate(0) / "coders.csv") == []
    assert len(table(paths.evaluate(0) / "ablation.csv")) == 4


def test_fixed_rows_are_spread_over_the_split():
    assert evenly_spaced(5, 256).tolist() == [0, 1, 2, 3, 4]
    chosen = evenly_spaced(1000, 256)
    assert len(set(chosen.tolist())) == 256
    assert chosen[0] == 0
    assert chosen[-1] >= 990


@pytest.mark.gpu
def test_coders_train_on_a_gpu(project):
    sparsify.run(project, runtime=Runtime("cpu", 1), families=["transcoder"])
    on_cpu = load_coder(paths.coders("transcoder", 0) / "layers.0.mlp")
    paths.coders("transcoder", 0).rename("aside")
    sparsify.run(project, runtime=Runtime("cuda", 1), families=["transcoder"])
    on_gpu = load_coder(paths.coders("transcoder", 0) / "layers.0.mlp")
    torch.testing.assert_close(on_cpu.W_dec, on_gpu.W_dec, rtol=0.05, atol=5e-3)
