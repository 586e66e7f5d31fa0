"""The search for recipes: its trials against the stages and a loop, a kill, the table, errors."""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from clearnets import UserError, config
from clearnets.analysis import tuning
from clearnets.coders import evaluation
from clearnets.config.choices import parse_subject
from clearnets.families import FAMILIES
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, build_all, check, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import evaluate, sparsify, tune
from clearnets.training import language

sys.path.insert(0, str(Path(__file__).parents[1] / "coders"))

import tiny_pair

CPU = Runtime(device="cpu", threads=1)
RATES = [0.02, 0.05]
SMALL = {"batch_size": 4, "warmup_steps": 2, "eval_steps": 5}


def searching(**over) -> config.Config:
    search = {
        "models": ["sparse"],
        "families": ["transcoder"],
        "train": {"learning_rate": RATES},
        "coders": {"learning_rate": [0.01], "tokens": [256, 512]},
    }
    return tiny_pair.tiny_config(**{"tune": search, "train": SMALL, **over})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project up to `match`, with the trials of a model and of a family."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tiny_pair.write_project()
        for subject in ("sparse", "transcoder"):
            tune.run(searching(), runtime=CPU, subject=subject)
    return root


def trials(root: Path, subject: str) -> list[bytes]:
    return [(root / paths.tune(subject, 0, n) / "trial.json").read_bytes() for n in (0, 1)]


def test_a_trial_of_a_model_is_a_training_with_its_values(project, monkeypatch):
    monkeypatch.chdir(project)
    ids = {name: getattr(tiny_pair, name.upper()) for name in ("pad", "bos", "eos")}
    valid_BS = np.load(paths.data() / "tokens" / "valid.npy").astype(np.int64)
    losses = []
    for number, rate in enumerate(RATES):
        trial = paths.tune("sparse", 0, number)
        check(trial)
        found = read_json(trial / "trial.json")
        assert found["values"] == {"learning_rate": rate}
        assert found["tokens"] == 80 * tiny_pair.CTX
        assert 0 <= found["dead"] < 1
        losses.append(found["valid_loss"])
    assert losses[0] != losses[1]
    # The last again, by the trainer alone; its loss document by document.
    model = _trained(searching(train={**SMALL, "learning_rate": RATES[-1]}), ids)
    nll, count = 0.0, 0
    for row in valid_BS:
        ids_S = torch.from_numpy(row[row != tiny_pair.PAD])
        with torch.no_grad():
            logits = model(input_ids=ids_S[None]).logits[0, :-1]
        nll += functional.cross_entropy(logits, ids_S[1:], reduction="sum").item()
        count += len(ids_S) - 1
    assert losses[-1] == pytest.approx(nll / count, abs=1e-4)


def _trained(settings: config.Config, ids: dict[str, int]):
    from clearnets.data.tokens import open_tokens
    from clearnets.models.sparse_gptneox import build_model
    from clearnets.pipeline.runtime import seed_for

    size = {"vocab_size": tiny_pair.VOCAB, "ctx_len": tiny_pair.CTX}
    model = build_model(settings.model, mlp="sparse", seed=seed_for(0, "init"), **size, **ids)
    text = language.Text.of(open_tokens(paths.data()), within=settings.model.attention == "within")
    Path("again").mkdir()
    run = language.Run(0, Path("again"), Path("again"), torch.device("cpu"))
    language.train(model, settings.train.of("sparse"), text, run)
    return model


