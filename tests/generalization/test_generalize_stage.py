"""`clearnets generalize`: resumed, repeated and wrong, at the tests' size."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import tiny_bases
import torch

from clearnets import UserError, config
from clearnets.data.tokenizer import save_tokenizer, train_tokenizer
from clearnets.generalization import grokking, registry, run_tables
from clearnets.generalization.checkpoints import CheckpointsTask
from clearnets.generalization.grokking import GrokkingTask
from clearnets.generalization.tasks import curve
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import MANIFEST, Unit, build_all, write_json
from clearnets.pipeline.progress import Progress
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import generalize

ROOT = Path(__file__).parents[2]
CPU = Runtime(device="cpu", threads=1)
CTX = 16


def parameters(**over) -> config.Config:
    """The tests' experiment with `over` above its section `generalize`."""
    base = config.read_yaml(ROOT / "params.yaml")
    smoke = config.overlay(base, config.read_yaml(ROOT / "experiments/smoke.yaml"))
    return config.parse(config.overlay(smoke, {"generalize": over}), "smoke")


def files(task: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.generalize(task).iterdir()}


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    cfg = parameters()
    (tmp_path / "straight").mkdir()
    monkeypatch.chdir(tmp_path / "straight")
    generalize.run(cfg, runtime=CPU, task="grokking")
    straight = files("grokking")

    (tmp_path / "killed").mkdir()
    monkeypatch.chdir(tmp_path / "killed")
    monkeypatch.setattr(grokking, "SAVE_SECONDS", 0)
    began = []
    # Three times in training, once while runs are observed.
    for left in (13, 20, 5, 2):
        for module in (generalize, run_tables):
            monkeypatch.setattr(module, "progress", _killer(left, began))
        with pytest.raises(KeyboardInterrupt):
            generalize.run(cfg, runtime=CPU, task="grokking")
        assert not paths.generalize("grokking").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "killed")
    generalize.run(cfg, runtime=CPU, task="grokking")
    assert files("grokking") == straight
    # It went on from where it was stopped, in the first variant and in the second.
    assert {13, 20} <= set(began)


def _killer(left: int, began: list[int]):
    """A progress bar that stops the process, as it were, after so many steps of its own."""

    class Bar(Progress):
        def __init__(self) -> None:
            super().__init__("", None, "", quiet=True)
            self.left = left

        def advance(self, amount: int = 1, note: str = "") -> None:
            if not note:
                began.append(amount)  # what an earlier run had done
                return
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    @contextmanager
    def progress(*_: object, **__: object):
        yield Bar()

    return progress


def test_tables_hold_every_checkpoint_of_every_run():
    cfg = parameters()
    generalize.run(cfg, runtime=CPU, task="grokking")
    folder = paths.generalize("grokking")
    runs, curves, measures = (
        pd.read_csv(folder / f"{name}.csv") for name in ("runs", "curves", "measures")
    )
    assert list(runs["run"]) == ["dense-0", "dense-1", "sparse-0", "sparse-1"]
    np.testing.assert_allclose(runs["gap"], runs["test_loss"] - runs["train_loss"], atol=1e-4)
    steps = measures.groupby("run")["step"].unique().map(list)
    assert all(list(s) == [0, 1, 3, 7, 20] for s in steps)
    assert set(measures["step"]) <= set(curves["step"])
    sparse = measures[(measures["run"] == "sparse-0") & (measures["hookpoint"] == "mlp")]
    dense = measures[(measures["run"] == "dense-0") & (measures["hookpoint"] == "mlp")]
    # A feedforward that is sparse by construction has no coder.
    assert sparse["fvu"].isna().all()
    assert dense["fvu"].notna().all()
    assert (sparse["l0"] <= cfg.generalize.grokking.k).all()
    assert (dense["l0"] <= cfg.generalize.coders.k).all()
    # Features can only be compared with those of a checkpoint before.
    assert dense.set_index("step")["stability"].isna().tolist() == [True, *[False] * 4]


