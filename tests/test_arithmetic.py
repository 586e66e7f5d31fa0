"""Bytes depend neither on the vendor of the processor, nor on AVX-512, nor on the number of cores.

Other processors are simulated: MKL, glibc and OpenBLAS can be told what the processor is and has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import golden
import pytest

from clearnets import arithmetic
from clearnets.pipeline import processes
from clearnets.provenance import verify

ROOT = Path(__file__).parents[1]
VENDOR, FLAGS = arithmetic.processor()
SET = {name: os.environ.get(name) for name in arithmetic.ENVIRONMENT}
# Of a processor without AVX-512.
WITHOUT_AVX512 = {
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
}
pytestmark = pytest.mark.skipif(
    not {"avx2", "fma"} <= FLAGS or SET != arithmetic.ENVIRONMENT,
    reason="no x86-64 processor with AVX2, or a user's own settings",
)


def run(*words: str, cores: int = 1, **environment: str) -> str:
    """Return what a Python script prints that runs on so many cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def operations(**settings) -> dict[str, str]:
    printed = json.loads(run(str(ROOT / "tests/bytes_of_operations.py"), **settings))
    assert printed["departures"] == []
    return printed["hashes"]


@pytest.mark.nightly
def test_no_operation_depends_on_avx512_or_on_the_number_of_cores():
    assert operations() == operations(cores=2, **WITHOUT_AVX512)


@pytest.mark.nightly
def test_products_would_depend_on_the_vendor(tmp_path):
    """What the answer to MKL's question is for, on each kind of processor."""
    library = tmp_path / "other.so"
    library.write_bytes(arithmetic.shared_library(arithmetic.VENDOR_CHECKS, result=0))
    intel, other = operations(), operations(LD_PRELOAD=str(library))
    differ = {name.split()[0] for name in intel if intel[name] != other[name]}
    assert {"product", "exp", "sqrt", "eigh", "schedule-free"} <= differ


@pytest.mark.nightly
def test_training_gives_the_bytes_of_another_machine():
    """Recorded on an Intel Xeon with AVX-512, and again as if it had none."""
    torch = pytest.importorskip("torch")
    if torch.__version__.split("+")[0] != "2.13.0":
        pytest.skip("recorded with torch 2.13.0")
    printed = run(str(ROOT / "tests/bytes_of_training.py"))
    assert json.loads(printed) == {"dense": "f815731052b3", "sparse": "7498750ab289"}


@pytest.mark.nightly
def test_the_whole_pipeline_gives_the_same_bytes(tmp_path):
    for name, settings in {"one": {}, "two": {"cores": 2, **WITHOUT_AVX512}}.items():
        (tmp_path / name).mkdir()
        run(str(ROOT / "tests/smoke_stages.py"), str(tmp_path / name), **settings)
    found = golden.differences(tmp_path / "one", tmp_path / "two", [".clearnets/*"])
    assert list(found) == []


def test_what_was_not_settled_is_said():
    code = "{}; from clearnets import arithmetic; print(*arithmetic.departures(), sep='\\n')"
    assert run("-c", code.format("import numpy")) == "numpy was imported before clearnets\n"
    printed = run("-c", code.format("import sys"), MKL_CBWR="AUTO")
    assert printed == "MKL_CBWR is set to AUTO, not to AVX2,STRICT\n"


def test_verify_says_where_bytes_are_the_same():
    assert "every x86-64 processor with AVX2" in verify.format_place(())
    assert verify.format_place(("one", "two")).endswith("in its last digits: one; two")


@pytest.mark.parametrize(
    ("affinity", "asked", "processes_here", "cores"),
    [
        (4, None, 1, 4),
        (4, "2", 1, 2),
        (4, "8", 1, 4),
        (4, "3,1", 1, 3),
        (4, "", 2, 2),
        (1, "1", 2, 1),
    ],
)
def test_workers_are_as_many_as_affinity_and_openmp_allow(
    monkeypatch, affinity, asked, processes_here, cores
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(processes, "count", lambda *, here: processes_here)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert processes.cores() == cores
