"""Where the latents of a family are: the hookpoints by layer."""

from __future__ import annotations

from clearnets.autointerp.records import hookpoints
from clearnets.config import Config, Family

# token-unigram latents read no layer: the one place that they have, and its number.
TOKENS = "tokens"
NO_LAYER = -1


def places(config: Config, family: Family) -> dict[int, str]:
    """The hookpoints of a family by layer."""
    points = hookpoints(family, config.model, config.model.layers)
    return {NO_LAYER: TOKENS} if points == [TOKENS] else dict(enumerate(points))