def test_singular_values_have_a_table_of_their_own_where_they_are_asked_for():
    small = {"variants": ["dense"], "seeds": [0], "checkpoints": 3}
    found = []
    for count in (0, 2):
        generalize.run(parameters(grokking=small, spectra=count), runtime=CPU, task="grokking")
        found.append({name: data for name, data in files("grokking").items() if name != MANIFEST})
    table = found[1].pop("spectra.csv")
    assert found[0] == found[1]
    spectra = pd.read_csv(io.BytesIO(table))
    assert list(spectra)[-2:] == ["sigma_1", "sigma_2"]
    assert set(spectra["weight"]) > {"W_E_PD", "attention.W_Q_DD", "mlp.W_in_DF"}
    measures = pd.read_csv(io.BytesIO(found[0]["measures.csv"]))
    whole = measures[measures["hookpoint"].isna()].set_index("step")
    for kind in ("weight", "change"):
        largest = spectra[spectra["of"] == kind].groupby("step")["sigma_1"].mean()
        np.testing.assert_allclose(largest, whole[f"{kind}_spectral_norm"], rtol=1e-4)


def test_coders_of_language_models_may_read_the_residual_stream(tmp_path):
    vocab = make_text()
    model = tiny_bases.make("gpt2", vocab_size=vocab, eos=2, bos=1)
    model.save_pretrained(tmp_path / "models" / "step5")
    over = {"tasks": ["checkpoints"], "checkpoints": {"name": "models", "rows": 4}}
    cfg = parameters(**over, coders={"reads": "input", "k": 2})
    generalize.run(cfg, runtime=CPU, task="checkpoints")
    measures = pd.read_csv(paths.generalize("checkpoints") / "measures.csv").dropna(subset="fvu")
    rows_BS = torch.from_numpy(np.load(paths.data() / "tokens/valid.npy")[:4].astype(np.int64))
    with torch.no_grad():
        streams = model(rows_BS, output_hidden_states=True).hidden_states
    # Neither bos, which begins every row, nor padding is measured.
    counted_BS = rows_BS > 1
    # The first and the last of three layers.
    assert measures["hookpoint"].tolist() == ["h.0", "h.2"]
    for norm, layer in zip(measures["norm_mean"], (0, 2)):
        norms = streams[layer].norm(dim=-1)[counted_BS]
        assert norm == pytest.approx(float(norms.mean()), rel=1e-4)


def test_losses_are_those_of_the_checkpoints(tmp_path):
    task = GrokkingTask(parameters().generalize.grokking)
    task.train(tmp_path, device=torch.device("cpu"), bar=Progress("", None, "", quiet=True))
    run = task.runs()[1]
    rows = {row["step"]: row for row in curve(run, tmp_path)}
    for step in task.checkpoints(run, tmp_path):
        model = task.model(run, tmp_path, step)
        for split in ("train", "test"):
            (batch,) = task.batches(run, split)
            with torch.no_grad():
                logits = task.logits(model, batch)
            loss = torch.nn.functional.cross_entropy(logits.double(), batch.labels_N)
            assert float(loss) == pytest.approx(rows[step][f"{split}_loss"], rel=1e-5)
            right = (logits.argmax(1) == batch.labels_N).double().mean()
            assert float(right) == pytest.approx(rows[step][f"{split}_accuracy"])


@pytest.mark.nightly
def test_the_number_of_threads_changes_no_byte(tmp_path, monkeypatch):
    # Large enough for torch to divide a product among its threads.
    options = {"modulus": 31, "hidden_size": 64, "mlp_size": 256, "steps": 10}
    found = []
    for threads in (1, 2):
        (tmp_path / str(threads)).mkdir()
        monkeypatch.chdir(tmp_path / str(threads))
        runtime = Runtime("cpu", threads)
        generalize.run(parameters(grokking=options), runtime=runtime, task="grokking")
        found.append(files("grokking"))
    torch.set_num_threads(1)
    tables = [{name: table for name, table in one.items() if name.endswith("csv")} for one in found]
    assert tables[0] == tables[1]


