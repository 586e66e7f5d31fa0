"""The plots of all splits, and those of the test splits only.

A plot's name is that of its function, and that of its sentences in sentences.toml.
"""

from __future__ import annotations

from collections.abc import Callable

from clearnets.data.storybook import plots_facts as facts
from clearnets.data.storybook import plots_folk as folk
from clearnets.data.storybook import plots_things as things
from clearnets.data.storybook.teller import Teller

Plot = Callable[[Teller], None]

PLOTS: tuple[Plot, ...] = (
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
TEST_PLOTS: tuple[Plot, ...] = (things.turns, folk.baby, folk.promise)
