"""Tables of a run of delphi: its explanations, and its scores as those of a language model here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from clearnets import UserError
from clearnets.analysis import llm_judge_rows
from clearnets.analysis.frames import columns_of, to_csv
from clearnets.analysis.llm_judge import DEMONSTRATION, JUDGED, judge_tables
from clearnets.autointerp.delphi import layout
from clearnets.autointerp.records import EXPLAINED, PROBABILITY_BINS
from clearnets.config import Collate
from clearnets.families import NO_LAYER
from clearnets.pipeline.artifacts import write_text
from clearnets.pipeline.folders import check_new, made_whole

# The judge of a run that nobody vouches for.
UNKNOWN = "imported"
# The number of a layer is a part of a module's name.
_LAYER = re.compile(r"(?<![^._/-])\d+(?![^._/-])")


def run(folder: Path, out: Path, *, family: str, judge: str | None, settings: Collate) -> int:
    """Write `explanations.csv` and the tables of `clearnets.analysis.llm_judge` into `out`.

    A module's layer is the number in its name. Nothing is known of latents that the run left out,
    nor of shuffled explanations, nor whether its judge would qualify: so its scores are a
    demonstration, unless someone says who the judge is and thereby that it has qualified.

    Args:
        judge: its name, where it has qualified; else None.

    Returns:
        How many latents there are.

    Raises:
        UserError: `out` is there already or can't be written, or `folder` is no run of delphi or
            one of several modules in a layer.
    """
    check_new(out)
    made = tables(layout.read(folder), family, judge, settings)
    with made_whole(out) as part:
        for name, table in made.items():
            write_text(part / f"{name}.csv", to_csv(table))
    return len(made["explanations"])


def layers_of(modules: Iterable[str]) -> dict[str, int]:
    """Return the layer of each module; NO_LAYER where its name has no number.

    Raises:
        UserError: two modules are of one layer, so that their latents would be indistinguishable.
    """
    layer_of: dict[str, int] = {}
    module_of: dict[int, str] = {}
    for module in modules:
        found = _LAYER.search(module)
        layer = int(found[0]) if found else NO_LAYER
        if (other := module_of.setdefault(layer, module)) != module:
            raise UserError(
                f"the modules {other} and {module} are of one layer; copy the files of each kind "
                "of module into a folder of its own, and import these"
            )
        layer_of[module] = layer
    return layer_of


def tables(
    found: list[layout.Found], family: str, judge: str | None, settings: Collate
) -> dict[str, pd.DataFrame]:
    """Return the tables of a run of delphi by name, each table of scores with the judge's name."""
    layer_of = layers_of(one.module for one in found)
    explanations, scores, probabilities = [], [], []
    for one in found:
        names = {"family": family, "seed": 0, "layer": layer_of[one.module]}
        about = {"module": one.module, "latent": one.latent, "explanation": one.explanation}
        explanations.append(names | about)
        record = {"latent": one.latent, "status": EXPLAINED, "demonstration": judge is None}
        record |= one.scores
        scores += [names | row for row in llm_judge_rows.rows([record], one.scores)]
        for scorer, given in one.probabilities.items():
            counts = [np.histogram(part, PROBABILITY_BINS, (0, 1))[0] for part in given]
            probabilities.append(
                pd.DataFrame(
                    {
                        "family": family,
                        "scorer": scorer,
                        "bin": range(PROBABILITY_BINS),
                        "positives": counts[0],
                        "negatives": counts[1],
                    }
                )
            )
    columns = ["family", "seed", "layer", *llm_judge_rows.ROW]
    judged = columns_of(pd.DataFrame(scores), columns)
    given = (
        pd.concat(probabilities) if probabilities else pd.DataFrame(columns=["family", "scorer"])
    )
    made = judge_tables(judged, given, settings) if len(judged) else {}
    prefix = DEMONSTRATION if judge is None else JUDGED
    return {
        "explanations": pd.DataFrame(explanations),
        **{prefix + suffix: table.assign(judge=judge or UNKNOWN) for suffix, table in made.items()},
    }
