"""The primary contrasts under one correction for their number.

Few contrasts decide; all others explore (`role` in the tables of contrasts). With at least three
training seeds their errors are those over seeds, by Student's t, so that the tests speak for models
that are trained like these. With fewer they are those over latents, by a normal approximation, and
the tests speak for these trained models only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from clearnets.analysis.frames import columns_of, pick
from clearnets.analysis.multiple_testing import holm
from clearnets.config import Config

MIN_SEEDS = 3
COLUMNS = (
    *("a", "b", "scorer", "difference", "level", "units", "error", "low", "high", "tests"),
    *("p", "p_adjusted", "p_equivalent", "p_equivalent_adjusted", "equivalence", "confidence"),
)


def primary_table(contrasts: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return the primary contrasts with tests that are corrected over all of them.

    Args:
        contrasts: as `contrast_tables` returns them.

    `p`: two-sided, of no difference; `p_equivalent`: of a difference of at least `equivalence`, the
    larger of two one-sided tests (Schuirmann 1987); `_adjusted`: by Holm's step-down (1979) over
    the `tests` rows. `low`, `high` hold all true differences together with at least `confidence`:
    each has the level 1 - (1 - confidence) / tests (Bonferroni), so that they are a little wider
    than Holm's tests need. `level` names what `error` is over, `units` how many of these there are.
    """
    rows = pick(contrasts, role="primary")
    confidence = config.collate.confidence
    over_seeds = len(config.seeds) >= MIN_SEEDS
    level = "_seeds" if over_seeds else ""
    # Student's t of endless degrees of freedom is the normal distribution.
    freedom = len(config.seeds) - 1 if over_seeds else np.inf
    value = rows["difference"].to_numpy(np.float64)
    width = (rows[f"high{level}"] - rows[f"low{level}"]).to_numpy(np.float64)
    error = width / (2 * stdtrit(freedom, (1 + confidence) / 2))
    tests = int(np.isfinite(error).sum())
    reach = error * stdtrit(freedom, 1 - (1 - confidence) / max(tests, 1) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(freedom, -np.abs(value) / error)
        inside = stdtr(freedom, (np.abs(value) - config.collate.equivalence) / error)
    columns: dict[str, Any] = {
        "level": "seeds" if over_seeds else "latents",
        "units": len(config.seeds) if over_seeds else rows[["n_a", "n_b"]].min(axis=1),
        "error": error,
        "low": value - reach,
        "high": value + reach,
        "tests": tests,
        "p": p,
        "p_adjusted": holm(p),
        "p_equivalent": inside,
        "p_equivalent_adjusted": holm(inside),
        "equivalence": config.collate.equivalence,
        "confidence": confidence,
    }
    return columns_of(rows.assign(**columns), COLUMNS).reset_index(drop=True)
