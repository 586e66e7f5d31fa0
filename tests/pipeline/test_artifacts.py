"""Complete or absent: units, their fingerprints, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clearnets import UserError
from clearnets.pipeline.artifacts import (
    JsonlWriter,
    Unit,
    build_all,
    check,
    manifest_hash,
    read_jsonl,
    write_bytes,
)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def unit(value: int = 1, inputs: dict[str, Path] | None = None, name: str = "one") -> Unit:
    return Unit("data", Path("artifacts") / name, {"value": value}, inputs or {})


def make(unit: Unit, text: str = "result") -> bool:
    stale = False
    for _, work in build_all([unit]):
        stale = True
        (work.out / "sub").mkdir()
        (work.out / "sub" / "file.txt").write_text(text)
        (work.state / "resume").write_text("gone later")
    return stale


def test_built_once_then_fresh_then_stale_with_other_settings():
    assert make(unit())
    assert (unit().out / "sub/file.txt").read_text() == "result"
    assert not make(unit())
    assert make(unit(2))
    assert not list(Path(".clearnets/work/data").iterdir())


def test_a_changed_input_makes_its_user_stale():
    make(unit())
    user = unit(name="two", inputs={"one": unit().out})
    assert make(user)
    assert not make(user)
    make(unit(2), "other")
    assert make(user)


def test_an_exception_leaves_the_old_unit_and_the_work():
    make(unit())
    before = manifest_hash(unit().out)
    with pytest.raises(RuntimeError):
        for _, work in build_all([unit(2)]):
            (work.out / "half").write_text("x")
            raise RuntimeError
    assert manifest_hash(unit().out) == before
    for _, work in build_all([unit(2)]):
        assert (work.out / "half").exists()


def stop_in_the_second_of(both: list[Unit]) -> None:
    with pytest.raises(RuntimeError):
        for one, work in build_all(both):
            (work.out / "file").write_text("whole")
            if one is both[1]:
                raise RuntimeError


def test_units_that_a_killed_stage_finished_survive_dvc_deleting_its_outputs():
    both = [unit(name="stage/one"), unit(name="stage/two")]
    stop_in_the_second_of(both)
    assert not any(one.out.exists() for one in both)
    shutil.rmtree("artifacts", ignore_errors=True)  # As DVC does before a rerun.
    assert [one for one, _ in build_all(both)] == [both[1]]
    assert all(one.fresh() for one in both)
    assert not list(Path(".clearnets/work/data").iterdir())


def test_a_damaged_waiting_unit_is_built_again():
    both = [unit(name="stage/one"), unit(name="stage/two")]
    stop_in_the_second_of(both)
    (waiting,) = Path(".clearnets/work/data").glob("*/out/manifest.json")
    (waiting.parent / "file").write_text("")
    rebuilt = []
    for one, work in build_all(both):
        rebuilt.append((one, (work.out / "file").exists()))
        (work.out / "file").write_text("whole")
    # The damaged file is gone; what the second had begun is still there.
    assert rebuilt == [(both[0], False), (both[1], True)]


def test_a_mistake_before_anything_is_written_leaves_no_work_folder():
    with pytest.raises(UserError):
        for _ in build_all([unit()]):
            raise UserError("no text")
    assert not list(Path(".clearnets/work/data").iterdir())


def test_a_failed_write_leaves_nothing(monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_bytes(Path("a/file"), b"data")
    assert list(Path("a").iterdir()) == []


def test_in_an_experiment_the_cure_is_its_command(tmp_path, monkeypatch):
    place = tmp_path / ".clearnets/exp/smoke"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    user = Unit("explain", Path("artifacts/x"), {}, {"cache": Path("artifacts/cache/sae")})
    with pytest.raises(UserError, match=r"run `clearnets exp smoke` first"):
        make(user)


def test_two_builds_have_the_same_bytes(tmp_path, monkeypatch):
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        make(unit())
        hashes.append(manifest_hash(unit().out))
    assert hashes[0] == hashes[1]


def test_missing_and_truncated_inputs_name_the_stage():
    user = Unit(
        "explain", Path("artifacts/explain/sae"), {}, {"cache": Path("artifacts/cache/sae")}
    )
    with pytest.raises(UserError, match=r"run `dvc repro cache@sae` first"):
        make(user)
    make(unit())
    (unit().out / "sub/file.txt").write_text("res")
    with pytest.raises(UserError, match="has 3 bytes instead of 6"):
        check(unit().out)
    assert not unit().fresh()


def test_a_unit_is_built_by_one_process_at_a_time():
    for _ in build_all([unit()]):
        with pytest.raises(UserError, match="another process"):
            next(build_all([unit()]))


APPENDER = """
import sys, time
from pathlib import Path
from clearnets.pipeline.artifacts import JsonlWriter
with JsonlWriter(Path("log.jsonl")) as log:
    for number in range(len(log.done), 2000):
        log.append({"number": number, "text": "x" * 200})
        if number == 700: print("go", flush=True)
"""


def test_jsonl_continues_after_sigkill():
    command = [sys.executable, "-c", APPENDER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Path("log.jsonl").open("ab") as file:
        file.write(b'{"number": 99')  # a torn line
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert [r["number"] for r in read_jsonl(Path("log.jsonl"))] == list(range(2000))


def test_jsonl_keeps_line_separators_within_a_record():
    with JsonlWriter(Path("log.jsonl")) as log:
        log.append({"text": "one\u2028two\x85three"})
    assert read_jsonl(Path("log.jsonl")) == [{"text": "one\u2028two\x85three"}]


def test_jsonl_refuses_nan():
    with JsonlWriter(Path("log.jsonl")) as log, pytest.raises(ValueError, match="JSON"):
        log.append({"x": float("nan")})


def test_manifest_lists_every_file_with_its_hash():
    make(unit())
    manifest = json.loads((unit().out / "manifest.json").read_text())
    assert manifest["settings"] == {"value": 1}
    expected = subprocess.run(
        ["sha256sum", str(unit().out / "sub/file.txt")], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    assert manifest["files"] == {"sub/file.txt": {"size": 6, "sha256": expected}}
