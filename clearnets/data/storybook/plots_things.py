"""Plots about where things are, who has them and how many there are.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

from clearnets.data.storybook.lexicon import COINS, NESTING, STOCKS, TRAITS
from clearnets.data.storybook.sentences import (
    FELT,
    GENDERS,
    LETTERS,
    PAIR,
    PLAIN_FRIEND,
    PLAIN_HERO,
    SHORT_FRIEND,
    SHORT_HERO,
    TRIO,
    Query,
    cast,
    close,
    places,
    spots,
    things,
)
from clearnets.data.storybook.world import Count, Phrases, Teller, Where, Words, ask, exchange, say

# --- hide: a thing is hidden, moved while its owner is away, and looked for ------------------

_HIDE_PUT = Phrases(
    "{a} had {x.a}. {a.He} put {x.thenoun} {s1.at} and {a.moved} to {w.the}.",
    "One day {a} hid {x.a} {s1.at}. Then {a.he} {a.moved} to {w.the}.",
    "{a} kept {x.a} {s1.at}. One morning {a.he} {a.moved} to {w.the}.",
    "{a} left^ {a.his} {x.full} {s1.at} and {a.moved} away to {w.the}.",
    test=("Before {a.he} {a.moved} to {w.the}, {a} laid {x.a} {s1.at}.",),
)
_HIDE_MOVE = Phrases(
    "While {a} was {w.at}, {b} took {x.the} and hid it {s2.at}.",
    "Soon {b} came, found {x.the} and put it {s2.at}.",
    "Then {b} came and moved {x.the}. Now it was {s2.at}.",
    "But {b} saw {x.the}, took it and left^ it {s2.at}.",
    test=("{b} {b.moved} in, picked up {x.the} and dropped it {s2.at}.",),
)
_HIDE_AGAIN = Phrases(
    "Later {b.he} moved it again and put it {s3.at}.",
    "After that {b.he} took *{x.the} out and hid it {s3.at}.",
    "But {b.he} was not happy with that and moved it. Now it was {s3.at}.",
    "In the afternoon {b.he} carried it away and left^ it {s3.at}.",
    test=("At noon {b.he} changed {b.his} plan and laid it {s3.at}.",),
)
_HIDE_LOOK = Phrases(
    "When {a} came home, {a.he} looked *{s1.at}, but *{x.the} was not there.",
    "In the evening {a} came back and looked *{s1.at}. There was no *{x.noun}!",
    "Then {a} {a.moved} back from *{w.the} and looked *{s1.at}. It was empty.",
    "Back home, {a} looked for {a.his} *{x.noun} *{s1.at}. It was gone!",
    test=("{a} {a.moved} home and reached for *{x.the} *{s1.at}, but it was gone.",),
)
_HIDE_ASK = ask(
    "Where is my *{x.full}", "Who has seen my *{x.full}", test=("Who took my *{x.noun}",)
)
_HIDE_TELL = say(
    "It is *{s.at}", "I put it *{s.at}", "Look *{s.at}", test=("You will find it *{s.at}",)
)
_HIDE_FOUND = Phrases(
    "{a} looked *{s.at} and found *{x.the}.",
    "So {a} {a.moved} there, and there was *{x.the}.",
    "And there it was, *{x.the}, *{s.at}.",
    "{a} {a.moved} to *{s.the}. *{x.The} was there.",
    test=("And *{s.at} lay *{x.the}, as good as new.",),
)
_HIDE_FIRST = exchange(
    ("Where was the *{x.noun} this morning", "It was *{s1.at}"),
    ("Where did I leave *{x.thenoun}", "You left^ it *{s1.at}"),
)
_HIDE_SECOND = exchange(
    ("Where did you put it first", "I put it *{s2.at}"),
    ("Where was it before that", "It was *{s2.at}"),
)
_HIDE_WAS = exchange(
    ("Where were you when I moved it", "I was *{w.at}"),
    ("Where did you go today", "I went *{w.to}"),
)


def hide(t: Teller) -> None:
    twice = t.chance(0.5)
    a, b = cast(t, 2, traits=None if twice else [*t.sample(TRAITS, 1), ""])
    (x,), (w,) = things(t, 1), places(t, 1)
    s1, s2, s3 = spots(t, 3)
    if twice:
        t.tell(PAIR)
    else:
        t.tell(SHORT_HERO)
        t.tell(SHORT_FRIEND)
    t.bind(x=x, w=w, s1=s1, s2=s2, s3=s3)
    t.tell(_HIDE_PUT)
    t.tell(_HIDE_MOVE)
    if twice:
        t.tell(_HIDE_AGAIN)
    t.tell(_HIDE_LOOK)
    if not twice:
        a.feel("loss")
        t.tell(FELT["a"])
    t.tell(_HIDE_ASK)
    t.tell(_HIDE_TELL, s=s3 if twice else s2)
    if t.size < 95:
        t.tell(_HIDE_FOUND)
    a.mood = ""
    queries = [Query(_HIDE_FIRST, a, b, {}), Query(_HIDE_WAS, b, a, {})]
    if twice:
        queries.append(Query(_HIDE_SECOND, a, b, {}))
    close(t, queries, "look")


# --- swap: three own one thing each and trade ------------------------------------------------

_SWAP_HAVE = Phrases(
    "{a} had {x.a}, {b} had {y.a} and {c} had {z.a}.",
    "{a} brought {x.a}, {b} brought {y.a} and {c} brought {z.a}.",
    "{x.A} belonged to {a}, {y.a} to {b} and {z.a} to {c}.",
    "{a} played with {x.a}, {b} with {y.a} and {c} with {z.a}.",
    test=("{a} came with {x.a}, {b} with {y.a} and {c} with {z.a}.",),
)
_SWAP_STEP = Phrases(
    "Then {p} gave *{u.the} to {q} and got *{v.the}.",
    "{p} and {q} swapped. Now {p.name} had *{v.the} and {q.name} had *{u.the}.",
    "{p} wanted *{v.the}, so {q} took *{u.the} for it.",
    "After that {p} traded *{u.the} for *{v.the} of {q}.",
    test=("Soon {p} handed *{u.the} to {q} and received *{v.the}.",),
)
_SWAP_SILENT = Phrases(
    "Then {p} and {q} swapped.",
    "After that {p} and {q} swapped their toys.",
    "Then the owner of *{u.the} and the owner of *{v.the} swapped.",
    "Soon {p} traded with {q}.",
    "Then {p} swapped with {q}.",
    test=("A little later {p} and {q} changed toys.",),
)
_SWAP_END = Phrases(
    "Now {a} had *{x.the}, {b} had *{y.the} and {c} had *{z.the}.",
    "In the end *{x.the} was with {a}, *{y.the} with {b} and *{z.the} with {c}.",
    "So {a} went home with *{x.the}, {b} with *{y.the} and {c} with *{z.the}.",
    "That day {a} kept *{x.the}, {b} kept *{y.the} and {c} kept *{z.the}.",
    test=("That evening {a} kept *{x.the}, {b} *{y.the} and {c} *{z.the}.",),
)
_SWAP_WHO = exchange(
    ("Who has {u.the} now", "*{o.name} has it"),
    ("Who got {u.the}", "*{o.name} got it"),
    test=(("Who holds {u.the}", "*{o.name} does"),),
)
_SWAP_WHAT = exchange(
    ("What do you have now", "I have *{u.the}"),
    ("What did you get", "I got *{u.the}"),
)
_SWAP_FIRST = exchange(
    ("What did you have at first", "I had *{u.the}"),
    ("What did you bring", "I brought *{u.the}"),
)


def swap(t: Teller) -> None:
    beings = cast(t, 3)
    first = things(t, 3)
    has = list(first)
    t.tell(TRIO)
    t.tell(_SWAP_HAVE, x=has[0], y=has[1], z=has[2])
    steps = 2 + t.choice(range(2))
    last = None
    for step in range(steps):
        # Never the same pair twice running: that would undo the trade.
        pair = t.choice([k for k in ((0, 1), (0, 2), (1, 2)) if k != last])
        last = pair
        i, j = pair
        t.bind(p=beings[i], q=beings[j], u=has[i], v=has[j])
        t.tell(_SWAP_STEP if step == 0 or (steps == 2 and t.chance(0.5)) else _SWAP_SILENT)
        has[i], has[j] = has[j], has[i]
    t.tell(_SWAP_END, x=has[0], y=has[1], z=has[2])
    queries = []
    for i, being in enumerate(beings):
        asker, other = beings[(i + 1) % 3], beings[(i + 2) % 3]
        queries.append(Query(_SWAP_WHO, asker, other, {"u": has[i], "o": being}))
        queries.append(Query(_SWAP_WHAT, asker, being, {"u": has[i]}))
        queries.append(Query(_SWAP_FIRST, other, being, {"u": first[i]}))
    close(t, queries, "share")


# --- count: things are found, given and eaten ------------------------------------------------

_COUNT_HAVE = Phrases(
    "{a} had {n.np}. {b} had {m.np}.",
    "{a} found {n.np}, and {b} found {m.np}.",
    "In {a.his} bag {a} had {n.np}. In {b.his} bag {b} had {m.np}.",
    "One morning {a} got {n.np} and {b} got {m.np}.",
    test=("{a} counted {n.np}, while {b} counted {m.np}.",),
)
_COUNT_GIVE = Phrases(
    "{p} gave {k.n} to {q}. Now {p.name} had *{n.n} and {q.name} had *{m.n}.",
    "Then {p} gave {q} {k.short}, so {p.he} had *{n.n} left and {q.name} had *{m.n}.",
    "{q} asked for some, and {p} gave {k.n}. Then {p.name} had *{n.short} and {q.name} had *{m.n}.",
    "{p} shared {k.short} with {q}. That left *{n.n} for {p.name} and made *{m.n} for {q.name}.",
    test=("{p} handed {k.n} over to {q}, who then had *{m.n}, and {p.name} kept *{n.n}.",),
)
_COUNT_LOSE = Phrases(
    "Then {p} lost {k.n}, so {p.he} had *{n.n} left.",
    "On the way {p} dropped {k.n}. Now {p.he} had *{n.n}.",
    "But {k.n} fell into the water, and {p} had *{n.n} left.",
    "Then {p.name} lost {k.n}. That left *{n.n}.",
    test=("The wind took {k.n} from {p}, and *{n.n} stayed.",),
)
_COUNT_FIND = Phrases(
    "Then {p} found {k.n} more, so {p.he} had *{n.n}.",
    "On the way {p} found {k.n} more. Now {p.he} had *{n.n}.",
    "A friend gave {p} {k.n} more, and then {p.he} had *{n.n}.",
    "Soon {p} got {k.n} more. That made *{n.n}.",
    test=("Under a leaf {p} saw {k.n} more, which made *{n.n}.",),
)
_COUNT_MINE = exchange(
    ("How many {n.many} do you have", "I have *{n.n}"),
    ("How many {n.many} are in your bag", "There are *{n.n}"),
)
_COUNT_ALL = exchange(
    ("How many {n.many} do we have together", "We have *{n.n}"),
    ("How many {n.many} is that in all", "That makes *{n.n}"),
    test=(("What is the sum of our {n.many}", "It is *{n.n}"),),
)
_COUNT_MORE = exchange(
    ("Who has more {n.many}", "*{o.name} has more"),
    ("Which of us has more", "*{o.name} has *{k.n} more"),
)


def count(t: Teller) -> None:
    a, b = cast(t, 2)
    stock = t.choice(STOCKS)
    adjective = t.choice(stock.adjectives)
    have = [2 + t.choice(range(4)), 1 + t.choice(range(3))]

    def number(n: int, *, repeated: bool = True) -> Count:
        return Count(n, stock, adjective, repeated=repeated)

    t.tell(PLAIN_HERO)
    t.tell(PLAIN_FRIEND)
    t.tell(_COUNT_HAVE, n=number(have[0], repeated=False), m=number(have[1], repeated=False))
    for _ in range(2):
        i = 0 if have[0] >= have[1] else 1
        event = t.choice(("give", "lose", "find")) if have[i] > 1 else "find"
        if event == "find":
            i = 1 - i
        k = 1 + t.choice(range(3 if event == "find" else min(3, have[i] - 1)))
        beings = (a, b)
        t.bind(p=beings[i], q=beings[1 - i], k=number(k))
        if event == "give":
            have[i] -= k
            have[1 - i] += k
            t.tell(_COUNT_GIVE, n=number(have[i]), m=number(have[1 - i]))
        elif event == "lose":
            have[i] -= k
            t.tell(_COUNT_LOSE, n=number(have[i]))
        else:
            have[i] += k
            t.tell(_COUNT_FIND, n=number(have[i]))
    queries = [
        Query(_COUNT_MINE, a, b, {"n": number(have[1])}),
        Query(_COUNT_MINE, b, a, {"n": number(have[0])}),
        Query(_COUNT_ALL, a, b, {"n": number(sum(have))}),
    ]
    if have[0] != have[1]:
        more = a if have[0] > have[1] else b
        difference = number(abs(have[0] - have[1]))
        queries.append(Query(_COUNT_MORE, b, a, {"o": more, "k": difference}))
    close(t, queries, "share")


# --- nested: a thing in a purse in a bag in a cart, of which a part is left behind ------------

_NESTED_PACK = Phrases(
    "{a} put {x.a} in {c1.a}, {c1.the} in {c2.a} and {c2.the} in {c3.a}.",
    "{a} laid {x.a} in {c1.a}. {a.He} put {c1.the} in {c2.a} and {c2.the} in {c3.a}.",
    "{x.A} was in {c1.a}. {a} packed {c1.the} in {c2.a} and {c2.the} in {c3.a}.",
    "{a} had {x.a}. It went in {c1.a}, {c1.the} in {c2.a}, and {c2.the} in {c3.a}.",
    test=("{a} had {x.a} in {c1.a}, {c1.the} in {c2.a} and {c2.the} in {c3.a}.",),
)
_NESTED_ALSO = Phrases(
    "{a.He} also put {y.a} in *{e.the}.",
    "Then {a.he} put {y.a} in *{e.the}.",
    "In *{e.the} {a.he} also carried {y.a}.",
    "*{e.the} also held {y.a}.",
    test=("There was room for {y.a} in *{e.the}, too.",),
)
_NESTED_GO = Phrases(
    "{a.He} {a.moved} to {w1.the} and left^ *{g.the} there. "
    "With the rest {a.he} {a.moved} on to {w2.the}.",
    "{a.He} {a.moved} to {w1.the}, where {a.he} left^ *{g.the}. "
    "Then {a.he} {a.moved} to {w2.the} with the rest.",
    "At first {a} {a.moved} to {w1.the}. *{g.The} stayed there. "
    "The rest went with {a.him} to {w2.the}.",
    "*{g.The} was too heavy, so {a.he} left^ it {w1.at} and {a.moved} to {w2.the} with the rest.",
    test=("{a.He} dropped *{g.the} {w1.at} and {a.moved} to {w2.the} with the rest.",),
)
_NESTED_WHERE = exchange(
    ("Where is {u.the} now", "It is *{w.at}, in *{e.the}"),
    ("Where can I find {u.the}", "Look in *{e.the} *{w.at}"),
    test=(("Where must I go for {u.the}", "Go to *{w.the}"),),
)
_NESTED_WITH = exchange(
    ("Do you still have {u.the}", "*{yes}, it is *{w.at}"),
    ("Is {u.the} still with you", "*{yes}, it is *{w.at}"),
)


def nested(t: Teller) -> None:
    a, b = cast(t, 2)
    x, y = things(t, 2)
    w1, w2 = places(t, 2)
    taken = {x.noun, y.noun}
    pool = [i for i, noun in enumerate(NESTING) if noun not in taken]
    inner = [Where("in", NESTING[i], "container") for i in sorted(t.sample(pool, 3))]
    t.tell(PLAIN_HERO)
    t.tell(SHORT_FRIEND)
    t.bind(x=x, y=y, w1=w1, w2=w2, c1=inner[0], c2=inner[1], c3=inner[2])
    t.tell(_NESTED_PACK)
    y_in = 1 + t.choice(range(2))
    t.tell(_NESTED_ALSO, e=inner[y_in])
    left = t.choice(range(2))
    t.tell(_NESTED_GO, g=inner[left])
    # What lies in the container that was left, or deeper, stays at the first place.
    queries = []
    for thing, level in ((x, 0), (y, y_in)):
        there = level <= left
        where = w1 if there else w2
        queries.append(Query(_NESTED_WHERE, b, a, {"u": thing, "w": where, "e": inner[level]}))
        yes = Words("No" if there else "Yes")
        queries.append(Query(_NESTED_WITH, b, a, {"u": thing, "w": where, "yes": yes}))
    close(t, queries, "look")


# --- path: a walk there and back, meeting the same folk in reversed order ---------------------

_PATH_GO = Phrases(
    "One day {a} {a.moved} from {w1.the} to {w2.the}, then to {w3.the} and then to {w4.the}.",
    "{a} left^ {w1.the}, came to {w2.the}, passed {w3.the} and reached {w4.the}.",
    "{a} {a.moved} from {w1.the} to {w4.the}. On the way {a.he} passed {w2.the} and then {w3.the}.",
    "{a} wanted to see {w4.the}. From {w1.the} {a.he} {a.moved} to {w2.the} and to {w3.the}.",
    test=("From {w1.the} {a} {a.moved} to {w2.the}, to {w3.the} and on to {w4.the}.",),
)
_PATH_MEET = Phrases(
    "{w2.At} {a.he} met {b.name} the {b.kind}, and {w3.at} {a.he} met {c.name} the {c.kind}.",
    "{b.name} the {b.kind} was {w2.at} and {c.name} the {c.kind} was {w3.at}.",
    "{a.He} saw {b.name} the {b.kind} {w2.at} and {c.name} the {c.kind} {w3.at}.",
    "There was {b.name} the {b.kind} {w2.at}, and later {c.name} the {c.kind} {w3.at}.",
    test=("{w2.At} sat {b.name} the {b.kind}, and {w3.at} sat {c.name} the {c.kind}.",),
)
_PATH_BACK = Phrases(
    "On the way back {a.he} came first to *{w3.the}, then to *{w2.the} and at last to *{w1.the}.",
    "Then {a.he} turned around and passed *{w3.the}, then *{w2.the}, and was at *{w1.the} again.",
    "Going home {a.he} {a.moved} to *{w3.the}, to *{w2.the} and to *{w1.the}.",
    "The way home was the same. {a.He} saw *{w3.the}, *{w2.the} and then *{w1.the}.",
    test=("Back {a.he} {a.moved}, by way of *{w3.the} and *{w2.the}, to *{w1.the}.",),
)
_PATH_AGAIN = Phrases(
    "So {a.he} met *{c.name} first and then *{b.name}.",
    "This time *{c.name} came first and *{b.name} came second.",
    "{a.He} waved to *{c.name} first and to *{b.name} after that.",
    "Now *{c.name} saw {a.him} first, and *{b.name} saw {a.him} later.",
    test=("First *{c.name} waved, and later *{b.name} did.",),
)
_PATH_WHERE = exchange(
    ("Where did you meet {o.name}", "I met *{o.him} *{w.at}"),
    ("Where was {o.name}", "*{o.He} was *{w.at}"),
)
_PATH_AFTER = exchange(
    ("What comes after {w.the} on the way {back}", "*{v.the} does"),
    ("From {w.the}, what comes next on the way {back}", "It is *{v.the}"),
)


def path(t: Teller) -> None:
    a, b, c = cast(t, 3)
    walk = places(t, 4)
    t.tell(PLAIN_HERO)
    t.bind(w1=walk[0], w2=walk[1], w3=walk[2], w4=walk[3])
    t.tell(_PATH_GO)
    t.tell(_PATH_MEET)
    t.tell(_PATH_BACK)
    t.tell(_PATH_AGAIN)
    queries = [
        Query(_PATH_WHERE, c, a, {"o": b, "w": walk[1]}),
        Query(_PATH_WHERE, b, a, {"o": c, "w": walk[2]}),
    ]
    out, back = Words("there"), Words("back")
    for i in (1, 2):
        queries.append(Query(_PATH_AFTER, b, a, {"w": walk[i], "v": walk[i + 1], "back": out}))
        queries.append(Query(_PATH_AFTER, c, a, {"w": walk[i], "v": walk[i - 1], "back": back}))
    close(t, queries, "help")


# --- market: coins are spent until something is too dear --------------------------------------

_MARKET_COINS = Phrases(
    "{a} had {n.short} and {a.moved} to {w.the}.",
    "With {n.short} in {a.his} bag {a} {a.moved} to {w.the}.",
    "One day {a} took {a.his} {n.short} and {a.moved} to {w.the}.",
    "{a} saved {n.short}. Then {a.he} {a.moved} to {w.the}.",
    test=("{a.His} {n.short} were all that {a} took to {w.the}.",),
)
_MARKET_PRICES = Phrases(
    "There {b.name} the {b.kind} sold {x.a} for {i.short} and {y.a} for {j.short}.",
    "{b.name} the {b.kind} was there. {x.A} cost {i.short} and {y.a} cost {j.short}.",
    "{b.name} the {b.kind} asked {i.short} for {x.a} and {j.short} for {y.a}.",
    "{b.name} the {b.kind} had {x.a} for {i.short} and {y.a} for {j.short}.",
    test=("At the table of {b.name} the {b.kind}, {x.a} was {i.short} and {y.a} {j.short}.",),
)
_MARKET_BUY = Phrases(
    "{a} bought {u.the}, paid *{k.short} and had *{m.n} left.",
    "{a.He} gave {b} *{k.short} for {u.the}. Now {a.he} had *{m.n} left.",
    "{a} took {u.the} for *{k.short}, so *{m.n} stayed in {a.his} bag.",
    "For {u.the} {a} gave *{k.short}, and *{m.n} were left.",
    test=("For {u.the} {a} counted out *{k.short}, and *{m.n} remained.",),
)
_MARKET_ALSO = Phrases(
    "*{v.The} cost *{k.n}, so {a.he} bought it, too, and had *{m.n} left.",
    "Then {a.he} paid *{k.n} for *{v.the} and had *{m.n} left.",
    "{a.He} took *{v.the}, too. It cost *{k.n}, and *{m.n} stayed in {a.his} bag.",
    "*{v.the} was *{k.n}. {a.He} bought that, too, and kept *{m.n}.",
    test=("*{v.the} was *{k.n}, so {a.he} took that, too, and kept *{m.n}.",),
)
_MARKET_NOT = Phrases(
    "*{v.The} cost *{k.n}, which was more than *{m.n}. So {a.he} could not buy it.",
    "{a.He} wanted *{v.the}, too, but *{k.n} is more than *{m.n}, so {a.he} went home.",
    "For *{v.the} {a.he} needed *{k.n} but had only *{m.n}. That was not enough.",
    "*{v.the} was too dear. {a.He} had *{m.n}, and it cost *{k.n}.",
    test=("*{v.The} had to stay there, as *{k.n} is more than *{m.n}.",),
)
_MARKET_EMPTY = Phrases(
    "{a.He} also wanted *{v.the}, but {a.his} bag was *empty.",
    "*{v.The} cost *{k.n}, but {a.he} had *nothing.",
    "For *{v.the} {a.he} needed *{k.n}, but there was *nothing in {a.his} bag.",
    test=("*{v.The} had to stay there, as the bag was *empty.",),
)
_MARKET_LEFT = exchange(
    ("How many coins do you have left", "I have *{m.n} left"),
    ("How many coins are in your bag now", "There are *{m.n}"),
)
_MARKET_PAID = exchange(
    ("How much was {u.the}", "It cost *{k.short}"),
    ("What did I ask for {u.the}", "You asked *{k.short}"),
)
_MARKET_SUM = exchange(
    ("How much is {x.the} with {y.the}", "That makes *{k.short}"),
    ("What do {x.the} and {y.the} cost together", "They cost *{k.short}"),
)


def market(t: Teller) -> None:
    a, b = cast(t, 2)
    x, y = things(t, 2)
    (w,) = places(t, 1)
    coins = 4 + t.choice(range(6))
    prices = {x: 2 + t.choice(range(2)), y: 2 + t.choice(range(4))}

    def number(n: int, *, repeated: bool = True) -> Count:
        return Count(n, COINS, "golden", repeated=repeated)

    t.tell(PLAIN_HERO)
    t.tell(_MARKET_COINS, n=number(coins, repeated=False), w=w)
    t.tell(_MARKET_PRICES, x=x, y=y, i=number(prices[x]), j=number(prices[y]))
    order = [x, y] if t.chance(0.5) else [y, x]
    left = coins - prices[order[0]]
    # The cheaper of two things fits into any purse of this plot.
    if left < 0:
        order.reverse()
        left = coins - prices[order[0]]
    t.tell(_MARKET_BUY, u=order[0], k=number(prices[order[0]]), m=number(left))
    price = prices[order[1]]
    enough = price <= left
    t.bind(v=order[1], k=number(price))
    if enough:
        left -= price
    lacking = _MARKET_NOT if left else _MARKET_EMPTY
    t.tell(_MARKET_ALSO if enough else lacking, m=number(left))
    queries = [
        Query(_MARKET_LEFT, b, a, {"m": number(left)}),
        Query(_MARKET_SUM, a, b, {"k": number(sum(prices.values()))}),
        Query(_MARKET_PAID, b, a, {"u": x, "k": number(prices[x])}),
        Query(_MARKET_PAID, b, a, {"u": y, "k": number(prices[y])}),
    ]
    close(t, queries, "save")


# --- line: three stand in a line and change places --------------------------------------------

_LINE_STAND = Phrases(
    "They stood in a line. {p.name} was on the left, {q.name} in the middle and {r.name} on "
    "the right.",
    "On the left stood {p.name}, in the middle {q.name} and on the right {r.name}.",
    "They lined up, {p.name} left, {q.name} in the middle, {r.name} right.",
    "There was a line of three, {p.name} on the left, then {q.name}, then {r.name}.",
    test=("{q.name} stood in the middle, {p.name} on the left, {r.name} on the right.",),
)
_LINE_SWAP = Phrases(
    "Then {p} and {q} changed places.",
    "After that {p} took the place of {q}, and {q.name} took that of {p.name}.",
    "Soon {p} wanted to stand where {q} stood, so they changed places.",
    "The next minute {p} and {q} had swapped.",
    test=("{p} and {q} made a turn and stood the other way around.",),
)
_LINE_OUTER = Phrases(
    "Then the two on the ends changed places.",
    "After that the left one and the right one changed places.",
    "Soon the one in the middle stayed, and the two others changed places.",
    "The next minute the two outer ones^ had swapped.",
    test=("The two outer ones made a turn and stood the other way around.",),
)
_LINE_NOW = Phrases(
    "Now *{p.name} was on the left, *{q.name} in the middle and *{r.name} on the right.",
    "So the line was *{p.name}, *{q.name}, *{r.name}.",
    "That put *{q.name} in the middle, between *{p.name} and *{r.name}.",
    "On the left was *{p.name} now, on the right *{r.name}, and *{q.name} was between them.",
    test=("From left to right they were *{p.name}, *{q.name} and *{r.name}.",),
)
_LINE_WHO = exchange(
    ("Who stands {there}", "*{o.name} stands {there}"),
    ("Who is {there} now", "*{o.name} is"),
)
_LINE_WAS = exchange(
    ("Who was {there} at first", "*{o.name} was {there}"),
    ("Who stood {there} before", "It was *{o.name}"),
)
_LINE_SIDES = tuple(Words(w) for w in ("on the left", "in the middle", "on the right"))


def line(t: Teller) -> None:
    beings = cast(t, 3)
    t.tell(TRIO)
    order = t.sample(beings, 3)
    start = list(order)
    t.tell(GENDERS[LETTERS[beings.index(order[0])]])
    t.tell(_LINE_STAND, p=order[0], q=order[1], r=order[2])
    for _ in range(2):
        i, j = t.choice(((0, 1), (1, 2), (0, 2)))
        t.bind(p=order[i], q=order[j])
        t.tell(_LINE_OUTER if (i, j) == (0, 2) else _LINE_SWAP)
        order[i], order[j] = order[j], order[i]
    t.tell(_LINE_NOW, p=order[0], q=order[1], r=order[2])
    queries = []
    for i, there in enumerate(_LINE_SIDES):
        left, right = order[(i + 1) % 3], order[(i + 2) % 3]
        queries.append(Query(_LINE_WHO, left, right, {"o": order[i], "there": there}))
        queries.append(Query(_LINE_WAS, left, right, {"o": start[i], "there": there}))
    close(t, queries, "differ")


# --- turns (test only): whose turn it is follows from counting round --------------------------

_TURNS_RULE = Phrases(
    "They had one toy, {x.a}. First {p.name} played with it, then {q.name} and then {r.name}.",
    "They took turns with {x.a}. {p.name} was first, {q.name} second and {r.name} third.",
    "{x.A} was there for all of them. {p.name} began, {q.name} followed, and {r.name} was third.",
)
_TURNS_ROUND = Phrases(
    "After that it was the turn of *{p.name} again.",
    "Then they began again with *{p.name}.",
    "When all had played, *{p.name} got *{x.the} again.",
)
_TURNS_NEXT = Phrases(
    "After *{u.name} it was *{v.name} who played with *{x.the}.",
    "Then *{u.name} gave *{x.the} to *{v.name}.",
    "When *{u.name} was ready, *{v.name} took *{x.the}.",
)
_TURNS_WHO = exchange(
    ("Who comes after {u.name}", "*{v.name} comes next"),
    ("Whose turn is it after {u.name}", "Then it is *{v.name}"),
)
_TURNS_BEFORE = exchange(
    ("Who comes before {v.name}", "*{u.name} comes before *{v.him}"),
    ("Who was before {v.name}", "That was *{u.name}"),
)


def turns(t: Teller) -> None:
    beings = cast(t, 3)
    (x,) = things(t, 1)
    order = t.sample(beings, 3)
    t.tell(TRIO)
    t.tell(GENDERS[LETTERS[beings.index(order[1])]])
    t.tell(_TURNS_RULE, x=x, p=order[0], q=order[1], r=order[2])
    t.tell(_TURNS_ROUND)
    t.tell(_TURNS_NEXT, u=order[0], v=order[1])
    queries = []
    for i in range(3):
        u, v, other = order[i], order[(i + 1) % 3], order[(i + 2) % 3]
        queries.append(Query(_TURNS_WHO, other, v, {"u": u, "v": v}))
        queries.append(Query(_TURNS_BEFORE, other, u, {"u": u, "v": v}))
    close(t, queries, "share")
