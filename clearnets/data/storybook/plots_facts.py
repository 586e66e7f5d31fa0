"""Plots about what is known: orders, weathers, foods, tools, colours, voices, contraries.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences of sentences.toml say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

from clearnets.data.storybook.entities import (
    Thing,
    Words,
    cast,
    places,
    rotations,
    task,
    things,
)
from clearnets.data.storybook.lexicon import (
    ANIMALS,
    DAYS,
    JOBS,
    KINDS,
    MIXES,
    OPPOSITES,
    SCALES,
    TOYS,
    TRAITS,
    WEATHERS,
)
from clearnets.data.storybook.teller import Teller, query


def compare(t: Teller) -> None:
    """Tell who is the tallest, which follows from two comparisons."""
    beings = cast(t, 3)
    scale = t.choice(SCALES)
    more, less = Words(scale.more), Words(scale.less)
    most, least = Words(scale.most), Words(scale.least)
    high, mid, low = t.sample(beings, 3)
    t.tell("trio")
    t.tell("home_and_food", m=mid)
    facts = [(high, mid), (mid, low)]
    if t.chance(0.5):
        facts.reverse()
    for name, (upper, lower) in zip(("one", "two"), facts):
        if t.chance(0.5):
            t.tell(name, p=upper, q=lower, more=more)
        else:
            t.tell(name, p=lower, q=upper, more=less)
    t.tell("sum", most=most, least=least, o=high, l=low)
    t.tell("task", task=Words(scale.most_did))
    t.tell("least", task=Words(scale.least_did))
    queries = [
        query("who", mid, low, o=high, word=most),
        query("who", mid, high, o=low, word=least),
    ]
    for p, q, other in ((high, mid, low), (mid, low, high), (high, low, mid)):
        queries.append(query("pair", p, other, l=q, more=more, yes=Words("Yes"), word=more))
        queries.append(query("pair", q, other, l=p, more=more, yes=Words("No"), word=less))
    t.close("differ", queries)


def race(t: Teller) -> None:
    """Tell how three runners overtake each other."""
    beings = cast(t, 3, traits=t.sample(TRAITS, 3))
    (x,), (w,) = things(t, 1), places(t, 1)
    order = t.sample(beings, 3)
    start = list(order)
    t.tell("trio")
    t.tell("prize", x=x, w=w)
    t.tell("start", p=order[0], q=order[1], r=order[2])
    for _ in range(2):
        i = 1 + t.choice(range(2))
        t.tell("pass", p=order[i], q=order[i - 1])
        order[i], order[i - 1] = order[i - 1], order[i]
    order[0].feel("win")
    order[2].feel("defeat")
    t.tell("end", p=order[0], q=order[1], r=order[2])
    t.tell("get")
    ranks = ("first", "second", "last")
    queries = []
    for (o, p, q), rank in zip(rotations(order), ranks):
        queries.append(query("who", p, q, o=o, nth=Words(rank)))
        guess, true = t.choice(range(3)), start.index(o)
        yes = Words("Yes" if guess == true else "No")
        queries.append(
            query("where", p, o, nth=Words(ranks[guess]), yes=yes, mth=Words(ranks[true]))
        )
    t.close("slow" if start[0] is order[0] else "win", queries)


def week(t: Teller) -> None:
    """Tell of the weather of three days, what is worn and done."""
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    start = t.choice(range(7))
    days = [Words(DAYS[(start + i) % 7]) for i in range(4)]
    weathers = t.sample(WEATHERS, 3)
    t.tell("hero")
    t.tell("friend")
    queries = [query("next", a, b, d=days[3])]
    for day, weather in zip(days, weathers):
        happened, wear = Words(weather.happened, "weather"), Words(weather.wear)
        t.tell("day", d=day, weather=happened, wear=wear, did=Words(weather.did))
        queries.append(query("wore", b, a, d=day, weather=happened, wear=wear))
        queries.append(query("when", b, a, d=day, weather=happened, wear=wear))
    t.close("plan", queries)


def feast(t: Teller) -> None:
    """Tell how each eats its own food and two plates are mixed up."""
    beings = cast(t, 3)
    t.tell("trio")
    t.tell("cook")
    p, q = t.sample(beings, 2)
    (r,) = (being for being in beings if being not in (p, q))
    p.mood = "angry" if t.chance(0.3) else ""
    t.tell("mixed", p=p, q=q, r=r)
    t.tell("cry")
    p.mood = ""
    t.tell("swap")
    t.tell("rest")
    queries = []
    for o, asker, answerer in rotations(beings):
        queries.append(query("who", asker, answerer, o=o))
        queries.append(query("eats", asker, answerer, o=o))
    t.close("share", queries)


def riddle(t: Teller) -> None:
    """Tell riddles: who lives there, who eats that, who speaks so."""
    beings = cast(t, 3, species=t.sample(ANIMALS, 3))
    t.tell("trio")
    t.tell("start")
    turns = list(rotations(beings))
    riddles = t.sample(("home", "food", "both"), 2)
    for name, i in zip(riddles, t.sample(range(3), 2)):
        o, q, p = turns[i]
        t.tell(name, p=p, q=q, o=o)
    t.tell("cry", o=t.choice(beings))
    queries = []
    for o, p, q in turns:
        queries.append(query("guess", p, q, o=o, g=p))
        queries.append(query("eats", p, q, o=o))
    t.close("differ", queries)


def tools(t: Teller) -> None:
    """Tell of the right tool for a job, which has been lent on."""
    a, b, c = cast(t, 3)
    job, other = t.sample(JOBS, 2)
    (w,) = places(t, 1)
    t.tell("trio")
    t.tell("need", j=task(job), k=task(other), w=w)
    t.tell("chain")
    t.tell("place")
    t.tell("done")
    queries = [query("where", b, a), query("who", a, b), query("what", c, a)]
    t.close("help", queries)


def paint(t: Teller) -> None:
    """Tell how two colours are mixed, and a thing changes its colour."""
    a, b = cast(t, 2)
    nouns = t.sample(TOYS, 2)
    before = t.sample(("white", "black", "red", "blue"), 2)
    x, y = (Thing(noun, colour) for noun, colour in zip(nouns, before))
    x_mix, y_mix, _ = t.sample(MIXES, 3)
    t.tell("plain_hero")
    t.tell("short_friend")
    t.tell("have", x=x, y=y)
    for being, thing, (one, two, made) in ((a, x, x_mix), (b, y, y_mix)):
        if t.chance(0.5):
            one, two = two, one
        t.tell("mix", p=being, u=thing, i=Words(one), j=Words(two), k=Words(made))
        thing.repaint(made)
    t.tell("like")
    t.tell("swap")
    t.close("share")


def opposites(t: Teller) -> None:
    """Tell of twins who want the contrary."""
    a, b = cast(t, 2, species=[t.choice(KINDS)] * 2, by_name=True)
    pairs = t.sample(OPPOSITES, 3)
    t.tell("twins")
    t.tell("same")
    contrary = []
    for frame, *sides in pairs:
        one, two = (Words(frame.format(side)) for side in sides)
        if t.chance(0.5):
            one, two = two, one
        p, q = (a, b) if t.chance(0.5) else (b, a)
        contrary.append((p, q, one, two))
        t.tell("do", p=p, q=q, one=one, two=two)
    t.tell("day")
    for p, q, one, two in t.sample(contrary, 2):
        if t.size > 96:
            break
        t.tell("changed", p=p, q=q, one=one, two=two)
    t.close("differ")


def chorus(t: Teller) -> None:
    """Tell how each animal sings in its own voice, in the order of a leader."""
    beings = cast(t, 3, species=t.sample(ANIMALS, 3))
    order = t.sample(beings, 3)
    t.tell("trio")
    t.tell("home_and_food", m=order[1])
    t.tell("lead", p=order[0], q=order[1], r=order[2])
    t.tell("back")
    t.tell("heard", o=t.choice(order))
    turns = list(rotations(order))
    queries = [query("who", p, q, o=o) for o, p, q in turns]
    for u, v, other in turns[:2]:
        queries.append(query("after", other, u, u=u, v=v))
    t.close("differ", queries)