def test_a_trial_of_coders_is_what_their_stages_measure(project, monkeypatch):
    """With the values of a trial as parameters, `sparsify` and `evaluate` find the same."""
    monkeypatch.setattr(processes, "cores", lambda: 1)
    tiny_pair.write_project()
    settings = searching(families=["transcoder"], coders={"learning_rate": 0.01, "tokens": 512})
    sparsify.run(settings, runtime=CPU, families=["transcoder"])
    evaluate.run(settings, runtime=CPU)
    few, found = [
        read_json(project / paths.tune("transcoder", 0, n) / "trial.json") for n in (0, 1)
    ]
    assert found["values"] == {"learning_rate": 0.01, "tokens": 512}
    assert (few["tokens"], found["tokens"]) == (256, 512)
    with (paths.evaluate(0) / "coders.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for key in ("fvu", "l0", "dead"):
        mean = statistics.fmean(float(row[key]) for row in rows)
        assert found[key] == pytest.approx(mean, rel=1e-5), key
    with (paths.evaluate(0) / "splice_all.csv").open(newline="") as file:
        (spliced,) = csv.DictReader(file)
    cost = float(spliced["loss_splice"]) - float(spliced["loss_clean"])
    assert found["spliced_nats"] == pytest.approx(cost, abs=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("subject", ["sparse", "transcoder"])
def test_a_killed_search_goes_on_to_the_same_bytes(subject, project, monkeypatch):
    """It is killed in the second trial: a model within its training, coders when measured."""
    tiny_pair.write_project()
    steps, step = [], language._Loop.train_step

    def counted(loop, *, last: int = 1000):
        if len(steps) == last:
            raise Killed
        steps.append(loop.step)
        step(loop)

    def unmeasured(*_: object) -> None:
        if any(paths.WORK.rglob("trial.json")):
            raise Killed
        return splice(*_)

    splice = evaluation.splice_all
    with monkeypatch.context() as patch:
        patch.setattr(language._Loop, "train_step", lambda loop: counted(loop, last=33))
        patch.setattr(evaluation, "splice_all", unmeasured)
        with pytest.raises(Killed):
            tune.run(searching(), runtime=CPU, subject=subject)
    assert not paths.tune(subject, 0, 0).exists()
    monkeypatch.setattr(language._Loop, "train_step", counted)
    tune.run(searching(), runtime=CPU, subject=subject)
    # The state of step 10 of the second trial is gone on from.
    assert len(steps) == (33 + 10 if subject == "sparse" else 0)
    assert trials(Path(), subject) == trials(project, subject)


def test_a_trial_has_its_rate_where_the_family_has_one_of_its_own():
    rates = {family: 0.5 for family in searching().coder_families if FAMILIES[family].trained}
    settings = searching(coders={"learning_rate": rates})
    tried = tune._with(settings, "coders", {"learning_rate": 0.01})
    assert (settings.coders.rate("transcoder"), tried.coders.rate("transcoder")) == (0.5, 0.01)


def test_the_best_has_the_lowest_mean_over_seeds():
    """The seed with the lowest single loss isn't that of the best mean."""
    settings = searching(seeds=[0, 1])
    losses = {("sparse", 0): [1.0, 3.0], ("sparse", 1): [1.5, 1.7]}
    losses |= {("transcoder", 0): [0.3, 0.3], ("transcoder", 1): [0.1, 0.6]}
    for (subject, number), by_seed in losses.items():
        key = "valid_loss" if subject == "sparse" else "fvu"
        values = list(settings.tune.trials(subject))[number]
        for seed, loss in enumerate(by_seed):
            out = paths.tune(subject, seed, number)
            for _, work in build_all([Unit("tune", out, {"seed": seed, "n": number}, {})]):
                write_json(work.out / "trial.json", {"values": values, key: loss})
    frame = tuning.make(settings)["tuning"]
    best = {(row["subject"], row["trial"]) for row in frame[frame["best"]].to_dict("records")}
    assert best == {
        min((s for s in losses if s[0] == subject), key=lambda s: statistics.fmean(losses[s]))
        for subject in settings.tune.subjects
    }
    assert best == {("sparse", 1), ("transcoder", 0)}
    models = settings.tune.model_copy(update={"families": ()})
    alone = tuning.make(settings.model_copy(update={"tune": models}))["tuning"]
    assert alone["best"].tolist() == frame["best"].tolist()[:4] == [False, True] * 2
    assert "–" in tuning.markdown(alone)
    lines = tuning.markdown(frame).splitlines()
    assert [line.startswith("| sparse") for line in lines if "best" in line] == [True, False]
    assert "| 1.6 |" in next(line for line in lines if "best" in line)


def test_mistakes_are_one_line_that_names_the_cure():
    settings = searching()
    with pytest.raises(UserError, match=r"add it to `tune\.models` or `tune\.families`"):
        parse_subject("sae", settings)
    with pytest.raises(UserError, match="run `dvc repro tune@sparse` first"):
        tuning.make(settings)
    with pytest.raises(UserError, match="the section train has no key 'rate'"):
        searching(tune={"train": {"rate": [1]}})
    with pytest.raises(UserError, match=r"a trial of .*train\.batch_size"):
        tune._with(settings, "train", {"batch_size": 0})
