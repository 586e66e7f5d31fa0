"""`clearnets words`: classes of words that stand in the same places, which rules may name.

They are learned from the first tokens of the split `train`, in seconds.

classes.jsonl   a class: the two words that name it, and its words; a class stands before the
                classes that it contains
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.runtime import Runtime

# Tokens that classes are learned from.
TOKENS = 4_000_000

STAGE = Stage(
    name="words",
    does="Learn classes of words that stand in the same places.",
    example="clearnets words",
    reads=("artifacts/data",),
    small=("artifacts/words",),
)


def units(config: Config) -> list[Unit]:
    """Return the one unit of this stage."""
    return [Unit(stage=STAGE.name, out=paths.words(), settings={}, inputs={"data": paths.data()})]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write the classes."""
    from clearnets.autointerp.rules.matcher import Lexicon, words_of
    from clearnets.autointerp.rules.word_classes import CLASSES, learn
    from clearnets.data.tokens import open_tokens

    for unit, work in build_all(units(config)):
        store = open_tokens(unit.inputs["data"])
        tokens_RS = store.split("train")[: max(TOKENS // store.ctx_len, 1)]
        rows = words_of(tokens_RS, store.counted, Lexicon(store.strings()))
        learn(rows.word_RS, rows.lexicon.words).write(work.out / CLASSES)
