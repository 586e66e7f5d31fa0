"""The whole pipeline at smoke size, through the real DVC and the real command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path

import pytest
import warm
from ruamel.yaml import YAML
from smoke_checkout import BIN, clone, environment, out_hashes, with_source

from clearnets.data.storybook import stories

YAML_ = YAML(typ="safe")


@pytest.fixture(scope="module", autouse=True)
def _commands(tmp_path_factory):
    """The commands in front of all others."""
    with (
        warm.commands(tmp_path_factory.mktemp("commands")) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        for each in (BIN, folder):
            patch.setenv("PATH", str(each), prepend=os.pathsep)
        yield


def run(*words: str, at: Path, code: int = 0) -> str:
    done = subprocess.run(
        words,
        cwd=at,
        env=with_source(at),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A clone in which the smoke experiment has been run."""
    folder = clone(tmp_path_factory.mktemp("home"))
    run("clearnets", "exp", "smoke", at=folder)
    return folder


def place(home: Path) -> Path:
    return home / ".clearnets/exp/smoke"


def ran(output: str) -> list[str]:
    """The stages that `clearnets repro`, or `dvc repro`, says it has run."""
    lines = re.findall(r"^\[ *\d+/\d+.*?\] (.*?)  |^Running stage '(.*?)':", output, re.M)
    return [name for ours, dvcs in lines for name in (ours or dvcs).split()]


def test_small_results_come_home_with_their_provenance(home):
    results = home / "paper/results/smoke"
    for name in ("summary.csv", "summary.md", "latents.csv", "dvc.lock", "params.yaml"):
        assert (results / name).stat().st_size > 0
    head = run("git", "rev-parse", "HEAD", at=home).strip()
    assert (results / "commit.txt").read_text().strip() == head
    assert YAML_.load((results / "params.yaml").read_text())["experiment"] == "smoke"
    assert run("git", "status", "--short", at=home) == ""


def test_figures_are_drawn(home):
    figures = place(home) / "paper/figures"
    assert {p.stem for p in figures.glob("*.pdf")} == {p.stem for p in figures.glob("*.svg")}
    assert len(list(figures.glob("*.pdf"))) >= 5
    at_home = home / "paper/results/smoke/figures"
    drawn = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert {path.name: path.read_bytes() for path in at_home.iterdir()} == drawn


def test_the_report_of_the_experiment_is_made(home):
    paper = place(home) / "paper"
    assert (paper / "clearnets.pdf").read_bytes().startswith(b"%PDF")
    assert "native" in (paper / "tables/summary.tex").read_text()


def test_a_second_run_does_nothing_and_status_is_clean(home):
    assert ran(run("clearnets", "exp", "smoke", at=home)) == []
    assert "up to date" in run("dvc", "status", at=place(home))


def test_stages_made_anew_from_their_recorded_inputs_have_the_same_bytes(home):
    before = run("git", "status", "--short", at=place(home))
    said = run("clearnets", "verify", "--experiment", "smoke", "--rerun", "2", at=home)
    assert re.search(r"^(\d+) of \1 stages as recorded$", said, re.M)
    assert len(re.findall(r"^\S+: the same bytes, \d+ files? in \d+ s$", said, re.M)) == 2
    assert run("git", "status", "--short", at=place(home)) == before
    assert not list((place(home) / ".clearnets/work").glob("rerun-*"))


def test_its_checks_pass_and_one_that_fails_is_told(home):
    said = run("clearnets", "claims", "--experiment", "smoke", at=home)
    assert said.splitlines()[-1] == "10 PASS"
    layers = home / "paper/results/smoke/layers.csv"
    before = layers.read_text()
    # As many bytes: the manifest tells the size.
    layers.write_text(re.sub(r"(family,groupmax-transcoder,0,0,.*?,0.01,0\.)\d", r"\g<1>9", before))
    said = run("clearnets", "claims", "--experiment", "smoke", at=home, code=1)
    (failed,) = (line for line in said.splitlines() if "\tFAIL\t" in line)
    name, found = failed.split("\t")[1::3]
    assert name == "transcoders-fit"
    assert re.fullmatch(r"fvu = 0\.9\d*, below 0\.75 \(1 of 2 rows\)", found)
    layers.write_text(before)


