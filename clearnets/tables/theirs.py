"""Tables of a run of delphi: its explanations, and its scores as those of a language model here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from clearnets import delphi_layout
from clearnets.artifacts import UserError, write_text
from clearnets.autointerp.records import EXPLAINED, PROBABILITY_BINS
from clearnets.config import Collate
from clearnets.folders import made_whole
from clearnets.tables import judgements
from clearnets.tables.frames import columns_of, to_csv
from clearnets.tables.judged import judged_tables


def run(folder: Path, out: Path, *, family: str, settings: Collate) -> int:
    """Write `explanations.csv` and the tables of `clearnets.tables.judged` into `out`.

    Its modules are layers in the order of their numbers. Nothing is known of latents that it left
    out, nor of shuffled explanations; whether its judge would qualify is for the reader to say.

    Returns:
        How many latents there are.

    Raises:
        UserError: `out` is there already, or `folder` is no run of delphi.
    """
    if out.exists():
        raise UserError(f"{out} is there already; name a folder that is not")
    made = tables(delphi_layout.read(folder), family, settings)
    with made_whole(out) as part:
        for name, table in made.items():
            write_text(part / f"{name}.csv", to_csv(table))
    return len(made["explanations"])


def tables(
    found: list[delphi_layout.Found], family: str, settings: Collate
) -> dict[str, pd.DataFrame]:
    """By name, the tables of a run of delphi."""
    layer_of = {module: n for n, module in enumerate(dict.fromkeys(one.module for one in found))}
    explanations, scores, probabilities = [], [], []
    for one in found:
        names = {"family": family, "seed": 0, "layer": layer_of[one.module]}
        about = {"module": one.module, "latent": one.latent, "explanation": one.explanation}
        explanations.append(names | about)
        record = {"latent": one.latent, "status": EXPLAINED, "demonstration": False, **one.scores}
        scores += [names | row for row in judgements.rows([record], one.scores)]
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
    columns = ["family", "seed", "layer", *judgements.ROW]
    judged = columns_of(pd.DataFrame(scores), columns)
    given = (
        pd.concat(probabilities) if probabilities else pd.DataFrame(columns=["family", "scorer"])
    )
    made = judged_tables(judged, given, settings) if len(judged) else {}
    return {
        "explanations": pd.DataFrame(explanations),
        **{f"judged{suffix}": table for suffix, table in made.items()},
    }
