"""Questions with a known answer, as pairs of stories that differ in one fact.

A pair is one story told twice from the same draws; the second time two values are exchanged: who
is male and who is female, who has what, which of two places comes first. Both stories end with the
same words up to one in which they differ: the right answer to one is the wrong answer to the other.
The two prompts hold the same tokens as often, in another order. So whoever only counts tokens
answers at most half of all prompts rightly.

All pairs of a task share their wording, so that position i plays the same part in each; the first
sentence is worded as no story outside the test splits is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from itertools import permutations
from random import Random
from typing import Any, NamedTuple, TypeVar

from clearnets.data.storybook.entities import (
    Thing,
    Words,
    cast,
    location,
    places,
    quantity,
    task,
    things,
)
from clearnets.data.storybook.lexicon import (
    COLOURS,
    JOBS,
    MIXES,
    NAMES,
    OPPOSITES,
    SCALES,
    SPOTS,
    STOCKS,
    TOYS,
    TRAITS,
    WEATHERS,
)
from clearnets.data.storybook.teller import Teller
from clearnets.data.storybook.templates import PHRASES, Phrases, Template, compile_template

T = TypeVar("T")
LABELS = ("Monday", "purse")
"""The answers of the control, each of half of the names."""
_BY_LOT = Random(0).sample(NAMES, len(NAMES))


class Pair(NamedTuple):
    """A story and its counterpart, up to the last word in which they differ: the answers, with the
    space before them."""

    clean: str
    corrupt: str
    right: str
    wrong: str
    """The answer to the counterpart."""


class _Asker(Teller):
    """A teller that words all stories of a task alike, and knows which of the two it tells."""

    __slots__ = ("flipped",)

    def __init__(self, random: Random, *, flipped: bool) -> None:
        super().__init__(random, test=True)
        self.flipped = flipped

    def phrase(self, phrases: Phrases) -> Template:
        """Return the held-out wording of the first sentence, and otherwise that of the style."""
        if phrases.held_out and not self.tokens:
            return phrases.held_out[0]
        return phrases.shared[self.style % len(phrases.shared)]

    def exchanged(self, one: T, other: T) -> tuple[T, T]:
        """Return two values, in the counterpart in reversed order."""
        return (other, one) if self.flipped else (one, other)

    def ask(self, name: str, until: str, **values: Any) -> None:
        """Tell the beginning of a sentence, up to and with the answer."""
        self.bound.update(values)
        wordings = self.phrases[name].texts
        text = next(text for text in wordings if until in text)
        self.append(_compiled(text[: text.index(until) + len(until)]))


_compiled = cache(compile_template)


def _pronoun(t: _Asker) -> None:
    """Which pronoun refers to a character, whose gender was told by another pronoun."""
    a, b = cast(t, 2, by_name=True)
    a.male, b.male = t.exchanged(True, False)
    t.tell("pair")
    t.tell("home_and_food", m=a)
    t.tell("home_and_food", m=b)
    (x,), (w,) = things(t, 1), places(t, 1)
    spot = location(t.choice(SPOTS), "container")
    t.ask("put", "Then {a.he}", a=b, x=x, w=w, s1=spot)


def _agreement(t: _Asker) -> None:
    """Whether a noun is plural, by how many are left after some were given away."""
    a, b = cast(t, 2, by_name=True)
    stock = t.choice(STOCKS)
    adjective = t.choice(stock.adjectives)

    def number(n: int) -> Any:
        return quantity(n, stock, adjective, repeated=True)

    have = 3 + t.choice(range(2))
    given, left = t.exchanged(1, have - 1)
    t.tell("plain_hero")
    t.tell("plain_friend")
    t.tell("have", n=number(have), m=number(2 + t.choice(range(2))))
    t.ask("give", "Then {p.name} had *{n.short}", p=a, q=b, k=number(given), n=number(left))


def _owner(t: _Asker) -> None:
    """What somebody has after a swap."""
    a, b, _ = cast(t, 3, by_name=True)
    noun, colours = t.choice(TOYS), t.sample(COLOURS, 3)
    first, second, third = (Thing(noun, colour) for colour in colours)
    x, y = t.exchanged(first, second)
    t.tell("trio")
    t.tell("have", x=x, y=y, z=third)
    t.tell("step", p=a, q=b, u=x, v=y)
    t.ask("owned", "Now {a} had *{x.the}", x=y)


def _place(t: _Asker) -> None:
    """Where somebody looks for a thing that was moved while they were away."""
    cast(t, 2, by_name=True)
    (x,), (w,) = things(t, 1), places(t, 1)
    spots = t.sample([spot for spot in SPOTS if spot.startswith("in ")], 2)
    s1, s2 = t.exchanged(*(location(spot, "container") for spot in spots))
    t.tell("pair")
    t.tell("put", x=x, w=w, s1=s1, s2=s2)
    t.tell("move")
    t.ask("look", "{a.he} looked *{s1.at}")


def _contrast(t: _Asker) -> None:
    """What one of two contrary twins does on the day on which they change places."""
    a, b = cast(t, 2, by_name=True)
    b.kind = a.kind
    frame, *sides = t.choice(OPPOSITES)
    one, two = t.exchanged(*(Words(frame.format(side)) for side in sides))
    t.tell("twins")
    t.tell("same")
    t.tell("do", p=a, q=b, one=one, two=two)
    t.tell("day")
    t.ask("changed", "So that day {p.name} *{two}")


def _mix(t: _Asker) -> None:
    """Which colour two paints make."""
    a, _ = cast(t, 2, by_name=True)
    first, second = t.choice([(m, n) for m, n in permutations(MIXES, 2) if set(m[:2]) & set(n[:2])])
    (common,) = set(first[:2]) & set(second[:2])
    mixed, other = t.exchanged(first, second)
    (spare,) = set(other[:2]) - {common}
    (added,) = set(mixed[:2]) - {common}
    y = Thing(t.choice(TOYS), t.choice(("white", "black")))
    t.tell("plain_hero")
    t.tell("short_friend")
    t.tell("have", x=Thing(t.choice(TOYS), spare), y=y)
    words = {"i": Words(common), "j": Words(added), "k": Words(mixed[2])}
    t.ask("mix", "{i.c} and {j.c}, and that made *{k.c}", p=a, **words)


def _most(t: _Asker) -> None:
    """What the most of three is called, by the comparison told last."""
    a, b, c = cast(t, 3, by_name=True)
    before, now = t.exchanged(*t.sample(SCALES, 2))
    t.tell("trio")
    t.tell("one", p=a, q=b, more=Words(before.more))
    t.tell("two", p=b, q=c, more=Words(now.more))
    t.ask("sum", "So *{o.name} was the {most}", o=a, most=Words(now.most))


def _tool(t: _Asker) -> None:
    """Which tool is needed for the job asked about last."""
    a, b, _ = cast(t, 3, by_name=True)
    # An article tells of an axe.
    jobs = [job for job in JOBS if job.tool != "axe"]
    before, now = t.exchanged(*(task(job) for job in t.sample(jobs, 2)))
    t.tell("trio")
    t.ask("what", 'need to {k.do}?" asked {p}.', k=before, p=a)
    t.ask("what", 'need to {k.do}?" asked {p}. "You need *{k.atool}', k=now, p=b)


def _wear(t: _Asker) -> None:
    """What somebody wears in the weather asked about last."""
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2), by_name=True)
    before, now = t.exchanged(*t.sample(WEATHERS, 2))
    t.tell("hero")
    t.tell("friend")
    t.ask("wore", 'when it {weather}?" asked {p}.', weather=Words(before.happened), p=a)
    until = 'when it {weather}?" asked {p}. "I put on my *{wear}'
    t.ask("wore", until, weather=Words(now.happened), wear=Words(now.wear), p=b)


def _nonsense(t: _Asker) -> None:
    """Control: a word that a name was given by lot and that nothing in any story tells."""
    a, b = cast(t, 2, by_name=True)
    half = len(NAMES) // 2
    a.name, b.name = t.exchanged(t.choice(_BY_LOT[:half]), t.choice(_BY_LOT[half:]))
    t.tell("pair")
    t.tell("home_and_food", m=a)
    t.tell("home_and_food", m=b)
    t.append(_compiled(f"{{b.name}} and {{a.name}} {LABELS[_BY_LOT.index(a.name) >= half]}"))


class _Task(NamedTuple):
    ask: Callable[[_Asker], None]
    plot: str
    style: int


_TASKS = {
    "pronoun": _Task(_pronoun, "hide", 1),
    "agreement": _Task(_agreement, "count", 3),
    "owner": _Task(_owner, "swap", 0),
    "place": _Task(_place, "hide", 0),
    "contrast": _Task(_contrast, "opposites", 0),
    "mix": _Task(_mix, "paint", 0),
    "most": _Task(_most, "compare", 0),
    "tool": _Task(_tool, "tools", 0),
    "wear": _Task(_wear, "week", 0),
    "nonsense": _Task(_nonsense, "hide", 0),
}
TASKS = tuple(_TASKS)
CONTROL = "nonsense"


def pairs(task: str, seed: int) -> Iterator[Pair]:
    """Yield pairs of a task of TASKS, without end."""
    for number in itertools.count():
        digest = blake2b(f"{seed}/{task}/{number}".encode(), digest_size=8).digest()
        told = [_tell(_TASKS[task], digest, flipped=flipped) for flipped in (False, True)]
        words = [re.findall(r" ?\S+", story) for story in told]
        while words[0][-1] == words[1][-1]:
            words = [story[:-1] for story in words]
        clean, corrupt = ("".join(story[:-1]) for story in words)
        yield Pair(clean, corrupt, words[0][-1], words[1][-1])


def _tell(task: _Task, digest: bytes, *, flipped: bool) -> str:
    asker = _Asker(Random(int.from_bytes(digest, "big")), flipped=flipped)
    asker.phrases, asker.style = PHRASES[task.plot], task.style
    task.ask(asker)
    return asker.finish()[0]