def test_a_run_trains_on_one_thread_of_many(tmp_path, monkeypatch):
    seen, losses = set(), grokking.losses

    def watched(*arguments):
        seen.add(torch.get_num_threads())
        return losses(*arguments)

    monkeypatch.setattr(grokking, "losses", watched)
    cfg = parameters(grokking={"variants": ["sparse"], "seeds": [0], "steps": 3})
    assert cfg.generalize.grokking is not None
    bar = Progress("", None, "", quiet=True)
    before = torch.get_num_threads()
    device = Runtime("cpu", threads=2).torch_device()
    GrokkingTask(cfg.generalize.grokking).train(tmp_path, device=device, bar=bar)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (seen, after) == ({1}, 2)


def test_training_that_diverges_is_refused_in_a_line():
    cfg = parameters(grokking={"learning_rate": 1e38})
    with pytest.raises(UserError, match=r"training diverged before step .*lower its learning_rate"):
        generalize.run(cfg, runtime=CPU, task="grokking")
    assert not (paths.generalize("grokking") / MANIFEST).exists()


def test_splits_hold_each_pair_once_and_differ_by_seed():
    task = GrokkingTask(parameters().generalize.grokking)
    seen = {}
    for run in task.runs():
        pairs = {
            split: {tuple(p) for batch in task.batches(run, split) for p in batch.inputs.tolist()}
            for split in ("train", "test")
        }
        assert not pairs["train"] & pairs["test"]
        assert len(pairs["train"] | pairs["test"]) == 49
        seen[run.name] = pairs["train"]
    assert seen["dense-0"] == seen["sparse-0"] != seen["dense-1"]


def make_text() -> int:
    """A data unit with random rows; gives its vocabulary."""
    tokenizer = train_tokenizer(["the fox said no to the cat"] * 3, vocab_size=270)
    vocab = tokenizer.get_vocab_size()
    rng = np.random.default_rng(0)
    for _, work in build_all([Unit("data", paths.data(), {}, {})]):
        save_tokenizer(tokenizer, work.out / "tokenizer", ctx_len=CTX)
        meta = {"vocab_size": vocab, "ctx_len": CTX, "pad": 0, "bos": 1, "eos": 2, "concepts": []}
        write_json(work.out / "meta.json", meta)
        (work.out / "tokens").mkdir()
        for split in ("train", "valid"):
            tokens_RS = rng.integers(3, vocab, (6, CTX)).astype(np.uint16)
            tokens_RS[:, 0], tokens_RS[1, 9:] = 1, 0
            np.save(work.out / "tokens" / f"{split}.npy", tokens_RS)
    return vocab


def named(name: str | None) -> config.Config:
    return parameters(tasks=["checkpoints"], checkpoints={"name": name, "rows": 4})


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2"])
def test_revisions_of_a_model_in_a_folder(kind, tmp_path):
    vocab = make_text()
    model = tiny_bases.make(kind, vocab_size=vocab, eos=2, bos=1)
    for step in (0, 1, 8, 60, 64, 1000):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        model.save_pretrained(tmp_path / "models" / f"step{step}")
    cfg = named("models")
    generalize.run(cfg, runtime=CPU, task="checkpoints")
    curves = pd.read_csv(paths.generalize("checkpoints") / "curves.csv")
    # Four checkpoints, log-spaced: 0, 1, 32 and 1000, or the nearest that are there.
    assert curves["step"].tolist() == [0, 1, 8, 1000]
    # Neither split is what the model was trained on.
    runs = pd.read_csv(paths.generalize("checkpoints") / "runs.csv")
    assert curves[["train_loss", "train_accuracy"]].isna().all(axis=None)
    assert runs[["train_loss", "gap"]].isna().all(axis=None)
    rows = np.load(paths.data() / "tokens/valid.npy")[:4].astype(np.int64)
    nats, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = model(torch.from_numpy(row)[None]).logits[0].double().log_softmax(-1)
            for place in range(CTX - 1):
                if row[place + 1] != 0:
                    nats -= float(logits[place, row[place + 1]])
                    count += 1
    assert curves["test_loss"].iloc[-1] == pytest.approx(nats / count, rel=1e-4)


