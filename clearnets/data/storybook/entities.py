"""What fills the slots of a template (characters, objects, numbers, places) and how it is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from clearnets.data.storybook.lexicon import (
    COLOURS,
    EMOTIONS,
    KINDS,
    MATERIALS,
    MOOD,
    NAMES,
    NUMBERS,
    PLACES,
    SIZES,
    SPEECH,
    SPOTS,
    TOYS,
    Job,
    Kind,
    Stock,
    Token,
    bits,
    emotion_concept,
    with_article,
    words,
)
from clearnets.data.storybook.teller import Teller

T = TypeVar("T")
Forms = Mapping[str, tuple[Token, ...]]

REFERENCES = ("name", "kind", "alternating")


class Words:
    """Fixed words, the same in every form."""

    __slots__ = ("_tokens",)

    def __init__(self, text: str, *concepts: str) -> None:
        self._tokens = words(text, *concepts)

    def say(self, form: str) -> tuple[Token, ...]:
        del form
        return self._tokens


class Formed:
    """A value whose forms never change."""

    __slots__ = ("_forms",)

    def __init__(self, forms: Forms) -> None:
        self._forms = forms

    def say(self, form: str) -> tuple[Token, ...]:
        return self._forms[form]


@cache
def quantity(n: int, stock: Stock, adjective: str, *, repeated: bool) -> Formed:
    """Return a number of things of one sort, with plural agreement."""
    seen = ("repeated_object",) if repeated else ()
    many = (stock.concept, "plural_noun", *seen)
    noun, concepts = (stock.one, (stock.concept, *seen)) if n == 1 else (stock.many, many)
    return Formed(
        {
            "n": words(NUMBERS[n]),
            "np": words(f"{NUMBERS[n]} {adjective} {noun}", *concepts),
            "short": words(f"{NUMBERS[n]} {noun}", *concepts),
            "many": words(stock.many, *many),
        }
    )


@cache
def location(text: str, concept: str) -> Formed:
    """Return a place or a spot, given with the preposition of being there: "in garden"."""
    preposition, noun = text.split()
    return Formed(
        {
            "the": words(f"the {noun}", concept),
            "at": words(f"{preposition} the {noun}", concept),
            "a": words(with_article(noun), concept),
        }
    )


@cache
def task(job: Job) -> Formed:
    """Return a job and the tool that it needs."""
    return Formed(
        {
            "broken": words(job.broken),
            # "cut" and "split" look the same in the past.
            "do": tuple((word, mask & ~bits("past_tense")) for word, mask in words(job.do)),
            "did": words(job.did),
            "tool": words(job.tool),
            "atool": words(with_article(job.tool)),
            "thetool": words(f"the {job.tool}"),
            "it": words("it"),
        }
    )


@cache
def _character_forms(kind: Kind, male: bool, trait: str) -> Forms:
    """Return the forms of a character that stay the same while its story lasts."""
    preposition, home = kind.home.split()
    forms = {
        "kind": words(kind.noun),
        "akind": words(with_article(kind.noun)),
        "the": words(f"the {kind.noun}"),
        "he": words("he" if male else "she"),
        "him": words("him" if male else "her"),
        "his": words("his" if male else "her", "possessive"),
        "thehome": words(f"{preposition} the {home}"),
        "myhome": words(f"{preposition} my {home}"),
        "athome": words(f"{preposition} {with_article(home)}"),
        "moved": words(kind.moved),
        "food": words(kind.food, "food"),
        "cried": words(kind.cried),
        "boy": words("boy" if male else "girl"),
        "boys": words("boys" if male else "girls", "plural_noun"),
        "brother": words("brother" if male else "sister"),
        "father": words("father" if male else "mother"),
        "son": words("son" if male else "daughter"),
    }
    if trait:
        forms["trait"] = words(trait)
        forms["atrait"] = words(with_article(f"{trait} {kind.noun}"))
    return forms


@dataclass(slots=True, eq=False)
class Being:
    """A character of a story, with what has happened to it so far."""

    name: str
    kind: Kind
    male: bool
    trait: str
    """One of TRAITS; "" if it has none."""
    voices: bool
    """Whether animals speak in their own voice and do not "say"."""
    reference: str
    """What it is called after its first mention, one of REFERENCES."""
    felt: str = ""
    """Its last emotion."""
    mood: str = ""
    """How it speaks now, a key of SPEECH; "": as usual."""
    seen: bool = False
    _calls: int = 0

    def say(self, form: str) -> tuple[Token, ...]:
        if form == "ref":
            form = self._reference()
        if form == "name":
            concept = "repeated_name" if self.seen else "first_mention"
            self.seen = True
            return ((self.name, bits("name", concept)),)
        if form == "said":
            return words(SPEECH.get(self.mood) or (self.kind.cried if self.voices else "said"))
        if form == "felt":
            return ((self.felt, bits(emotion_concept(self.felt))),)
        return _character_forms(self.kind, self.male, self.trait)[form]

    def _reference(self) -> str:
        """Return the form in which to refer to the character this time."""
        self._calls += 1
        by_kind = self.reference == "kind" or (
            self.reference == "alternating" and self._calls % 2 == 0
        )
        return "the" if by_kind and self.seen else "name"

    def feel(self, event: str) -> None:
        """Let an event change the mood: how it feels follows from its trait."""
        self.felt = EMOTIONS[self.trait][event]
        self.mood = MOOD.get(self.felt, "")


class Relative:
    """A character with its kinship to another one ("the brother")."""

    __slots__ = ("_being", "_kinship")

    def __init__(self, being: Being, kinship: str) -> None:
        self._being = being
        self._kinship = words(kinship)

    def say(self, form: str) -> tuple[Token, ...]:
        return self._kinship if form == "kin" else self._being.say(form)


@cache
def _thing_forms(noun: str, adjective: str, seen: bool, repainted: bool) -> Forms:
    repeated = ("repeated_object",) if seen else ()
    article, _ = words(with_article(adjective))
    # A new colour is no repetition.
    described = words(adjective, *(() if repainted else repeated))
    thing = words(noun, "object", *repeated)
    return {
        "noun": thing,
        "a": (article, *described, *thing),
        "the": words("the") + described + thing,
        "full": described + thing,
        "thenoun": words("the") + thing,
    }


@dataclass(slots=True, eq=False)
class Thing:
    """A single object, distinguished by an adjective."""

    noun: str
    adjective: str
    seen: bool = False
    repainted: bool = False

    def say(self, form: str) -> tuple[Token, ...]:
        tokens = _thing_forms(self.noun, self.adjective, self.seen, self.repainted)[form]
        self.seen = True
        return tokens

    def repaint(self, colour: str) -> None:
        """Give the thing another adjective; it stays the same thing."""
        self.adjective = colour
        self.repainted = True


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
        t: the story's teller.
        n: how many.
        species: what each is; None: drawn, all different.
        traits: the trait of each; None: they have none.
        by_name: always call them by name, because two are of one kind.
    """
    names = t.sample(NAMES, n)
    if species is None:
        species = t.sample(KINDS, n)
    voices = t.chance(0.5)
    reference = "name" if by_name else t.choice(REFERENCES)
    beings = [
        Being(name, kind, t.chance(0.5), trait, voices, reference)
        for name, kind, trait in zip(names, species, traits or [""] * n)
    ]
    t.bind(**dict(zip("abcd", beings)))
    return beings


def things(t: Teller, n: int) -> list[Thing]:
    """Draw n objects: of one sort in different colours, or of different sorts."""
    adjectives = (COLOURS, SIZES, MATERIALS)[t.draw((0.6, 0.2, 0.2))]
    same = n > 1 and t.chance(0.5)
    nouns = [t.choice(TOYS)] * n if same else t.sample(TOYS, n)
    return [Thing(noun, adjective) for noun, adjective in zip(nouns, t.sample(adjectives, n))]


def places(t: Teller, n: int) -> list[Formed]:
    """Draw n places to go to."""
    return [location(text, "place") for text in t.sample(PLACES, n)]


def spots(t: Teller, n: int) -> list[Formed]:
    """Draw n spots where a small thing can lie."""
    return [location(text, "container") for text in t.sample(SPOTS, n)]


def rotations(three: Sequence[T]) -> Iterator[tuple[T, T, T]]:
    """Yield each of three values followed by the two others in cyclic order."""
    first, second, third = three
    yield first, second, third
    yield second, third, first
    yield third, first, second
