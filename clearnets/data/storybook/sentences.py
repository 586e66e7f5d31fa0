"""Sentences that many plots share: introductions, moods, questions at the end, morals.

In `each(v, ...)` the sign @ stands for the value's name: "{@.He} was {@.trait}."
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clearnets.data.storybook.lexicon import (
    COLOURS,
    KINDS,
    MATERIALS,
    NAMES,
    PLACES,
    SIZES,
    SPOTS,
    TOYS,
    Kind,
)
from clearnets.data.storybook.world import Being, Phrases, Teller, Thing, Value, Where

TARGET_SIZE = 80
"""Questions are added at the end until a story has this many words and marks."""
MORAL_ROOM = 98
"""A longer story has no moral, so that all fit in 118."""

LETTERS = "abcd"


def each(var: str, *texts: str, test: Sequence[str] = ()) -> Phrases:
    """Phrases with @ standing for the name of a value."""
    return Phrases(
        *(t.replace("@", var) for t in texts),
        test=[t.replace("@", var) for t in test],
    )


HERO = each(
    "a",
    "Once there was {@.akind} called {@.name}. {@.He} was {@.trait} and lived {@.athome}.",
    "{@.name} was {@.akind} who lived {@.athome}. {@.He} was very {@.trait}.",
    "Long ago {@.akind} named {@.name} lived {@.athome}. {@.He} was {@.trait}.",
    "There once was {@.atrait} called {@.name}. {@.He} lived {@.athome}.",
    "This is a story about {@.name}, {@.atrait}. {@.His} home was {@.thehome}.",
    "{@.name} the {@.kind} lived {@.athome}. Everybody said that {@.he} was {@.trait}.",
    test=("Let me tell you about {@.name}, {@.atrait}. {@.He} slept {@.athome} every night.",),
)
SHORT_HERO = each(
    "a",
    "Once there was {@.atrait} called {@.name}.",
    "{@.name} was {@.atrait}.",
    "Long ago there lived {@.atrait} named {@.name}.",
    "This is a story about {@.name}, {@.atrait}.",
    test=("Let me tell you about {@.name}, {@.atrait}.",),
)
# The hero without a trait.
PLAIN_HERO = each(
    "a",
    "Once there was {@.akind} called {@.name}. {@.He} lived {@.athome}.",
    "{@.name} was {@.akind}. {@.His} home was {@.thehome}.",
    "Long ago {@.akind} named {@.name} lived {@.athome}. {@.He} ate {@.food}.",
    "There once was {@.akind} called {@.name}. {@.He} liked {@.food}.",
    test=("Let me tell you about {@.name}, {@.akind}. {@.He} slept {@.athome}.",),
)
FRIEND = each(
    "b",
    "{a.His} friend {@.name} was {@.akind}. {@.He} was {@.trait}.",
    "{@.name} the {@.kind} was {a.his} friend. {@.He} was {@.trait}.",
    "{a.He} had a friend called {@.name}, {@.atrait}. {@.He} lived {@.athome}.",
    "Near {a.him} lived {@.atrait} called {@.name}. {@.He} was {a.his} friend.",
    test=("{a.He} often played with {@.name} the {@.kind}. {@.He} was {@.trait}.",),
)
PLAIN_FRIEND = each(
    "b",
    "{a.His} friend {@.name} was {@.akind}. {@.He} lived {@.athome}.",
    "{@.name} the {@.kind} was {a.his} friend. {@.His} home was {@.thehome}.",
    "{a.He} had a friend called {@.name}. {@.He} was {@.akind}.",
    "Near {a.him} lived {@.akind} called {@.name}. {@.He} liked {@.food}.",
    test=("{a.He} often played with {@.name} the {@.kind}. {@.He} lived {@.athome}.",),
)
SHORT_FRIEND = each(
    "b",
    "{a.His} friend was {@.name} the {@.kind}.",
    "{a.He} knew {@.name} the {@.kind}.",
    "{@.name} the {@.kind} was {a.his} friend.",
    "{a.He} liked {@.name} the {@.kind}.",
    test=("{@.name} the {@.kind} lived not far from {a.him}.",),
)
TRAIT_FRIEND = each(
    "b",
    "{a.His} friend {@.name} was {@.atrait}.",
    "{a.He} knew {@.name}, {@.atrait}.",
    "{@.name}, {@.atrait}, was {a.his} friend.",
    test=("{@.name}, {@.atrait}, lived not far from {a.him}.",),
)
PAIR = Phrases(
    "{a.name} the {a.kind} and {b.name} the {b.kind} were friends.",
    "Once {a.name} the {a.kind} met {b.name} the {b.kind}.",
    "There were once two friends, {a.name} the {a.kind} and {b.name} the {b.kind}.",
    "{a.name} was {a.akind} and {b.name} was {b.akind}.",
    test=("Everybody knew {a.name} the {a.kind} and {b.name} the {b.kind}.",),
)
TRIO = Phrases(
    "{a.name} the {a.kind}, {b.name} the {b.kind} and {c.name} the {c.kind} were friends.",
    "Once {a.name} the {a.kind} met {b.name} the {b.kind} and {c.name} the {c.kind}.",
    "There were three friends, {a.name} the {a.kind}, {b.name} the {b.kind} and "
    "{c.name} the {c.kind}.",
    "{a.name} was {a.akind}, {b.name} was {b.akind} and {c.name} was {c.akind}.",
    test=(
        "Everybody knew {a.name} the {a.kind}, {b.name} the {b.kind} and {c.name} the {c.kind}.",
    ),
)
GENDERS = {
    v: each(
        v,
        "{@.name} lived {@.athome}, and {@.his} favourite food was {@.food}.",
        "{@.name} liked {@.food}, and {@.he} lived {@.athome}.",
        test=("{@.name} never left home without {@.his} {@.food}.",),
    )
    for v in LETTERS
}
FELT = {
    v: each(
        v,
        "{@.He} was *{@.felt}.",
        "This made {@.him} *{@.felt}.",
        "{@.He} felt *{@.felt}.",
        "So {@.he} was very *{@.felt}.",
        test=("Nobody had seen {@.him} so *{@.felt}.",),
    )
    for v in LETTERS
}


def _moral(*texts: str, test: Sequence[str]) -> Phrases:
    return Phrases(*texts, test=test, label="moral")


MORALS: dict[str, Phrases] = {
    "share": _moral(
        "It is good to share.",
        "Friends who share are happy.",
        "Who shares has more friends.",
        test=("A shared meal tastes best.",),
    ),
    "honest": _moral(
        "It is best to tell the truth.",
        "The truth is the best answer.",
        "Who tells the truth keeps friends.",
        test=("A true word is worth gold.",),
    ),
    "liar": _moral(
        "Nobody believes a liar.",
        "A lie does not stay hidden.",
        "Who lies is left alone.",
        test=("One lie can cost a friend.",),
    ),
    "help": _moral(
        "Help others and they will help you.",
        "A friend in need gets help.",
        "Nobody can do everything alone.",
        test=("Two can do what one cannot.",),
    ),
    "differ": _moral(
        "Everybody is good at something.",
        "It is good that we are not the same.",
        "Great and little, all are needed.",
        test=("There is a task for each of us.",),
    ),
    "win": _moral(
        "Never stop before the end.",
        "The race is not over until the end.",
        "Who goes on can still win.",
        test=("Do not give up too soon.",),
    ),
    "slow": _moral(
        "A good start is half the race.",
        "Who leads well can win.",
        "A good start and a good end go together.",
        test=("A good start helps a good end.",),
    ),
    "look": _moral(
        "Look twice before you leave.",
        "Put things back where you found them.",
        "Ask before you move a thing.",
        test=("A thing in its place is never lost.",),
    ),
    "plan": _moral(
        "Dress for the weather.",
        "Every weather is good for something.",
        "Look at the sky before you go out.",
        test=("There is no bad weather.",),
    ),
    "calm": _moral(
        "A friend makes the night less dark.",
        "Nobody has to be scared alone.",
        "Together we are brave.",
        test=("A calm friend is a strong roof.",),
    ),
    "save": _moral(
        "Count your coins before you spend them.",
        "A saved coin is a good coin.",
        "Spend less than you have.",
        test=("Little coins make a big purse.",),
    ),
    "promise": _moral(
        "Keep what you promise.",
        "A promise is a promise.",
        test=("A kept promise makes a friend.",),
    ),
    "broken": _moral(
        "A broken promise hurts.",
        "Do not promise what you will not do.",
        test=("Words without deeds are wind.",),
    ),
}


class Query(NamedTuple):
    """A question about the world at the end of a story, with its answer filled in."""

    phrases: Phrases
    asker: Being
    answerer: Being
    values: Mapping[str, Value]


def close(t: Teller, queries: Sequence[Query], moral: str) -> None:
    """End a story: questions about its state in random order while there is room, the moral."""
    left = list(queries)
    while left and t.size <= TARGET_SIZE:
        query = left.pop(t.choice(range(len(left))))
        t.tell(query.phrases, p=query.asker, q=query.answerer, **query.values)
    if t.size <= MORAL_ROOM:
        t.tell(MORALS[moral])


def cast(
    t: Teller,
    n: int,
    *,
    species: Sequence[Kind] | None = None,
    traits: Sequence[str] | None = None,
    by_name: bool = False,
) -> list[Being]:
    """Draw n characters and bind them to a, b, c, d.

    Args:
        n: how many.
        species: what each is; None: drawn, all different.
        traits: the trait of each; None: they have none.
        by_name: always call them by name, because two are of one kind.
    """
    names = t.sample(NAMES, n)
    if species is None:
        species = t.sample(KINDS, n)
    voices = t.chance(0.5)
    reference = 0 if by_name else t.choice(range(3))
    beings = [
        Being(
            name=name,
            kind=kind,
            male=t.chance(0.5),
            trait=trait,
            voices=voices,
            reference=reference,
        )
        for name, kind, trait in zip(names, species, traits or [""] * n)
    ]
    t.bind(**dict(zip(LETTERS, beings)))
    return beings


def things(t: Teller, n: int) -> list[Thing]:
    """Draw n objects: of one sort in different colours, or of different sorts."""
    adjectives = (COLOURS, SIZES, MATERIALS)[t.draw((0.6, 0.2, 0.2))]
    if n > 1 and t.chance(0.5):
        noun = t.choice(TOYS)
        return [Thing(noun, adjective) for adjective in t.sample(adjectives, n)]
    return [
        Thing(noun, adjective)
        for noun, adjective in zip(t.sample(TOYS, n), t.sample(adjectives, n))
    ]


def places(t: Teller, n: int) -> list[Where]:
    """Draw n places to go to."""
    return [Where(preposition, noun, "place") for preposition, noun in t.sample(PLACES, n)]


def spots(t: Teller, n: int) -> list[Where]:
    """Draw n spots where a small thing can lie."""
    return [Where(preposition, noun, "container") for preposition, noun in t.sample(SPOTS, n)]
