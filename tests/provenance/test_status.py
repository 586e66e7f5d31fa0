"""Which stages are fresh, what runs again, and what that takes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic_results
from typer.testing import CliRunner

from clearnets import config
from clearnets.cli import app
from clearnets.cli.place import Place
from clearnets.pipeline import environment, times
from clearnets.pipeline.stage import names_of, table
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


def report(*faults: Fault, seconds=SECONDS, cached=frozenset(), record=None) -> list[str]:
    found = status.standings(STEPS, faults, seconds, cached)
    return list(status.format_report(found, record))


def states(*faults: Fault, cached=frozenset()) -> dict[str, str]:
    found = status.standings(STEPS, faults, SECONDS, cached)
    return {s.stage: s.state for s in found}


def test_all_is_fresh_without_faults():
    assert set(states().values()) == {FRESH}
    assert report()[-2:] == [
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
        status.format_report(
            status.standings(STEPS, [gone], SECONDS, frozenset({"artifacts/cache"}))
        )
    )
    assert " ".join(lines[0].split()) == "cache missing 7 s in DVC's cache: artifacts/cache"
    assert lines[-1] == "`dvc repro` only brings back what DVC's cache holds"


def test_the_cost_is_what_stages_took_and_says_what_is_unknown():
    lines = report(Fault("train", "clearnets/a.py", lockfile.STALE))
    assert lines[-3:] == [
        "2 of 5 stages fresh, 1 stale, 2 behind them",
        "`dvc repro` takes about 5 min 0 s",
        "and those behind, if their inputs come out otherwise, about 7 s, "
        "not counting 1 that were never timed",
    ]
    assert lines[0].split() == ["train", "stale", "5", "min", "0", "s", "clearnets/a.py"]
    nothing = list(
        status.format_report(status.standings(STEPS, [Fault("score", "a", lockfile.STALE)], {}))
    )
    assert nothing[0].split() == ["score", "stale", "not", "timed", "a"]
    assert nothing[-1] == (
        "what `dvc repro` takes is not known: none of these stages has been timed"
    )


def test_what_was_not_timed_here_is_as_on_the_machine_that_made_the_results():
    record = times.Record("default", "Z80, 1 core", {"train": 7.0, "cache": 9.0, "score": 30.0})
    stale = Fault("train", "a", lockfile.STALE)
    assert report(stale, seconds={"cache": 5.0}, record=record)[-3:] == [
        "`dvc repro` takes about 7 s",
        "and those behind, if their inputs come out otherwise, about 35 s",
        "2 of 3 times as recorded on Z80, 1 core; this machine has not run these stages",
    ]
    # Nothing is said of it where all is known, or nothing is to do.
    all_known = dict.fromkeys(record.seconds, 1.0)
    assert not any("Z80" in line for line in report(stale, seconds=all_known, record=record))
    assert not any("Z80" in line for line in report(seconds={}, record=record))


def test_times_are_recorded_for_others_with_the_machine(monkeypatch):
    monkeypatch.setattr("clearnets.config.load", lambda: SimpleNamespace(experiment="default"))
    monkeypatch.setattr(
        "clearnets.pipeline.stage.names_of", lambda _: ["data", "cache@a", "cache@b"]
    )
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
    assert found.machine == environment.machine()
    assert re.search(r"\S, \d+ cores?$", found.machine)
    assert times.recorded("wide") is None, "another experiment's stages take other times"
    done = CliRunner().invoke(app, ["status", "--record", "--experiment", "wide"])
    assert "leave --experiment out" in str(done.exception)


def test_the_record_in_the_repository_is_of_stages_of_the_default(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    stages = set(names_of(config.load()))
    timed = set(times.recorded("default").seconds)
    assert timed <= stages
    assert {"train@dense", "train@sparse", "cache@native", "similarity", "figures"} <= timed


def test_outputs_in_dvcs_cache_are_found_where_its_settings_say(tmp_path):
    steps = [step("data")]
    held = Path("files/md5/aa") / ("a" * 30)
    Path(".dvc").mkdir()
    Path(".dvc/config").touch()
    for cache in (Path(".dvc/cache"), Path("100% full")):
        (cache / held).parent.mkdir(parents=True)
        (cache / held).write_text("")
        assert status.in_cache(steps) == {"artifacts/data"}
        Path(".dvc/config.local").write_text("[cache]\n    dir = ../100% full\n")
    Path(".dvc/config.local").write_text("[cache]\n    dir = /nowhere\n")
    assert status.in_cache(steps) == frozenset()


def test_what_dvc_status_says_becomes_faults(monkeypatch):
    said = {
        "train": [
            {"changed deps": {"clearnets/a.py": "modified", "artifacts/data": "modified"}},
            {"changed deps": {"params.yaml": {"train.epochs": "modified"}}},
            {"changed outs": {"artifacts/train": "not in cache"}},
            "changed command",
        ],
        "data": [{"changed outs": {"artifacts/data": "modified"}}],
        "browse": [{"changed outs": {"artifacts/browser": "deleted"}}],
    }
    monkeypatch.setattr("clearnets.pipeline.commands.dvc", lambda *_: json.dumps(said))
    found = {(fault.step, fault.path, fault.state) for fault in status.dvc_faults(STEPS, {})}
    assert found == {
        ("train", "clearnets/a.py", lockfile.STALE),
        ("train", "params.yaml: train.epochs", lockfile.STALE),
        ("train", "artifacts/train", lockfile.MISSING),
        ("train", "dvc.yaml: changed command", lockfile.STALE),
        # It is a fault of the stage that wrote it, not also of those that read it.
        ("data", "artifacts/data", lockfile.CHANGED),
        ("browse", "browse", lockfile.UNRECORDED),
    }


def test_times_are_of_whole_runs_the_longest_of_the_last():
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
    few = synthetic_results.few(seeds=[0])
    synthetic_results.write(few)
    for _ in range(2):
        Place(few, {}, None, []).run(table()["collate"], [None], None, dry_run=False)
        assert len(times.TIMES.read_text().splitlines()) == 1, "the second time all is fresh"
    assert set(times.here()) == {"collate"}
