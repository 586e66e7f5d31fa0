"""Draw the paper's figures: `python paper/scripts/draw.py TABLES FOLDER [NAME ...]`.

TABLES is the folder of one experiment's tables (paper/results/default), FOLDER where the PDF and
SVG files and `captions.json` go. Names choose figures; without any all are drawn.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context, parent_process
from pathlib import Path

import pandas as pd
from common import FAMILIES, load_families, save

MODELS = ("losses", "fvu", "ablation", "recovered")
RULES = (
    "scores",
    "precision_recall",
    "layers",
    "rates",
    "densities",
    "contrasts",
    "layer_contrasts",
)
# By module, the table without which it draws nothing: an experiment may leave out its stage.
OTHER_SCORES = {
    "embedding": "embedding",
    "roc": "embedding",
    "protocols": "protocols",
    "executed": "execution",
    "effects": "effect_means",
    "circuits": "circuit_sizes",
    "circuit_members": "circuit_members",
    "circuit_training": "circuit_training",
    "concepts": "concepts",
    "concept_map": "concepts",
}
JUDGES = ("judged",)
CELLS = ("grid",)
OBSERVATORY = ("observed", "ranking", "leads")


def main(tables: Path, folder: Path, names: list[str]) -> None:
    """Draw the named figures, or all of them and their captions.

    A figure of what the experiment does not have (fvu without coders) is left out; so are those of
    a comparison where an experiment compares nothing, and those of rule scores where no judge of
    rules has scored. Some modules draw several, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    load_families(tables)
    captions: dict[str, str] = {}
    compared = (tables / "summary.csv").exists()
    if compared and not FAMILIES:
        sys.exit(f"{tables / 'families.csv'} is missing; run `clearnets collate` to write it")
    ruled = compared and bool(pd.read_csv(tables / "means.csv")["mean"].notna().any())
    others = [name for name, table in OTHER_SCORES.items() if (tables / f"{table}.csv").exists()]
    comparison = (*MODELS, *(RULES if ruled else ()), *others) if compared else ()
    chosen = names or (*comparison, *JUDGES, *CELLS, *OBSERVATORY)
    # A figure is a million small objects, of which none is garbage until it is saved: looking for
    # some was a third of the time.
    gc.disable()
    for found in _each(partial(_draw, tables, folder), chosen):
        captions |= found
    if not names:
        text = json.dumps(captions, indent=1, ensure_ascii=False) + "\n"
        (folder / "captions.json").write_text(text, encoding="utf-8")


def _draw(tables: Path, folder: Path, name: str) -> dict[str, str]:
    """Draw and save the figures of one module; return their captions."""
    drawn = import_module(name).draw(tables)
    several = drawn if isinstance(drawn, dict) else {name: drawn} if drawn else {}
    for part, (figure, _) in several.items():
        save(figure, folder, part)
    return {part: caption for part, (_, caption) in several.items()}


def _each(function: Callable[[str], dict[str, str]], names: Sequence[str]) -> list[dict[str, str]]:
    """Return what the function returns for each name, from as many forks as there are cores.

    OMP_NUM_THREADS allows fewer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    workers = min(cores, len(names), int(asked) if asked.isdecimal() else cores)
    if workers < 2:
        return [function(name) for name in names]
    with ProcessPoolExecutor(workers, get_context("fork"), initializer=_end_with_parent) as pool:
        # The last ones take longest.
        return list(pool.map(function, reversed(names)))[::-1]


def _end_with_parent() -> None:
    """End this worker when its parent is gone, even killed."""

    def wait() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
