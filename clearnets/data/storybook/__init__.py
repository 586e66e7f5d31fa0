"""The embedded corpus: simple English children's stories with ground-truth labels.

Each story is told from a small simulated world: who is who, who has what, what lies where, how
many there are, who feels how. Much of what is said later follows from composing facts said
earlier, so a model that reads the whole story has a large advantage over one that sees a few words.

The stories of a (seed, split, index) are a pure function of these three. The test splits (`score`
and `concept_test`) tell some plots and word some sentences as no other split does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import NamedTuple, TypeVar

from clearnets.data.storybook.lexicon import CONCEPTS
from clearnets.data.storybook.plots import PLOTS, TEST_PLOTS
from clearnets.data.storybook.teller import HELD_OUT_SHARE, NUM_STYLES, Teller
from clearnets.data.storybook.templates import PHRASES

__all__ = ["CONCEPTS", "SPLITS", "TEST_SPLITS", "Story", "stories", "story", "tell"]

AnyTeller = TypeVar("AnyTeller", bound=Teller)

SPLITS = ("train", "valid", "explain", "score", "concept_fit", "concept_test")
TEST_SPLITS = ("score", "concept_test")


class Story(NamedTuple):
    """A story and what is known of it."""

    text: str
    """Plain text without a trailing newline."""
    spans: list[tuple[int, int, int]]
    """(start, end, mask) of each word and punctuation mark, in characters, in order; bit i of
    the mask stands for CONCEPTS[i]. Spans leave out spaces and nothing else."""
    nll: float
    """Sum of -log p (nats) of the generator's random choices. An upper bound of -log p of the
    text: several series of choices may give the same text."""
    plot: str
    """Name of the plot."""


def story(seed: int, split: str, index: int) -> Story:
    """Return the story number `index` of a split.

    Args:
        seed: which book of stories.
        split: one of SPLITS.
        index: 0, 1, ...

    Raises:
        ValueError: the split is unknown.
    """
    teller, plot = tell(Teller, seed, split, index)
    text, spans = teller.finish()
    return Story(text, spans, teller.nll, plot)


def tell(make: type[AnyTeller], seed: int, split: str, index: int) -> tuple[AnyTeller, str]:
    """Let a new teller tell the story number `index` of a split; return it and the plot's name.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    digest = blake2b(f"{seed}/{split}/{index}".encode(), digest_size=8).digest()
    teller = make(Random(int.from_bytes(digest, "big")), test=split in TEST_SPLITS)
    plots = PLOTS
    if teller.test and teller.chance(HELD_OUT_SHARE):
        plots = TEST_PLOTS
    plot = teller.choice(plots)
    teller.phrases = PHRASES[plot.__name__]
    teller.style = teller.choice(range(NUM_STYLES))
    plot(teller)
    return teller, plot.__name__


def stories(seed: int, split: str, start: int = 0) -> Iterator[Story]:
    """Yield the stories of a split from number `start` on, without end."""
    for index in itertools.count(start):
        yield story(seed, split, index)
