"""Draw the paper's figures: `python paper/scripts/draw.py TABLES FOLDER [NAME ...]`.

TABLES is the folder of one experiment's tables (paper/results/default), FOLDER where the PDF and
SVG files and `captions.json` go. Names choose figures; without any all are drawn.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
from common import FAMILIES, load_families, save

MODELS = ("losses", "fvu", "ablation", "recovered")
RULES = ("scores", "precision_recall", "layers", "rates", "densities", "contrasts")
OTHER_SCORES = ("embedding", "roc", "protocols", "concepts", "concept_map")
JUDGES = ("judged",)
OBSERVATORY = ("observed", "ranking", "leads")


def main(tables: Path, folder: Path, names: list[str]) -> None:
    """Draw the named figures, or all of them and their captions.

    A figure of what the experiment does not have (fvu without coders) is left out; so are those of
    a comparison where an experiment compares nothing, and those of rule scores where no judge of
    rules has scored. Some modules draw several, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    load_families(tables)
    captions = {}
    compared = (tables / "summary.csv").exists()
    if compared and not FAMILIES:
        sys.exit(f"{tables / 'families.csv'} is missing; run `clearnets collate` to write it")
    ruled = compared and bool(pd.read_csv(tables / "means.csv")["mean"].notna().any())
    comparison = (*MODELS, *(RULES if ruled else ()), *OTHER_SCORES) if compared else ()
    for name in names or (*comparison, *JUDGES, *OBSERVATORY):
        drawn = import_module(name).draw(tables)
        several = drawn if isinstance(drawn, dict) else {name: drawn} if drawn else {}
        for part, (figure, caption) in several.items():
            captions[part] = caption
            save(figure, folder, part)
    if not names:
        text = json.dumps(captions, indent=1, ensure_ascii=False) + "\n"
        (folder / "captions.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
