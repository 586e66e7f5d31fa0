"""The record of the faults as tables of docs/reliability.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[2] / "docs/reliability.json"
PAGE = RECORD.with_suffix(".md")
BEGIN, END = "<!-- docs/reliability.json -->\n", "<!-- end -->"


def read() -> dict[str, Any]:
    """Return the record: by part what came of it, and of which commit."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write(parts: dict[str, Any]) -> None:
    """Put parts into the record, in the place of earlier ones, and the tables into the page."""
    record = {**read(), **parts}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + tables(record) + END + rest.split(END, 1)[1])


def tables(record: dict[str, Any]) -> str:
    """Return the tables: what was tried in each part, and kills by stage."""
    rows = []
    for name, part in record.items():
        said = f"{_tried(name, part)}{_only(part)}", len(part["faults"]), part["minutes"]
        of = part["seed"], f"`{part['commit'][:8]}`"
        rows.append(f"| {name} | {' | '.join(map(str, (*said, *of)))} |")
    head = ["| part | tried | wrong | minutes | seed | commit |", "|---|---|---|---|---|---|"]
    stages = record.get("kills", {}).get("stages", {})
    killed = ["", "| killed in | times |", "|---|---|"] if stages else []
    killed += [f"| {stage} | {count} |" for stage, count in stages.items()]
    return "\n".join([*head, *rows, *killed]) + "\n"


def _only(part: dict[str, Any]) -> str:
    only = ", ".join(f"`{stage}`" for stage in part.get("only", []))
    return f"; only {only} and what they need" if only else ""


def _tried(name: str, part: dict[str, Any]) -> str:
    if "skipped" in part:
        return f"not here: {part['skipped']}"
    if name == "kills":
        by_command = ", ".join(
            f"{sum(victims.values())} under `{command}` ({_listed(victims)})"
            for command, victims in part["victims"].items()
        )
        return f"{part['kills']} kills in {part['laps']} runs from nothing: {by_command}"
    if name == "disk":
        torn = part.get("torn records", 0)
        return (
            f"{part['full']} full disks in {part['laps']} runs from nothing; {torn} left a torn "
            "`dvc.lock`"
        )
    if name == "language":
        given = f"{part['given']} of {part['requests']} requests went wrong"
        missing = f"{part['missing']} answers counted as missing"
        return f"{given} ({_listed(part['kinds'])}); {part['kills']} kills; {missing}"
    unnoticed = f"; {part['unnoticed']} damages as large as the file were not noticed"
    return (
        f"{part['refused']} refused ({_listed(part['kinds'])}), {part['harmless']} that changed "
        f"nothing{unnoticed if part['unnoticed'] else ''}"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
