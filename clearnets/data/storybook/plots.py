"""All plots: those that every split tells, and those of the test splits only."""

from __future__ import annotations

from collections.abc import Callable

from clearnets.data.storybook import plots_facts as facts
from clearnets.data.storybook import plots_folk as folk
from clearnets.data.storybook import plots_things as things
from clearnets.data.storybook.teller import Teller

Plot = Callable[[Teller], None]

PLOTS: tuple[tuple[str, Plot], ...] = tuple(
    (plot.__name__, plot)
    for plot in (
        things.hide,
        things.swap,
        things.count,
        things.nested,
        things.path,
        things.market,
        things.line,
        facts.compare,
        facts.race,
        facts.week,
        facts.feast,
        facts.riddle,
        facts.tools,
        facts.paint,
        facts.opposites,
        facts.chorus,
        folk.lost,
        folk.theft,
        folk.family,
        folk.storm,
    )
)
TEST_PLOTS: tuple[tuple[str, Plot], ...] = tuple(
    (plot.__name__, plot) for plot in (things.turns, folk.baby, folk.promise)
)
