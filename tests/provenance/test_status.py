"""Which stages are fresh, what runs again, and what that takes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import synthetic_results
from typer.testing import CliRunner

from clearnets.cli import app
from clearnets.cli.place import Place
from clearnets.config import read_yaml
from clearnets.pipeline import times
from clearnets.provenance import lockfile, status
from clearnets.provenance.lockfile import Entry, Fault, Step
from clearnets.provenance.status import BEHIND, FRESH, MISSING, NEW, STALE


def step(name: str, *reads: str) -> Step:
    entries = tuple(Entry(f"artifacts/{path}", "0" * 32, 1) for path in reads)
    return Step(name, f"clearnets {name}", entries, (Entry(f"artifacts/{name}", "a" * 32, 1),), {})


# data -> train -> cache -> score; data -> embed
STEPS = [
    step("data"),
    step("train", "data"),
    step("embed", "data"),
    step("cache", "train"),
    step("score", "cache"),
]
SECONDS = {"data": 60.0, "train": 300.0, "cache": 7.0}


def states(*faults: Fault, cached=frozenset()) -> dict[str, str]:
    found = status.standings(STEPS, faults, SECONDS, cached)
    return {s.stage: s.state for s in found}


def test_all_is_fresh_without_faults():
    assert set(states().values()) == {FRESH}
    assert list(status.told(status.standings(STEPS, [], SECONDS)))[-2:] == [
        "5 of 5 stages fresh",
        "`dvc repro` has nothing to do",
    ]


def test_what_reads_from_a_stale_stage_is_behind_it():
    found = states(Fault("train", "params.yaml: train.epochs", lockfile.STALE))
    assert found == {
        "data": FRESH, "train": STALE, "embed": FRESH, "cache": BEHIND, "score": BEHIND,
    }  # fmt: skip


def test_a_changed_output_and_a_stage_that_never_ran():
    changed = Fault("cache", "artifacts/cache", lockfile.CHANGED)
    found = states(changed, Fault("browse", "browse", lockfile.UNRECORDED))
    assert found["cache"] == STALE
    assert found["score"] == BEHIND
    assert found["browse"] == NEW


def test_what_dvc_can_bring_back_is_missing_and_costs_nothing():
    gone = Fault("cache", "artifacts/cache", lockfile.MISSING)
    assert states(gone)["score"] == BEHIND
    found = states(gone, cached=frozenset({"artifacts/cache"}))
    assert (found["cache"], found["score"]) == (MISSING, FRESH)
    lines = list(
        status.told(status.standings(STEPS, [gone], SECONDS, frozenset({"artifacts/cache"})))
    )
    assert " ".join(lines[0].split()) == "cache missing 7 s in DVC's cache: artifacts/cache"
    assert lines[-1] == "`dvc repro` only brings back what DVC's cache holds"


def test_the_cost_is_what_stages_took_and_says_what_is_unknown():
    found = status.standings(STEPS, [Fault("train", "clearnets/a.py", lockfile.STALE)], SECONDS)
    lines = list(status.told(found))
    assert lines[-3:] == [
        "2 of 5 stages fresh, 1 stale, 2 behind them",
        "`dvc repro` takes about 5 min 0 s",
        "and those behind, if their inputs come out otherwise, about 7 s, "
        "not counting 1 that were never timed",
    ]
    assert lines[0].split() == ["train", "stale", "5", "min", "0", "s", "clearnets/a.py"]
    nothing = list(status.told(status.standings(STEPS, [Fault("score", "a", lockfile.STALE)], {})))
    assert nothing[0].split() == ["score", "stale", "not", "timed", "a"]
    assert nothing[-1] == (
        "what `dvc repro` takes is not known: none of these stages has been timed"
    )


def test_what_was_not_timed_here_is_as_on_the_machine_that_made_the_results():
    record = times.Record("default", "Z80, 1 core", {"train": 7.0, "cache": 9.0, "score": 30.0})
    found = status.standings(STEPS, [Fault("train", "a", lockfile.STALE)], {"cache": 5.0})
    assert list(status.told(found, record))[-3:] == [
        "`dvc repro` takes about 7 s",
        "and those behind, if their inputs come out otherwise, about 35 s",
        "2 of 3 times as recorded on Z80, 1 core; this machine has not run these stages",
    ]
    # Nothing is said of it where all is known, or nothing is to do.
    found = status.standings(
        STEPS, [Fault("train", "a", lockfile.STALE)], dict.fromkeys(record.seconds, 1.0)
    )
    assert not any("Z80" in line for line in status.told(found, record))
    assert not any("Z80" in line for line in status.told(status.standings(STEPS, [], {}), record))


def test_times_are_recorded_for_others_with_the_machine(tmp_path):
    Path("params.yaml").write_text("experiment: default\nnames: [a, b]\n")
    Path("dvc.yaml").write_text("stages: {data: {}, cache: {foreach: '${names}', do: {}}}\n")
    done = CliRunner().invoke(app, ["status", "--record"])
    assert "no stage was timed here" in str(done.exception)
    assert times.recorded("default") is None
    times.TIMES.parent.mkdir(parents=True)
    lines = [f'{{"stage": "{stage}", "seconds": 2.34}}\n' for stage in ("data", "cache@a", "old")]
    times.TIMES.write_text("".join(lines))
    done = CliRunner().invoke(app, ["status", "--record"])
    assert done.output == "experiments/times.json; never timed here: cache@b\n"
    found = times.recorded("default")
    assert found.seconds == {"data": 2.3, "cache@a": 2.3}
    assert found.machine == times.machine()
    assert re.search(r"\S, \d+ cores?$", found.machine)
    assert times.recorded("wide") is None, "another experiment's stages take other times"
    done = CliRunner().invoke(app, ["status", "--record", "--experiment", "wide"])
    assert "leave --experiment out" in str(done.exception)


def test_the_record_in_the_repository_is_of_stages_of_the_default(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    params, pipeline = (read_yaml(Path(name)) for name in ("params.yaml", "dvc.yaml"))
    stages = set(lockfile.expected(pipeline["stages"], params))
    timed = set(times.recorded("default").seconds)
    assert timed <= stages
    assert {"train@dense", "train@sparse", "cache@native", "similarity", "figures"} <= timed


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path):
    path, book = tmp_path / "a", tmp_path / "hashes.json"
    path.write_text("one")
    hashes = status.Hashes(book)
    first = hashes(path)
    assert first == lockfile.md5(path)
    hashes.keep()
    stat = path.stat()
    # The same size and time: it is believed; the strict look is that of `clearnets verify`.
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert status.Hashes(book)(path) == first
    path.write_text("three")
    assert status.Hashes(book)(path) == lockfile.md5(path) != first
    book.write_text("not JSON")
    assert status.Hashes(book)(path) == lockfile.md5(path)


def test_outputs_in_dvcs_cache_are_found_where_its_settings_say(tmp_path):
    (tmp_path / ".dvc").mkdir()
    steps = [step("data")]
    held = Path("files/md5/aa") / ("a" * 30)
    (tmp_path / ".dvc/cache" / held).parent.mkdir(parents=True)
    (tmp_path / ".dvc/cache" / held).write_text("")
    assert status.in_cache(steps, tmp_path) == {"artifacts/data"}
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    dir = /nowhere\n")
    assert status.in_cache(steps, tmp_path) == frozenset()


def test_a_percent_sign_in_the_path_of_dvcs_cache_is_one(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "100%(free)s/files/md5/aa").mkdir(parents=True)
    (tmp_path / "100%(free)s/files/md5/aa" / ("a" * 30)).write_text("")
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = ../100%(free)s\n")
    assert status.in_cache([step("data")], tmp_path) == {"artifacts/data"}


def test_times_are_of_whole_runs_the_longest_of_the_last(tmp_path):
    assert times.here() == {}
    with times.timed("score@sae", worth=False):
        pass
    assert not times.TIMES.exists()
    with times.timed("score@sae"):
        time.sleep(0.03)
    assert 0.02 <= times.here()["score@sae"] < 5
    with pytest.raises(ZeroDivisionError), times.timed("score@sae"):
        _ = 1 / 0
    lines = [f'{{"stage": "data", "seconds": {s}}}\n' for s in (99, 5, 7, 6)]
    times.TIMES.write_text("".join(lines) + '{"stage": "da')
    assert times.here() == {"data": 7.0}


def test_a_stage_is_timed_where_it_had_something_to_do():
    config = synthetic_results.few(seeds=[0])
    synthetic_results.write(config)
    for _ in range(2):
        Place(config, {}, None, []).run("collate", dry_run=False)
        assert len(times.TIMES.read_text().splitlines()) == 1, "the second time all is fresh"
    assert set(times.here()) == {"collate"}