def test_a_named_model_does_not_depend_on_the_models_that_are_trained_here(tmp_path):
    vocab = make_text()
    tiny_bases.make("gpt2", vocab_size=vocab, eos=2, bos=1).save_pretrained(
        tmp_path / "m" / "step0"
    )
    logits = []
    for attention in ("across", "within"):
        cfg = named("m")
        model = cfg.model.model_copy(update={"attention": attention})
        cfg = cfg.model_copy(update={"model": model})
        assert cfg.generalize.checkpoints is not None
        task = CheckpointsTask(cfg.generalize.checkpoints, cfg)
        (run,) = task.runs()
        batch = next(task.batches(run, "test"))
        with torch.no_grad():
            logits.append(task.logits(task.model(run, tmp_path, 0), batch))
    assert torch.equal(*logits)


def test_a_checkpoint_whose_loss_is_no_number_is_refused_in_a_line(tmp_path):
    vocab = make_text()
    model = tiny_bases.make("gpt_neox", vocab_size=vocab, eos=2, bos=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken" / "step5")
    with pytest.raises(UserError, match="diverged before step 5"):
        generalize.run(named("broken"), runtime=CPU, task="checkpoints")


def test_a_gpu_observes_one_run_at_a_time(monkeypatch):
    workers_of = []
    monkeypatch.setattr(
        run_tables, "each", lambda *_, workers, **__: workers_of.append(workers) or iter(())
    )
    monkeypatch.setattr(run_tables, "cores", lambda: 3)
    cfg = parameters()
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(Runtime, "torch_device", lambda _, name=device: torch.device(name))
        list(run_tables._measured([], "grokking", cfg, paths.ARTIFACTS, Runtime()))
    assert workers_of == [3, 1]


def test_what_cannot_be_read_is_refused_in_a_line(tmp_path):
    make_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoints named by their step"):
        generalize.run(named("empty"), runtime=CPU, task="checkpoints")
    small = tiny_bases.make("gpt_neox", vocab_size=20, eos=2, bos=1)
    small.save_pretrained(tmp_path / "small" / "step5")
    with pytest.raises(UserError, match="knows 20 tokens"):
        generalize.run(named("small"), runtime=CPU, task="checkpoints")
    with pytest.raises(UserError, match="no such folder"):
        generalize.run(named("not/a/place"), runtime=CPU, task="checkpoints")
    assert not (paths.generalize("checkpoints") / MANIFEST).exists()


def test_own_checkpoints_are_named_by_their_model_and_seed():
    cfg = parameters()
    assert cfg.generalize.checkpoints is not None
    task = CheckpointsTask(cfg.generalize.checkpoints, cfg)
    assert [run.name for run in task.runs()] == ["dense-seed-0", "sparse-seed-0"]
    (unit,) = generalize.units(cfg, task="checkpoints")
    assert list(unit.inputs) == ["data", *(f"train/{run.name}" for run in task.runs())]


def test_the_table_of_tasks_is_that_of_the_parameters():
    assert tuple(registry.TASKS) == config.TASKS
    fields = config.Generalize.model_fields
    for name, spec in registry.TASKS.items():
        assert get_args(fields[name].annotation) == (spec.settings, type(None))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"grokking": {"modulus": 51}}, "modulus must be a prime"),
        ({"grokking": {"k": 5}}, "multiple of k"),
        ({"grokking": {"seeds": [1, 0, 1]}}, "grokking: .*seeds must differ from each other"),
        ({"grokking": {"train_share": 0.009}}, "train_share leaves none of the 49 pairs"),
        ({"grokking": {"train_share": 0.999}}, "train_share leaves none of the 49 pairs"),
        ({"coders": {"k": 65}}, "coders.k is 65, and coders of a width of .* lower k or raise"),
        ({"coders": {"reads": "block"}}, "generalize.coders.reads: .*'output' or 'input'"),
        ({"coders": {"data": "mine"}}, "generalize.coders.data: .*'shared' or 'own'"),
        ({"spectra": -1}, "generalize.spectra: .*greater than or equal to 0"),
        ({"grokking": {"checkpoints": 2}}, "greater than or equal to 3"),
        ({"grokking": None}, "tasks: grokking needs its parameters"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(over, message):
    with pytest.raises(UserError, match=message):
        parameters(**over)
