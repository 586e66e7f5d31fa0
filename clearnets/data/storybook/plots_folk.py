"""Plots about kin, feelings, theft, promises and what becomes of them.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences of sentences.toml say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

from itertools import permutations

from clearnets.data.storybook.entities import (
    Formed,
    Relative,
    Words,
    cast,
    places,
    rotations,
    spots,
    things,
)
from clearnets.data.storybook.lexicon import (
    ANIMALS,
    DAYS,
    EMOTIONS,
    KINDS,
    MOOD,
    TRAITS,
    YOUNG,
    with_article,
    words,
)
from clearnets.data.storybook.teller import Teller, query

CONFESSING = ("brave", "shy", "clever", "kind", "patient", "honest")
FORGETFUL = ("lazy", "greedy", "proud", "grumpy", "curious")
TROUBLE = {"afraid": 3, "sad": 2, "angry": 1, "tired": 1}
"""How much help somebody in that mood needs."""

GENERATIONS = (0, 1, 1, 2)
"""Of the members of a family: a has the children b and c, and b has the child d."""
DIRECT_KIN = {
    2: ("grandmother", "grandfather"),
    1: ("mother", "father"),
    0: ("sister", "brother"),
    -1: ("daughter", "son"),
    -2: ("granddaughter", "grandson"),
}
"""What an older one is to a younger one, by generations between them: female, male."""
OTHER_KIN = {1: ("aunt", "uncle"), -1: ("niece", "nephew")}


def lost(t: Teller) -> None:
    """Tell how a found thing goes to its owner, who is known by kin and home."""
    one, two, family_kind = t.sample(KINDS, 3)
    a, b, c, d = cast(t, 4, species=[one, two, family_kind, family_kind], by_name=True)
    (x,) = things(t, 1)
    w1, w2 = places(t, 2)
    t.tell("pair")
    t.tell("kin", w1=w1, w2=w2)
    owner, kin, where = (d, c, w2) if t.chance(0.5) else (c, d, w1)
    t.tell("find", x=x)
    t.tell("whose", o=Relative(owner, "the brother" if owner.male else "the sister"), k=kin)
    t.tell("go", v=where)
    t.tell("glad")
    queries = [
        query("owner", b, a, o=owner),
        query("where", b, a, o=c, v=w1),
        query("where", a, b, o=d, v=w2),
    ]
    t.close("help", queries)


def theft(t: Teller) -> None:
    """Tell of a theft in secret, confessed or denied as follows from the thief's trait."""
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    (x,) = things(t, 1)
    s, v = spots(t, 2)
    t.tell("short_hero")
    t.tell("trait_friend")
    t.tell("have", x=x, s=s, v=v)
    t.tell("take")
    b.feel("loss")
    t.tell("miss")
    t.tell("ask", speaker=b)
    confesses = a.trait in CONFESSING
    t.tell("true" if confesses else "false", speaker=a)
    t.tell("forgive" if confesses else "caught")
    if t.size < 105:
        t.tell("friends" if confesses else "alone")
    t.close("honest" if confesses else "liar")


def family(t: Teller) -> None:
    """Tell who is whose mother, brother or aunt."""
    members = cast(t, 4, species=[t.choice(KINDS)] * 4, by_name=True)
    (x,) = things(t, 1)

    def relative(i: int, j: int) -> Relative:
        """Return member j as what it is to member i."""
        kin = OTHER_KIN if {i, j} == {2, 3} else DIRECT_KIN
        return Relative(members[j], kin[GENERATIONS[i] - GENERATIONS[j]][members[j].male])

    t.tell("root", x=x)
    t.tell("both" if members[1].male == members[2].male else "sex")
    t.tell("next")
    first = t.choice(range(3))
    t.tell("give", o=relative(3, first))
    then = t.choice([i for i in range(3) if i != first])
    t.tell("then", e=relative(first, then))
    queries = []
    for i, j in permutations(range(4), 2):
        asker, answerer = (member for k, member in enumerate(members) if k not in (i, j))
        queries.append(query("who", asker, answerer, u=members[i], e=relative(i, j)))
    t.close("help", queries)


def storm(t: Teller) -> None:
    """Tell how each feels in a storm or in the dark, and who helps whom."""
    event = t.choice(("storm", "dark"))
    felt = {trait: row[event] for trait, row in EMOTIONS.items()}
    # One is troubled, so that somebody needs help.
    troubled = [trait for trait in TRAITS if TROUBLE.get(MOOD.get(felt[trait], ""), 0) > 1]
    others = [trait for trait in TRAITS if trait not in troubled]
    beings = cast(t, 3, traits=t.sample([t.choice(troubled), *t.sample(others, 2)], 3))
    (w,) = places(t, 1)
    t.tell("trio")
    t.tell("traits")
    t.tell(event)
    for being in beings:
        being.feel(event)
    t.tell("felt")
    # The one to be helped is the most troubled, the helper the least; ties go by order.
    q, r, p = sorted(beings, key=lambda being: TROUBLE.get(being.mood, 0))
    t.bind(p=p, q=q, r=r, w=w)
    t.tell("say", speaker=p)
    t.tell("hold")
    t.tell("after")
    for being in beings:
        being.mood = ""
    queries = []
    for o, asker, answerer in rotations(beings):
        guess = t.choice(("calm", "scared"))
        yes = Words("Yes" if o.felt == guess else "No")
        queries.append(query("how", asker, answerer, o=o, guess=Words(guess), yes=yes))
        if o.felt not in (asker.felt, answerer.felt):
            queries.append(query("who", asker, answerer, o=o))
    t.close("calm", queries)


def baby(t: Teller) -> None:
    """Tell how a lost young one is brought to its parent (test splits only)."""
    young, parent = t.choice(YOUNG)
    others = [kind for kind in ANIMALS if kind.noun != parent]
    (kind,) = (kind for kind in ANIMALS if kind.noun == parent)
    a, b, c = cast(t, 3, species=[*t.sample(others, 2), kind])
    (w,) = places(t, 1)
    t.tell("plain_hero")
    t.bind(y=Formed({"young": words(young), "a": words(with_article(young))}), w=w)
    t.tell("cry")
    t.tell("wrong")
    t.tell("right")
    t.tell("glad")
    t.close("help", [query("who", b, a), query("eat", a, c)])


def promise(t: Teller) -> None:
    """Tell of a thing promised for a day, brought or forgotten (test splits only)."""
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    (x,) = things(t, 1)
    start = t.choice(range(7))
    days = [Words(DAYS[(start + i) % 7]) for i in range(3)]
    t.tell("hero")
    t.tell("friend")
    t.tell("made", x=x, e=days[0], d=days[1], f=days[2])
    t.tell("wait")
    forgets = a.trait in FORGETFUL
    b.feel("loss" if forgets else "gift")
    t.tell("forgotten" if forgets else "brought")
    if forgets:
        t.tell("ask", speaker=b)
    t.tell("not" if forgets else "here", speaker=a)
    b.mood = ""
    t.close("broken" if forgets else "promise", [query("when", b, a)])
