"""Plots about where things are, who has them and how many there are.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences of sentences.toml say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

from functools import partial

from clearnets.data.storybook.entities import (
    Words,
    cast,
    location,
    places,
    quantity,
    rotations,
    spots,
    things,
)
from clearnets.data.storybook.lexicon import COINS, NESTING, STOCKS, TRAITS
from clearnets.data.storybook.teller import Teller, query


def hide(t: Teller) -> None:
    """Tell how a thing is hidden, moved while its owner is away, and looked for."""
    twice = t.chance(0.5)
    a, b = cast(t, 2, traits=None if twice else [*t.sample(TRAITS, 1), ""])
    (x,), (w,) = things(t, 1), places(t, 1)
    s1, s2, s3 = spots(t, 3)
    if twice:
        t.tell("pair")
    else:
        t.tell("short_hero")
        t.tell("short_friend")
    t.tell("put", x=x, w=w, s1=s1, s2=s2, s3=s3)
    t.tell("move")
    if twice:
        t.tell("again")
    t.tell("look")
    if not twice:
        a.feel("loss")
        t.tell("felt")
    t.tell("ask", speaker=a)
    t.tell("tell", speaker=b, s=s3 if twice else s2)
    if t.size < 95:
        t.tell("found")
    t.close("look")


def swap(t: Teller) -> None:
    """Tell how three own one thing each and trade."""
    beings = cast(t, 3)
    first = things(t, 3)
    has = list(first)
    t.tell("trio")
    t.tell("have", x=has[0], y=has[1], z=has[2])
    steps = 2 + t.choice(range(2))
    last = None
    for step in range(steps):
        # Never the same pair twice running: that would undo the trade.
        last = i, j = t.choice([pair for pair in ((0, 1), (0, 2), (1, 2)) if pair != last])
        t.bind(p=beings[i], q=beings[j], u=has[i], v=has[j])
        t.tell("step" if step == 0 or (steps == 2 and t.chance(0.5)) else "swapped")
        has[i], has[j] = has[j], has[i]
    t.tell("owned", x=has[0], y=has[1], z=has[2])
    queries = []
    for (being, asker, other), now, before in zip(rotations(beings), has, first):
        queries.append(query("who", asker, other, u=now, o=being))
        queries.append(query("what", asker, being, u=now))
        queries.append(query("first", other, being, u=before))
    t.close("share", queries)


def count(t: Teller) -> None:
    """Tell how things are found, given and lost."""
    a, b = beings = cast(t, 2)
    stock = t.choice(STOCKS)
    number = partial(quantity, stock=stock, adjective=t.choice(stock.adjectives), repeated=True)
    have = [2 + t.choice(range(4)), 1 + t.choice(range(3))]
    t.tell("plain_hero")
    t.tell("plain_friend")
    t.tell("have", n=number(have[0], repeated=False), m=number(have[1], repeated=False))
    for _ in range(2):
        i = 0 if have[0] >= have[1] else 1
        event = t.choice(("give", "lose", "find")) if have[i] > 1 else "find"
        if event == "find":
            i = 1 - i
        k = 1 + t.choice(range(3 if event == "find" else min(3, have[i] - 1)))
        have[i] += k if event == "find" else -k
        if event == "give":
            have[1 - i] += k
        t.bind(p=beings[i], q=beings[1 - i], k=number(k))
        t.tell(event, n=number(have[i]), m=number(have[1 - i]))
    queries = [
        query("mine", a, b, n=number(have[1])),
        query("mine", b, a, n=number(have[0])),
        query("all", a, b, n=number(sum(have))),
    ]
    if have[0] != have[1]:
        more = a if have[0] > have[1] else b
        queries.append(query("more", b, a, o=more, k=number(abs(have[0] - have[1]))))
    t.close("share", queries)


def nested(t: Teller) -> None:
    """Tell of a thing in a purse in a bag in a cart, of which a part is left behind."""
    a, b = cast(t, 2)
    x, y = things(t, 2)
    w1, w2 = places(t, 2)
    pool = [i for i, noun in enumerate(NESTING) if noun not in (x.noun, y.noun)]
    inner = [location(f"in {NESTING[i]}", "container") for i in sorted(t.sample(pool, 3))]
    t.tell("plain_hero")
    t.tell("short_friend")
    t.tell("pack", x=x, y=y, w1=w1, w2=w2, c1=inner[0], c2=inner[1], c3=inner[2])
    y_in = 1 + t.choice(range(2))
    t.tell("also", e=inner[y_in])
    left = t.choice(range(2))
    t.tell("go", g=inner[left])
    # What lies in the container that was left, or deeper, stays at the first place.
    queries = []
    for thing, level in ((x, 0), (y, y_in)):
        where, yes = (w1, "No") if level <= left else (w2, "Yes")
        queries.append(query("where", b, a, u=thing, w=where, e=inner[level]))
        queries.append(query("with", b, a, u=thing, w=where, yes=Words(yes)))
    t.close("look", queries)


def path(t: Teller) -> None:
    """Tell of a walk there and back, meeting the same folk in reversed order."""
    a, b, c = cast(t, 3)
    walk = places(t, 4)
    t.tell("plain_hero")
    t.tell("go", w1=walk[0], w2=walk[1], w3=walk[2], w4=walk[3])
    t.tell("meet")
    t.tell("back")
    t.tell("again")
    queries = [
        query("where", c, a, o=b, w=walk[1]),
        query("where", b, a, o=c, w=walk[2]),
    ]
    for i in (1, 2):
        queries.append(query("after", b, a, w=walk[i], v=walk[i + 1], back=Words("there")))
        queries.append(query("after", c, a, w=walk[i], v=walk[i - 1], back=Words("back")))
    t.close("help", queries)


def market(t: Teller) -> None:
    """Tell how coins are spent until something is too dear."""
    a, b = cast(t, 2)
    x, y = things(t, 2)
    (w,) = places(t, 1)
    coins = 4 + t.choice(range(6))
    prices = {x: 2 + t.choice(range(2)), y: 2 + t.choice(range(4))}
    number = partial(quantity, stock=COINS, adjective="golden", repeated=True)
    t.tell("plain_hero")
    t.tell("coins", n=number(coins, repeated=False), w=w)
    t.tell("prices", x=x, y=y, i=number(prices[x]), j=number(prices[y]))
    first, second = (x, y) if t.chance(0.5) else (y, x)
    if prices[first] > coins:
        # The cheaper of two things fits into any purse of this plot.
        first, second = second, first
    left = coins - prices[first]
    t.tell("buy", u=first, k=number(prices[first]), m=number(left))
    enough = prices[second] <= left
    lacking = "not" if left else "empty"
    if enough:
        left -= prices[second]
    t.tell("also" if enough else lacking, v=second, k=number(prices[second]), m=number(left))
    queries = [
        query("left", b, a, m=number(left)),
        query("sum", a, b, k=number(sum(prices.values()))),
        query("paid", b, a, u=x, k=number(prices[x])),
        query("paid", b, a, u=y, k=number(prices[y])),
    ]
    t.close("save", queries)


def line(t: Teller) -> None:
    """Tell how three stand in a line and change places."""
    beings = cast(t, 3)
    t.tell("trio")
    order = t.sample(beings, 3)
    start = list(order)
    t.tell("home_and_food", m=order[0])
    t.tell("stand", p=order[0], q=order[1], r=order[2])
    for _ in range(2):
        i, j = t.choice(((0, 1), (1, 2), (0, 2)))
        t.tell("outer" if (i, j) == (0, 2) else "swap", p=order[i], q=order[j])
        order[i], order[j] = order[j], order[i]
    t.tell("now", p=order[0], q=order[1], r=order[2])
    queries = []
    sides = ("on the left", "in the middle", "on the right")
    for (now, p, q), before, side in zip(rotations(order), start, sides):
        queries.append(query("who", p, q, o=now, there=Words(side)))
        queries.append(query("was", p, q, o=before, there=Words(side)))
    t.close("differ", queries)


def turns(t: Teller) -> None:
    """Tell whose turn it is, which follows from counting round (test splits only)."""
    beings = cast(t, 3)
    (x,) = things(t, 1)
    order = t.sample(beings, 3)
    t.tell("trio")
    t.tell("home_and_food", m=order[1])
    t.tell("rule", x=x, p=order[0], q=order[1], r=order[2])
    t.tell("round")
    t.tell("next", u=order[0], v=order[1])
    queries = []
    for u, v, other in rotations(order):
        queries.append(query("who", other, v, u=u, v=v))
        queries.append(query("before", other, u, u=u, v=v))
    t.close("share", queries)
