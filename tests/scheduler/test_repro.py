"""`clearnets repro` against `dvc repro`, on pipelines of shell commands and real workers."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clearnets import UserError, config
from clearnets.pipeline.scheduler import cluster, dvc_stages, repro, worker

ROOT = Path(__file__).parents[2]
DVC = (sys.executable, "-m", "dvc")

# Two stages that end only if both run, one behind each, and one behind both.
SIDE_BY_SIDE = {
    "left": {
        "cmd": "touch l; until [ -e r ]; do sleep 0.05; done; echo 1 > left",
        "outs": ["left"],
    },
    "right": {
        "cmd": "touch r; until [ -e l ]; do sleep 0.05; done; echo 2 > right",
        "outs": [{"right": {"cache": False}}],
    },
    "next": {"cmd": "mkdir next; cat left left > next/file", "deps": ["left"], "outs": ["next"]},
    "both": {"cmd": "cat next/file right > both", "deps": ["next", "right"], "outs": ["both"]},
}


def pipeline(folder: Path, stages: dict[str, Any]) -> Path:
    """A repository with these stages."""
    folder.mkdir()
    for words in (("git", "init", "-q"), (*DVC, "init", "-q")):
        subprocess.run(words, cwd=folder, check=True)
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    return folder


@pytest.fixture(scope="module")
def workers():
    """Two workers here, for all tests of the module; its commands import nothing of ours."""
    with cluster.local(2, preload=()) as made:
        yield made


@pytest.fixture
def run(workers, monkeypatch):
    """Run `clearnets repro` in a folder; return whether all went well."""
    default = config.load(ROOT / "params.yaml")

    def go(folder: Path, *targets: str, connect: Any = None) -> bool:
        monkeypatch.chdir(folder)
        return repro.run(lambda: default, targets, connect or (lambda: nullcontext(workers)))

    return go


def record(folder: Path) -> dict[str, Any]:
    """What a run leaves: the record of stages, and the files of DVC's cache."""
    cache = folder / ".dvc/cache"
    return {
        "lock": YAML(typ="safe").load(folder / "dvc.lock"),
        "cache": {
            str(path.relative_to(cache)): path.read_bytes()
            for path in cache.rglob("*")
            if path.is_file()
        },
        "ignored": (folder / ".gitignore").read_text(),
    }


