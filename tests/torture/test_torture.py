"""A small version of the harness of faults, and its record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).with_name("torture.py")


def test_the_page_has_the_tables_of_the_record_and_nothing_was_wrong(load_script):
    report = load_script("tests/torture/report.py")
    record = report.read()
    assert report.BEGIN + report.tables(record) + report.END in report.PAGE.read_text()
    assert {name: part["faults"] for name, part in record.items() if part["faults"]} == {}


@pytest.mark.nightly
def test_faults_change_nothing(tmp_path):
    """On three stages and what they need."""
    stages = ("--stage", "match", "--stage", "words", "--stage", "planted")
    few = ("--kills", "16", "--full", "4", "--minutes", "8", "--at", str(tmp_path / "place"))
    done = subprocess.run(
        [sys.executable, str(TORTURE), *few, *stages, "inputs", "disk", "kills"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert '"kills": 16' in done.stdout