@pytest.mark.nightly
def test_make_quick_ends_with_its_checks_and_changes_nothing_in_the_checkout(tmp_path):
    folder = clone(tmp_path)
    said = run("make", "-o", "env", "quick", f"BIN={BIN}", at=folder)
    assert "10 PASS" in said.splitlines()
    assert run("git", "status", "--short", at=folder) == ""


@pytest.mark.parametrize("layers", ["0-1", "1"])
def test_a_stage_by_hand_leaves_dvc_status_clean(home, layers):
    command = ["clearnets", "explain", "--aux", "groupmax-transcoder", "--layers", layers]
    run(*command, at=place(home))
    shutil.rmtree(place(home) / "artifacts/explain/groupmax-transcoder/seed-0/layers.1.mlp")
    run(*command, at=place(home))
    assert "up to date" in run("dvc", "status", at=place(home))


def kill_in(stage: str, at: Path) -> None:
    """SIGKILL `dvc repro` with all its children once a stage has begun to write. Only that stage is
    asked for, with what it needs: DVC runs others before it or after it as it likes.

    Coders of this size are written at once at their end, too fast to be met: there the stage has
    begun with its folder."""
    begun = "*/*" if stage == "sparsify" else "*/*/**/*"
    process = subprocess.Popen(
        [BIN / "dvc", "repro", stage],
        cwd=at,
        # The real commands, which die with the group.
        env=environment(at),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    work = at / ".clearnets/work" / stage
    while not any(path.is_file() or stage == "sparsify" for path in work.glob(begun)):
        assert process.poll() is None, f"the run ended before {stage} wrote anything"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(work.glob(begun)), "killed too late"


@pytest.mark.nightly
def test_a_fresh_folder_and_kills_on_the_way_give_the_same_hashes(home, tmp_path):
    folder = clone(tmp_path)
    shutil.copyfile(place(home) / "params.yaml", folder / "params.yaml")
    run("clearnets", "plan", at=folder)
    for stage in ("train", "sparsify", "cache", "explain", "similarity", "overlap"):
        kill_in(stage, folder)
    run("dvc", "repro", at=folder)
    assert out_hashes(folder / "dvc.lock") == out_hashes(place(home) / "dvc.lock")
    assert not [path for path in (folder / ".clearnets/work").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("part", "key", "dependent"),
    [
        ("browse", "top", {"paper"}),
        pytest.param(
            *("score", "n_examples_test", {"browse", "collate", "figures", "paper", "sample"}),
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_changed_key_reruns_only_what_depends_on_it(home, part, key, dependent):
    output = run("clearnets", "exp", "smoke", "--set", f"{part}.{key}=9", at=home)
    assert {stage.split("@")[0] for stage in ran(output)} == {part, *dependent}
    results = home / "paper/results/smoke"
    assert YAML_.load((results / "params.yaml").read_text())[part][key] == 9
    assert YAML_.load((home / "experiments/smoke.yaml").read_text())[part][key] == 9


def test_words_make_no_computation_stale(home):
    page = place(home) / "clearnets/browser/page.py"
    page.write_text(f"# A comment.\n{page.read_text()}")
    # The one change that DVC sees is the stage that looks at the code.
    assert list(json.loads(run("dvc", "status", "--json", at=place(home)))) == ["plan"]
    assert ran(run("dvc", "repro", at=place(home))) == ["plan"]
    assert "up to date" in run("dvc", "status", at=place(home))


def test_a_changed_computation_makes_stale_what_computes_with_it(home):
    page = place(home) / "clearnets/browser/page.py"
    page.write_text(f"{page.read_text()}\nADDED = 1\n")
    assert list(json.loads(run("dvc", "status", "--json", at=place(home)))) == ["plan"]
    shown = run("clearnets", "status", at=place(home))
    assert "browse" in shown
    assert "score" not in shown
    assert ran(run("dvc", "repro", at=place(home))) == ["plan", "browse"]


def test_a_changed_list_of_families_makes_another_pipeline(home):
    params = place(home) / "params.yaml"
    values = YAML_.load(params.read_text())
    values["families"].remove("random-groupmax-transcoder")
    before = params.read_text()
    YAML().dump(values, params)
    output = run("dvc", "repro", at=place(home), code=255)
    assert "dvc.yaml was not the pipeline of smoke's parameters" in output
    assert "random-groupmax-transcoder" not in (place(home) / "dvc.yaml").read_text()
    params.write_text(before)
    run("clearnets", "plan", at=place(home))
    assert "up to date" in run("dvc", "status", at=place(home))


@pytest.mark.nightly
def test_experiments_share_the_tokens_and_the_dense_model(home):
    """One that differs in the number of active latents takes them from the cache of runs."""
    cell = YAML_.load((home / "experiments/smoke.yaml").read_text())
    cell |= {"experiment": "cell"}
    cell |= {"skip": ["overlap", "similarity", "concepts", "sample", "browse"]}
    cell["model"]["k"] = 2
    cell["generalize"] = {"tasks": []}
    YAML().dump(cell, home / "experiments/cell.yaml")
    output = run("clearnets", "exp", "cell", "--jobs", "2", at=home)
    restored = set(re.findall(r"\] (\S+)  restored from an earlier run", output))
    assert {"data", "train@dense"} <= restored
    assert not {"train@sparse", "match", "sparsify@groupmax-transcoder", "cache@native"} & restored
    # What is left out is nowhere, and all else is there.
    assert not {"overlap", "similarity", "concepts", "browse"} & {
        name.split("@")[0] for name in ran(output)
    }
    results = home / "paper/results/cell"
    assert (results / "contrasts.csv").exists()
    assert not {"embedding.csv", "protocols.csv", "concepts.csv"} & set(os.listdir(results))
    first, second = (
        home / f".clearnets/exp/{name}/artifacts/train/dense/seed-0/manifest.json"
        for name in ("smoke", "cell")
    )
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.nightly
def test_own_text_is_found_from_the_worktree_and_noticed_when_it_changes(home):
    overlay = YAML_.load((home / "experiments/smoke.yaml").read_text())
    overlay["experiment"] = "own"
    overlay["data"]["corpus"] = {"kind": "local", "path": "own.jsonl"}
    YAML().dump(overlay, home / "experiments/own.yaml")
    params = home / ".clearnets/exp/own/params.yaml"
    found = []
    for seed in (1, 2):
        texts = (story.text for story in islice(stories(seed, "train"), 1500))
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (home / "own.jsonl").write_text("".join(lines))
        run("clearnets", "data", "--experiment", "own", at=home)
        metrics = json.loads((params.parent / "artifacts/metrics/data.json").read_text())
        assert metrics["splits"]["train"]["tokens"] > 50_000
        # DVC sees the change as a changed parameter.
        found.append((metrics["trigram"], YAML_.load(params.read_text())["data"]))
    (first, before), (second, after) = found
    assert first != second
    assert before["corpus"]["fingerprint"] != after["corpus"]["fingerprint"]


def test_errors_name_their_cure(home):
    folder = place(home)
    broken = folder / "artifacts/cache/groupmax-transcoder/seed-0/explain/layers.0.mlp"
    shard = next(broken.glob("*.safetensors"))
    data = shard.read_bytes()
    # The cache is linked from DVC's: replace the file, never write into it.
    shard.unlink()
    shard.write_bytes(data[:-10])
    shutil.rmtree(folder / "artifacts/explain/groupmax-transcoder")
    output = run("clearnets", "explain", "--aux", "groupmax-transcoder", at=folder, code=2)
    assert "bytes instead of" in output
    assert "run `clearnets exp smoke`" in output
    assert len(output.strip().splitlines()) == 1
    shard.write_bytes(data)
    shutil.rmtree(folder / "artifacts/coders/groupmax-transcoder")
    output = run("clearnets", "cache", "--aux", "groupmax-transcoder", at=folder, code=2)
    assert (
        "artifacts/coders/groupmax-transcoder/seed-0 is missing; run `clearnets exp smoke`"
        in output
    )
    run("dvc", "repro", at=folder)
