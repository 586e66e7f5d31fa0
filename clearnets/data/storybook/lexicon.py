"""The vocabulary of the stories, read from lexicon.toml, and the concept labels of its words.

The tables are facts about the story world that a reader has to learn (what a mole eats, which
colour red and yellow make, which tool mends a roof), so that a word of a story can follow from
facts and not only from its neighbours. Labels are bit masks: bit i stands for CONCEPTS[i].
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

Token = tuple[str, int]
"""A word or punctuation mark and its mask."""


def read_table(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this package."""
    return tomllib.loads(
        files("clearnets.data.storybook").joinpath(name).read_text(encoding="utf-8")
    )


class Kind(NamedTuple):
    """A species or a profession, and the facts that follow from it."""

    noun: str
    home: str  # with its preposition: "in burrow"
    moved: str
    cried: str
    food: str  # plural or mass noun


class Stock(NamedTuple):
    """Things that come in numbers."""

    one: str
    many: str
    adjectives: tuple[str, ...]
    concept: str


class Weather(NamedTuple):
    """A day's weather, what one wears for it and what one does."""

    happened: str
    wear: str
    did: str


class Job(NamedTuple):
    """Something to do and the tool it needs."""

    broken: str  # what is wrong, past tense
    do: str  # the plain form of the verb and its object
    did: str
    tool: str


class Scale(NamedTuple):
    """A dimension along which three characters are compared."""

    more: str
    most: str
    less: str
    least: str
    most_did: str  # what only the top one can do, plain form
    least_did: str


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TABLES = read_table("lexicon.toml")

CONCEPTS = _split(_TABLES["concepts"])
NAMES = _split(_TABLES["names"])
NUMBERS = _split(_TABLES["numbers"])
DAYS = _split(_TABLES["days"])
COLOURS = _split(_TABLES["colours"])
SIZES = _split(_TABLES["sizes"])
MATERIALS = _split(_TABLES["materials"])
TOYS = _split(_TABLES["toys"])
NESTING = _split(_TABLES["nesting"])
PLACES: tuple[str, ...] = tuple(_TABLES["places"])
SPOTS: tuple[str, ...] = tuple(_TABLES["spots"])

ANIMALS = tuple(Kind(*row) for row in _TABLES["animals"])
PEOPLE = tuple(Kind(*row) for row in _TABLES["people"])
KINDS = ANIMALS + PEOPLE
STOCKS = tuple(
    Stock(one, many, _split(adjectives), concept)
    for table, concept in (("foods", "food"), ("trinkets", "object"))
    for one, many, adjectives in _TABLES[table]
)
COINS = Stock("coin", "coins", ("golden",), "object")
WEATHERS = tuple(Weather(*row) for row in _TABLES["weathers"])
JOBS = tuple(Job(*row) for row in _TABLES["jobs"])
SCALES = tuple(Scale(*row) for row in _TABLES["scales"])
MIXES: tuple[tuple[str, str, str], ...] = tuple(
    (one, two, made) for one, two, made in _TABLES["mixes"]
)
OPPOSITES: tuple[tuple[str, str, str], ...] = tuple(
    (frame, one, two) for frame, one, two in _TABLES["opposites"]
)
YOUNG: tuple[tuple[str, str], ...] = tuple((young, parent) for young, parent in _TABLES["young"])

EMOTIONS: dict[str, dict[str, str]] = {
    trait: dict(zip(_split(_TABLES["events"]), _split(felt), strict=True))
    for trait, felt in _TABLES["emotions"].items()
}
"""What each trait feels at each event."""
TRAITS = tuple(EMOTIONS)
POSITIVE = _split(_TABLES["positive_emotions"])
# The mood behind an emotion decides how its owner speaks.
MOOD = {felt: mood for mood, row in _TABLES["moods"].items() for felt in _split(row["emotions"])}
SPEECH: dict[str, str] = {mood: row["speech"] for mood, row in _TABLES["moods"].items()}

# Layout flags live above the concepts and never leave the package.
TIGHT = 1 << 60  # no space before this token
ALL_CONCEPTS = (1 << len(CONCEPTS)) - 1


@cache
def bits(*concepts: str) -> int:
    """Return the mask of the named concepts."""
    return sum(1 << CONCEPTS.index(concept) for concept in set(concepts))


def _base_masks() -> dict[str, int]:
    """Return the mask of each word as such, lower case; its use in a sentence can add more."""
    masks: dict[str, int] = {}

    def label(words: Iterable[str], *concepts: str) -> None:
        for word in words:
            masks[word.lower()] = masks.get(word.lower(), 0) | bits(*concepts)

    for concept, words in _TABLES["labels"].items():
        label(_split(words), concept)
    label(NUMBERS[1:], "number")
    label(COLOURS, "colour")
    label(SIZES, "size")
    label(MATERIALS, "material")
    label(TRAITS, "trait")
    label(DAYS, "time_word")
    label((weather.wear for weather in WEATHERS), "clothing")
    label((job.tool for job in JOBS), "tool")
    label((place.split()[1] for place in PLACES), "place")
    label((kind.home.split()[1] for kind in KINDS), "home")
    label((kind.noun for kind in ANIMALS), "animal")
    label((kind.noun for kind in PEOPLE), "person")
    label((young for young, _ in YOUNG), "animal")
    label((kind.moved for kind in KINDS), "motion_verb", "past_tense")
    label((kind.cried for kind in ANIMALS), "speech_verb", "animal_cry", "past_tense")
    for scale in SCALES:
        label((scale.more, scale.most, scale.less, scale.least), "comparison")
    for felt in {felt for row in EMOTIONS.values() for felt in row.values()} - set(TRAITS):
        label([felt], emotion_concept(felt))
    return masks


def emotion_concept(felt: str) -> str:
    """Return the concept of an emotion.

    Words that also name a trait ("proud", "shy", "brave") get it from their use alone.
    """
    return "positive_emotion" if felt in POSITIVE else "negative_emotion"


BASE = _base_masks()


@cache
def words(text: str, *concepts: str) -> tuple[Token, ...]:
    """Return the labelled tokens of a text; `concepts` are added to its last word."""
    *first, last = ((word, BASE.get(word.lower(), 0)) for word in text.split())
    return (*first, (last[0], last[1] | bits(*concepts)))


def with_article(text: str) -> str:
    """Put the indefinite article before a text. No word here begins with a sounded u."""
    return f"an {text}" if text[0] in "aeio" or text.startswith("honest") else f"a {text}"
