"""Hookpoints of a family by layer."""

from __future__ import annotations

from clearnets.autointerp.records import hookpoints
from clearnets.config import Config, Family
from clearnets.families import NO_LAYER, TOKENS

__all__ = ["NO_LAYER", "TOKENS", "hookpoints_by_layer"]


def hookpoints_by_layer(config: Config, family: Family) -> dict[int, str]:
    """Return a family's hookpoints by layer; that of a family without layers by `NO_LAYER`."""
    points = hookpoints(family, config.model, config.model.layers)
    return {NO_LAYER: TOKENS} if points == [TOKENS] else dict(enumerate(points))
