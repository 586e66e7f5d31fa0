"""`clearnets execute` on a tiny pipeline: every kind of family, kills, and mistakes of the user."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from safetensors.numpy import load_file

from clearnets import UserError, config
from clearnets.autointerp.execution import EXACT, NAMES, ROWS
from clearnets.coders import batches, substitution
from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import JsonlWriter, read_json, read_jsonl
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import cache, execute, words

RUNTIME = Runtime(device="cpu", threads=1)
SOME = ("native", "transcoder", "sae", "neurons", "random-native", "random-transcoder")
POINTS = ["layers.0.mlp", "layers.1.mlp"]


def settings(**over):
    """The tiny experiment with text enough for explanations."""
    values = tiny.config().model_dump(mode="json")
    values["explain"] |= {"min_windows": 2, "n_examples_train": 4, "n_non_activating": 4}
    values["execute"] |= {"families": ["all"], "rows": 9, "fit_rows": 30} | over
    return config.parse(values, "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Models, coders and caches."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data(rows=40)
        words.run(settings(), runtime=RUNTIME)
        tiny.make_models()
        tiny.make_coders()
        for family in SOME:
            cache.run(settings(), runtime=RUNTIME, families=[family])
    return folder / "artifacts"


@pytest.fixture(autouse=True)
def _place(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "artifacts")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("family", SOME)
def test_every_kind_of_family(family):
    execute.run(settings(), runtime=RUNTIME, family=family)
    folder, spec = paths.execute(family, tiny.SEED), FAMILIES[family]
    sums, summary = load_file(folder / ROWS), read_json(folder / "summary.json")
    names = summary["stand_ins"]
    assert names == [n for n in NAMES if n != "token-latents" or spec.kind != "native"]
    assert sums["nll"].shape == sums["kl"].shape == (3, len(names), 9)
    assert (sums["tokens"] > 0).all()
    exact = names.index(EXACT)
    assert not sums["kl"][:, exact].any()
    whole = np.allclose(sums["nll"][:, exact], sums["clean"])
    assert whole == (spec.kind == "native")
    divergence = sums["kl"].sum(axis=-1)
    better, worse = (divergence[:2, names.index(name)] for name in ("bits", "mean"))
    assert (better < worse).all()
    assert list(summary["share_kept"]) == [*POINTS, "all", "later"]
    assert read_json(paths.metrics(f"execute-{family}")) == {"seed-0": summary["share_kept"]}
    for point in POINTS:
        records = read_jsonl(folder / "latents" / f"{point}.jsonl")
        assert [record["latent"] for record in records] == list(range(len(records)))
        assert len(records) == summary["layers"][point]["latents"]
        explained = [record for record in records if record["explanation"]]
        assert len(explained) == summary["layers"][point]["explained"] > 0
        for record in records:
            assert record["explanation"] or record["on"] == record["off"]
            assert record["norm"] > 0 or record["on"] == 0


def test_explanations_are_those_of_explain():
    from clearnets.stages import explain

    settings_ = settings()
    execute.run(settings_, runtime=RUNTIME, family="transcoder")
    explain.run(settings_, runtime=RUNTIME, family="transcoder", layers=(0, 1))
    for point in POINTS:
        sample = read_jsonl(paths.explain("transcoder", 0, point) / "explanations.jsonl")
        every = read_jsonl(paths.execute("transcoder", 0) / "latents" / f"{point}.jsonl")
        assert len(sample) == len(every) == tiny.LATENTS
        for one, same in zip(sample, every):
            assert one == {key: same[key] for key in one}


def test_a_killed_run_goes_on_and_writes_the_same_bytes(monkeypatch):
    monkeypatch.setattr(batches, "BATCH_ROWS", 4)
    execute.run(settings(), runtime=RUNTIME, family="transcoder")
    folder = paths.execute("transcoder", tiny.SEED)
    straight = contents(folder)
    shutil.rmtree(folder)

    append, measure = JsonlWriter.append, substitution.measure
    told, measured = [], []

    def killed(self, record):
        if len(told) == tiny.LATENTS + 5:
            raise KeyboardInterrupt
        told.append(record["latent"])
        append(self, record)

    def killed_later(*args):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(args)
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlWriter, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            execute.run(settings(), runtime=RUNTIME, family="transcoder")
    with monkeypatch.context() as patch:
        patch.setattr(substitution, "measure", killed_later)
        with pytest.raises(KeyboardInterrupt):
            execute.run(settings(), runtime=RUNTIME, family="transcoder")
    assert not folder.exists()
    with monkeypatch.context() as patch:
        patch.setattr(JsonlWriter, "append", lambda *_: pytest.fail("explained again"))
        patch.setattr(
            substitution, "measure", lambda *args: measured.append(args) or measure(*args)
        )
        execute.run(settings(), runtime=RUNTIME, family="transcoder")
    assert len(measured) == 3
    assert contents(folder) == straight


def test_the_shuffling_has_a_seed_and_the_rest_is_the_same():
    found = []
    for seed in (0, 0, 1):
        shutil.rmtree(paths.execute("transcoder", tiny.SEED), ignore_errors=True)
        execute.run(settings(seed=seed), runtime=RUNTIME, family="transcoder")
        found.append(load_file(paths.execute("transcoder", tiny.SEED) / ROWS)["nll"])
    assert np.array_equal(found[0], found[1])
    different = {name for i, name in enumerate(NAMES) if (found[1][:, i] != found[2][:, i]).any()}
    assert different == {"shuffled"}


def test_which_families_are_executed():
    base = tiny.config()
    assert settings().executed_families == tuple(f for f in base.families if FAMILIES[f].model)
    # Those of a list that the experiment compares.
    some = settings(families=["sae", "step0-sae", "native"])
    assert some.executed_families == ("native", "sae")


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"families": ["token-unigram"]}, "nothing can stand in for the latents of token-unigram"),
        ({"families": ["cross-layer-transcoder"]}, "cross-layer-transcoder, which do not write"),
        ({"families": ["sea"]}, "unknown family"),
        ({"rows": 0}, "execute.rows"),
        ({"ridge": 0.0}, "execute.ridge"),
    ],
)
def test_bad_parameters_give_one_line(over, said):
    with pytest.raises(UserError) as error:
        settings(**over)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_cache_names_its_stage():
    shutil.rmtree(paths.cache("sae", tiny.SEED, "explain"))
    with pytest.raises(UserError, match="dvc repro cache@sae"):
        execute.run(settings(), runtime=RUNTIME, family="sae")