def test_leaves_what_dvc_repro_leaves(tmp_path, run):
    ours, dvc = pipeline(tmp_path / "ours", SIDE_BY_SIDE), tmp_path / "dvc"
    shutil.copytree(ours, dvc)
    assert run(ours)
    # One after the other, each stage needs the other's file.
    (dvc / "l").touch()
    (dvc / "r").touch()
    subprocess.run((*DVC, "repro", "-q"), cwd=dvc, check=True)
    assert record(ours) == record(dvc)
    status = subprocess.run((*DVC, "status"), cwd=ours, capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout


def test_runs_only_what_is_stale_and_starts_no_worker_for_nothing(tmp_path, run, capsys):
    folder = pipeline(tmp_path / "p", SIDE_BY_SIDE)
    assert run(folder)
    (folder / "right").write_text("by hand\n")
    (folder / "l").touch()
    assert run(folder)
    assert re.findall(r"\] (\w+)", capsys.readouterr().err)[4:] == ["right"]

    def connect():
        raise AssertionError("no stage is stale")

    assert run(folder, connect=connect)
    assert "all 4 stages are up to date" in capsys.readouterr().out


def test_restores_an_earlier_run(tmp_path, run):
    stages = {"only": {"cmd": "date +%N > only", "deps": [".dvcignore"], "outs": ["only"]}}
    folder = pipeline(tmp_path / "p", stages)
    assert run(folder)
    first = (folder / "only").read_text()
    (folder / "only").unlink()
    (folder / "dvc.lock").unlink()
    assert run(folder)
    assert (folder / "only").read_text() == first


def test_a_changed_input_does_not_bring_back_the_outputs_of_the_old_one(tmp_path, run):
    stages = {"only": {"cmd": "cat input > only", "deps": ["input"], "outs": ["only"]}}
    folder = pipeline(tmp_path / "p", stages)
    for content in ("first", "second", "first"):
        (folder / "input").write_text(content)
        assert run(folder)
        assert (folder / "only").read_text() == content


def test_takes_targets_with_all_that_they_need(tmp_path, run):
    folder = pipeline(tmp_path / "p", {**SIDE_BY_SIDE, "other": {"cmd": "exit 1"}})
    (folder / "r").touch()
    assert run(folder, "next")
    assert (folder / "next/file").exists()
    assert not (folder / "right").exists()
    with pytest.raises(UserError, match="dvc stage list"):
        run(folder, "nothing")


def test_tells_a_failure_once_and_goes_on_with_the_others(tmp_path, run, capsys):
    stages = {
        "bad": {"cmd": "echo long story; echo too little text >&2; exit 3", "outs": ["bad"]},
        "needs": {"cmd": "touch needs", "deps": ["bad"], "outs": ["needs"]},
        "last": {"cmd": "touch last", "deps": ["needs", "good"], "outs": ["last"]},
        "good": {"cmd": "sleep 1; touch good", "outs": ["good"]},
        "after": {"cmd": "touch after", "deps": ["good"], "outs": ["after"]},
    }
    folder = pipeline(tmp_path / "p", stages)
    assert not run(folder)
    assert (folder / "after").exists()
    told = capsys.readouterr().err
    assert told.count("too little text") == 1
    assert re.search("not run, as they need it: needs last", told)
    assert set(YAML(typ="safe").load(folder / "dvc.lock")["stages"]) == {"good", "after"}
    # No lock is left: DVC can go on.
    subprocess.run((*DVC, "repro", "-q", "after"), cwd=folder, check=True)


def test_passes_on_what_a_stage_wants_its_user_to_know(tmp_path, run, capsys):
    stages = {"one": {"cmd": "echo note: few words >&2; echo no more > one", "outs": ["one"]}}
    assert run(pipeline(tmp_path / "noted", stages))
    assert capsys.readouterr().err.splitlines()[-1] == "note: few words"


def test_a_stage_that_makes_no_output_has_failed(tmp_path, run, capsys):
    folder = pipeline(tmp_path / "p", {"idle": {"cmd": "true", "outs": ["file"]}})
    assert not run(folder)
    assert "'file' does not exist" in capsys.readouterr().err


def test_another_run_in_the_same_checkout_is_refused(tmp_path, run):
    folder = pipeline(tmp_path / "p", SIDE_BY_SIDE)

    def connect():
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            run(folder)
        raise UserError("seen")

    with pytest.raises(UserError, match="seen"):
        run(folder, connect=connect)


def test_the_command_of_a_killed_worker_ends_and_another_worker_runs_it_anew(
    tmp_path, run, workers
):
    command = "echo $$ >> pids; [ $(wc -l < pids) = 2 ] || sleep 600; touch done"
    folder = pipeline(tmp_path / "p", {"slow": {"cmd": command, "outs": ["done"]}})
    pids = folder / "pids"
    killer = subprocess.Popen(
        (sys.executable, "-c", _KILL_PARENTS_PARENT, pids), start_new_session=True
    )
    assert run(folder)
    assert killer.wait() == 0
    first, second = map(int, pids.read_text().split())
    assert first != second
    with pytest.raises(ProcessLookupError):
        os.kill(first, signal.SIGCONT)


# Waits for the number of a command's process; kills the worker, which started what started it.
_KILL_PARENTS_PARENT = """
import os, sys, time, pathlib, psutil
path = pathlib.Path(sys.argv[1])
while not (path.exists() and path.read_text().endswith("\\n")):
    time.sleep(0.05)
psutil.Process(int(path.read_text())).parent().parent().kill()
"""


def test_without_workers_nothing_is_lost(tmp_path, run):
    folder = pipeline(tmp_path / "p", {"only": {"cmd": "echo 1 > only", "outs": ["only"]}})
    (folder / "only").write_text("earlier\n")

    def connect():
        raise UserError("no workers")

    with pytest.raises(UserError, match="no workers"):
        run(folder, connect=connect)
    assert (folder / "only").read_text() == "earlier\n"


def test_paths_of_another_dvc_command_are_left_alone(tmp_path, run, capsys):
    stages = {"only": {"cmd": "sleep 600", "outs": ["only"]}}
    folder = pipeline(tmp_path / "p", stages)
    other = subprocess.Popen((*DVC, "repro"), cwd=folder, start_new_session=True)
    try:
        lock = folder / ".dvc/tmp/rwlock"
        while not (lock.exists() and "only" in lock.read_text()):
            time.sleep(0.05)
        assert not run(folder)
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
    assert "another DVC command works on it" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_command_waits_for_a_worker_with_a_gpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with cluster.local(2, preload=()) as made:
        assert (made.slots(), made.gpus()) == (2, 1)
        jobs = [
            worker.Job(
                ("sh", "-c", f"sleep 0.2; echo $CUDA_VISIBLE_DEVICES > {number}"),
                str(tmp_path),
                str(tmp_path / "log"),
            )
            for number in range(3)
        ]
        for future in [made.submit(job, gpu=True) for job in jobs]:
            assert future.result().code == 0
    assert [(tmp_path / str(number)).read_text() for number in range(3)] == ["7\n"] * 3


def test_refuses_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with (
            pytest.raises(UserError, match=r"no Dask scheduler answers at .*dask scheduler"),
            cluster.remote(address),
        ):
            pass


def test_refuses_a_worker_with_another_library_or_code(workers, monkeypatch, tmp_path):
    cluster.check_workers(workers.client, str(ROOT))
    with pytest.raises(UserError, match=f"does not see {tmp_path}"):
        cluster.check_workers(workers.client, str(tmp_path))
    own = worker.identity(str(ROOT))
    monkeypatch.setattr(worker, "identity", lambda folder: {**own, "torch": "1.0"})
    with pytest.raises(UserError, match=r"at tls://\S+ has torch \S+ instead of 1\.0"):
        cluster.check_workers(workers.client, str(ROOT))


def test_a_worker_that_comes_later_is_refused_by_its_first_command(tmp_path):
    job = worker.Job(("true",), str(tmp_path), "log", run="a run", expected={"torch": "1.0"})
    with pytest.raises(UserError, match=r"its worker has torch \S+ instead of 1\.0"):
        worker.execute(job)


@pytest.mark.parametrize(
    ("visible", "found"), [("0,2", ["0", "2"]), ("", []), ("-1", []), ("1,-1,2", ["1"])]
)
def test_gpus_are_those_that_torch_would_see(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cluster._gpus() == found


def test_a_missing_input_is_one_line_and_the_others_go_on(tmp_path, run, capsys):
    stages = {
        "needs": {"cmd": "touch made", "deps": ["nothing"], "outs": ["made"]},
        "other": {"cmd": "touch other", "outs": ["other"]},
    }
    folder = pipeline(tmp_path / "p", stages)
    assert not run(folder)
    assert re.search(r"needs  FAILED: .*nothing. does not exist", capsys.readouterr().err)
    assert (folder / "other").exists()


@pytest.mark.nightly
def test_ctrl_c_stops_the_commands_and_a_second_run_goes_on(tmp_path, run, capsys):
    stages = {
        "quick": {"cmd": "touch quick", "outs": ["quick"]},
        "slow": {"cmd": "echo $$ > pid; [ -e go ] || sleep 600; touch slow", "outs": ["slow"]},
    }
    folder = pipeline(tmp_path / "p", stages)
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "clearnets", "repro", "--jobs", "2")
    running = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    lock = folder / "dvc.lock"
    while not ((folder / "pid").exists() and lock.exists() and "quick" in lock.read_text()):
        time.sleep(0.05)
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert told.splitlines()[-1] == "clearnets: interrupted; run the same command again to go on"
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGCONT)
    (folder / "go").touch()
    assert run(folder)
    told = capsys.readouterr().err
    assert "slow" in told
    assert "quick" not in told


