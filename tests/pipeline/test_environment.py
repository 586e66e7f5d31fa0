"""What results were made with: recorded with each stage's time, and told where two runs differ."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import version

import pytest

from clearnets.paper import compare
from clearnets.pipeline import environment, times

MADE = {"machine": "Z80, 1 core", "system": "CP/M", "python": "3.11.1", "torch": "2.13.0"}


def log(*made_with: dict) -> None:
    times.TIMES.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"stage": f"s{n}", "seconds": 1, "made_with": one} for n, one in enumerate(made_with)]
    times.TIMES.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_what_is_here_is_what_python_says():
    found = environment.here()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["machine"] == environment.machine()
    assert set(environment.LIBRARIES) < set(found)


def test_a_stage_leaves_what_it_was_made_with_and_the_record_has_it():
    assert times.made_with("default") == {}
    with times.timed("data"):
        pass
    assert times.made_with("default") == environment.here()
    assert times.record("default", ["data"]) == []
    assert times.recorded("default").made_with == environment.here()
    times.TIMES.unlink()
    assert times.made_with("default") == environment.here(), "of the record, where none ran here"
    assert times.made_with("wide") == {}


def test_stages_that_ran_with_several_versions_name_them_all():
    log(MADE, {**MADE, "torch": "2.14.0"}, MADE)
    assert times.made_with("default") == {**MADE, "torch": "2.13.0 and 2.14.0"}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({}, "made with the same: Z80, 1 core, Python 3.11.1"),
        ({"machine": "6502, 1 core"}, "made with machine 6502, 1 core instead of Z80, 1 core"),
        (
            {"torch": "2.14.0"},
            "made with torch 2.14.0 instead of 2.13.0; a library of another version is the likely "
            "cause of other results",
        ),
    ],
)
def test_another_version_is_named_as_the_likely_cause(over, says):
    assert environment.format_differences(MADE, {**MADE, **over}) == says
    assert environment.format_differences({}, MADE).endswith("is not recorded")


def test_a_commit_says_what_its_results_were_made_with():
    log(MADE)
    times.record("default", ["s0"])
    for words in (["init", "-q"], ["add", "experiments"], ["commit", "-qm", "a run"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *author, *words], check=True)
    log({**MADE, "torch": "2.14.0"})
    assert compare.made_with("default@HEAD", "default") == MADE
    assert compare.made_with("default", "default")["torch"] == "2.14.0"
    assert compare.made_with("default@nowhere", "default") == {}
    assert compare.made_with("smoke@HEAD", "default") == {}
