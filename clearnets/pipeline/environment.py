"""What results are made with: processor, operating system, Python, libraries that compute.

No result depends on what is written here, and no hash: it says where to look where two runs differ.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Libraries by whose version results may differ.
LIBRARIES = (
    *("torch", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib"),
    *("transformers", "tokenizers", "safetensors", "schedulefree", "eai-sparsify", "distributed"),
)


def here() -> dict[str, str]:
    """Return what this process computes with, by name."""
    return {"machine": machine(), "system": platform.platform(), **software()}


def software() -> dict[str, str]:
    """Return the versions of Python and of the libraries, by name."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def together(runs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what several runs were made with; of what differs between them, all there was."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, value in run.items():
            found.setdefault(name, []).append(value)
    return {name: " and ".join(dict.fromkeys(values)) for name, values in found.items()}


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return in words in what two environments differ; empty where in nothing."""
    return ", ".join(
        f"{name} {found.get(name, 'absent')} instead of {value}"
        for name, value in expected.items()
        if found.get(name) != value
    )


def format_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return a line about two environments: in what they differ, and whether that matters.

    Args:
        expected: what a run was made with; nothing where that is not known.
        found: what another run was made with, or this process is.
    """
    if not expected or not found:
        return "what both were made with is not recorded"
    differing = differences(expected, found)
    if not differing:
        return f"made with the same: {expected['machine']}, Python {expected['python']}"
    libraries = any(found.get(name) != expected.get(name) for name in ("python", *LIBRARIES))
    cause = "; a library of another version is the likely cause of other results"
    return f"made with {differing}{cause if libraries else ''}"


def machine() -> str:
    """Return this machine's processor and number of cores, in words."""
    count = os.cpu_count() or 1
    return f"{_processor()}, {count} core{'s' if count > 1 else ''}"


def _processor() -> str:
    """Return the model, or the architecture where the system does not name the model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name":
                return model.strip()
    except OSError:  # Not Linux.
        pass
    return platform.processor() or platform.machine()
