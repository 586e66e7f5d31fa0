"""Training under torchrun: two processes train what one does, and a kill changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_run
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tiny_run import files, losses_of
from torch.testing import assert_close

from clearnets import config
from clearnets.data.tokenizer import save_tokenizer, train_tokenizer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_json

RUN = paths.train("sparse", 0)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TRAIN = ("-m", "clearnets", "train", "--mlp", "sparse", "--device", "cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parameters and data, rows of unequal length among them."""
    root = tmp_path_factory.mktemp("project")
    train = tiny_run.train_settings(batch_size=8, grad_acc_steps=2, eval_steps=3)
    over = {
        "data": {"ctx_len": tiny_run.CTX},
        "model": tiny_run.model_settings().model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "explain": {"window": tiny_run.CTX},
    }
    params = config.overlay(config.read_yaml(tiny_run.ROOT / "params.yaml"), over)
    YAML().dump(params, root / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for _, work in build_all([Unit(stage="data", out=paths.data(), settings={}, inputs={})]):
            (work.out / "tokens").mkdir()
            rows = np.concatenate([tiny_run.rows(40, seed=1), tiny_run.padded_rows(22, seed=4)])
            np.save(work.out / "tokens" / "train.npy", rows)
            np.save(work.out / "tokens" / "valid.npy", tiny_run.padded_rows(9, seed=2))
            tokenizer = train_tokenizer(["a story"], vocab_size=260)
            save_tokenizer(tokenizer, work.out / "tokenizer", ctx_len=tiny_run.CTX)
            ids = {"pad": tiny_run.PAD, "bos": tiny_run.BOS, "eos": tiny_run.EOS}
            sizes = {"vocab_size": tiny_run.VOCAB, "ctx_len": tiny_run.CTX}
            write_json(work.out / "meta.json", {**sizes, **ids, "concepts": []})
    return root


def start(project: Path, folder: Path, *words: str, **options: Any) -> subprocess.Popen:
    """Begin a command in a copy of the project, or in what an earlier command left there."""
    if not folder.exists():
        shutil.copytree(project, folder)
    env = {**os.environ, "PYTHONPATH": str(tiny_run.ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=env, text=True, stderr=subprocess.PIPE, **options
    )


def finish(project: Path, folder: Path, *words: str) -> str:
    """Run a command to its end; gives what it said."""
    process = start(project, folder, *words)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def pair(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes."""
    folder = tmp_path_factory.mktemp("pair") / "project"
    said = finish(project, folder, *TORCHRUN, *TRAIN)
    assert said.count("train sparse, seed 0") == 1, "only the main process speaks"
    return folder


@pytest.mark.nightly
def test_two_processes_train_what_one_does(project: Path, pair: Path, tmp_path: Path) -> None:
    alone = tmp_path / "project"
    finish(project, alone, *TRAIN)
    np.testing.assert_allclose(curve(pair), curve(alone), rtol=0, atol=2e-5)
    weights = load_file(alone / RUN / "final" / "model.safetensors")
    for name, weight in load_file(pair / RUN / "final" / "model.safetensors").items():
        assert_close(weight, weights[name], rtol=0, atol=2e-4)
    assert files(pair / RUN).keys() == files(alone / RUN).keys()
    # The run is the same unit: one process finds nothing to do where two have done it.
    before = files(pair / RUN)
    said = finish(project, pair, *TRAIN)
    assert "tokens/s" not in said
    assert files(pair / RUN) == before


def curve(folder: Path) -> np.ndarray:
    shutil.copytree(folder / RUN, folder / "out", dirs_exist_ok=True)
    return losses_of(folder)


@pytest.mark.nightly
def test_two_killed_processes_resume_to_the_same_bytes(
    project: Path, pair: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    process = start(project, folder, *TORCHRUN, *TRAIN)
    while not list((folder / paths.WORK).glob("train/*/state/training.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in family:
        child.kill()
    process.communicate()
    psutil.wait_procs(family)
    assert not (folder / RUN).exists(), "the kill came too late to tell"
    assert list((folder / paths.WORK).glob("train/*/state/training.pt"))
    finish(project, folder, *TORCHRUN, *TRAIN)
    assert files(folder / RUN) == files(pair / RUN)
    assert not [path for path in (folder / paths.WORK).rglob("*") if path.is_file()]


def test_what_stops_all_processes_is_said_once(project: Path, tmp_path: Path) -> None:
    process = start(project, tmp_path / "project", *TORCHRUN, "-m", "clearnets", "exp", "smoke")
    said = process.communicate()[1]
    assert process.returncode
    line = "clearnets: `clearnets exp` runs on one process; start it without torchrun\n"
    assert said.count(line) == said.count("clearnets: ") == 1