@pytest.mark.parametrize("before", ["a record\n", None])
def test_a_record_that_cannot_be_written_whole_is_put_back(before):
    lock = Path("dvc.lock")
    if before:
        lock.write_text(before)
    with pytest.raises(OSError, match="full"), dvc_stages._whole_record():
        lock.write_text("a rec")
        raise OSError("full")
    assert (lock.read_text() if lock.exists() else None) == before
    with dvc_stages._whole_record():
        lock.write_text("another\n")
    dvc_stages._put_back()
    assert lock.read_text() == "another\n"


def test_a_disk_that_is_full_at_a_record_leaves_no_path_locked(tmp_path, run, monkeypatch):
    """DVC would hang at the end of a process that has one."""
    folder = pipeline(tmp_path / "p", {"one": {"cmd": "echo 1 > one", "outs": ["one"]}})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dvc_stages.Stages, "_record", full)
        with pytest.raises(OSError, match="No space left"):
            run(folder)
    assert not any(json.loads((folder / ".dvc/tmp/rwlock").read_text()).values())
    assert run(folder)


def test_a_command_that_could_not_say_why_it_failed(tmp_path, run, capsys):
    """As on a full disk, where its log takes nothing either."""
    folder = pipeline(tmp_path / "p", {"one": {"cmd": "exit 3", "outs": ["one"]}})
    assert not run(folder)
    assert "exit code 3 without a word, as where the disk is full" in capsys.readouterr().err
