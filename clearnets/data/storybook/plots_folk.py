"""Plots about kin, feelings, theft, promises and what becomes of them.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

from clearnets.data.storybook.lexicon import (
    ANIMALS,
    DAYS,
    EMOTIONS,
    KINDS,
    MOOD,
    TRAITS,
    YOUNG,
    Token,
    article,
    word,
)
from clearnets.data.storybook.sentences import (
    FRIEND,
    HERO,
    PAIR,
    PLAIN_HERO,
    SHORT_HERO,
    TRAIT_FRIEND,
    TRIO,
    Query,
    cast,
    close,
    places,
    spots,
    things,
)
from clearnets.data.storybook.world import Being, Phrases, Teller, Words, ask, exchange, say

# --- lost: a found thing goes to its owner, who is known by kin and home ----------------------

_LOST_KIN = Phrases(
    "{c.name} the {c.kind} lived {w1.at}, and {c.his} {d.brother} {d.name} lived {w2.at}.",
    "{w1.At} lived {c.name} the {c.kind}. {c.His} {d.brother} {d.name} lived {w2.at}.",
    "{c.name} the {c.kind} had a {d.brother}, {d.name}. {c.name} lived {w1.at} and {d.name} "
    "{w2.at}.",
    "{d.name}, the {d.brother} of {c.name} the {c.kind}, lived {w2.at}. {c.name} lived {w1.at}.",
    test=("{w2.At} lived {d.name}, the {d.brother} of {c.name} the {c.kind} {w1.at}.",),
)
_LOST_FIND = Phrases(
    "One day {a} found {x.a} on the road.",
    "On the road {a} saw {x.a} and picked it up.",
    "{a} came along the road and found {x.a}.",
    "There was {x.a} on the road, and {a} took it.",
    test=("In the grass {a} saw {x.a} shine.",),
)
_LOST_WHOSE = Phrases(
    '"Whose *{x.noun} is this?" asked {a}. "It belongs to *{o.kin} of {k.name}," {b.said} {b}.',
    '{a} asked, "Who lost this *{x.noun}?" {b} {b.said}, "*{o.kin} of {k.name} lost it."',
    '"Who has lost *{x.the}?" asked {a}. "It was *{o.kin} of {k.name}," {b.said} {b}.',
    '{a} showed *{x.the} to {b}. "That is for *{o.kin} of {k.name}," {b.said} {b}.',
    test=('{a} showed *{x.the} to {b}. "Give it to *{o.kin} of {k.name}," {b.said} {b}.',),
)
_LOST_GO = Phrases(
    "So {a} {a.moved} to *{v.the} and gave *{x.the} to *{o.name}.",
    "{a} took *{x.the} to *{v.the}, where *{o.name} lived.",
    "That was *{o.name}, so {a} {a.moved} to *{v.the} with *{x.the}.",
    "*{o.name} lived *{v.at}, so {a} {a.moved} there with *{x.the}.",
    test=("With *{x.the} {a} {a.moved} to the home of *{o.name} *{v.at}.",),
)
_LOST_GLAD = Phrases(
    '*{o.name} was glad. "Thank you, {a.name}," {o.said} {o.name}.',
    '"My *{x.noun}!" ~{o.said} *{o.name}. *{o.He} was glad.',
    "*{o.name} was glad to have *{x.the} again.",
    "*{o.name} took *{x.the} and was glad.",
    test=("*{o.name} danced, so glad was *{o.he} about *{x.the}.",),
)
_LOST_WHERE = exchange(
    ("Where does {o.name} live", "*{o.He} lives *{v.at}"),
    ("Where is the home of {o.name}", "It is *{v.at}"),
)
_LOST_OWNER = exchange(
    ("Whose {x.noun} was it", "It belonged to *{o.name}"),
    ("Who has {x.the} now", "*{o.name} has it"),
)


class Sibling:
    """The brother or sister that a being is to another."""

    __slots__ = ("_being",)

    def __init__(self, being: Being) -> None:
        self._being = being

    def say(self, attr: str) -> tuple[Token, ...]:
        if attr == "kin":
            return (word("the"), *self._being.say("brother"))
        return self._being.say(attr)


def lost(t: Teller) -> None:
    one, two, kin_kind = t.sample(KINDS, 3)
    a, b, c, d = cast(t, 4, species=[one, two, kin_kind, kin_kind], by_name=True)
    (x,) = things(t, 1)
    w1, w2 = places(t, 2)
    t.tell(PAIR)
    t.tell(_LOST_KIN, w1=w1, w2=w2)
    owner, kin, where = (d, c, w2) if t.chance(0.5) else (c, d, w1)
    t.tell(_LOST_FIND, x=x)
    t.tell(_LOST_WHOSE, o=Sibling(owner), k=kin)
    t.tell(_LOST_GO, v=where)
    t.tell(_LOST_GLAD)
    queries = [
        Query(_LOST_OWNER, b, a, {"o": owner}),
        Query(_LOST_WHERE, b, a, {"o": c, "v": w1}),
        Query(_LOST_WHERE, a, b, {"o": d, "v": w2}),
    ]
    close(t, queries, "help")


# --- theft: taken in secret, confessed or denied ----------------------------------------------

_THEFT_HAVE = Phrases(
    "{b} had {x.a} and kept it {s.at}.",
    "{b} owned {x.a}. It was always {s.at}.",
    "{s.At} {b} kept {x.a}.",
    "{b} was happy with {x.a}. It lay {s.at}.",
    test=("The joy of {b} was {x.a} that lay {s.at}.",),
)
_THEFT_TAKE = Phrases(
    "One night {a} took *{x.the} and hid it {v.at}.",
    "{a} wanted *{x.the}. {a.He} took it and put it {v.at}.",
    "At night {a} took *{x.the} that lay *{s.at} and hid it {v.at}.",
    "Then {a} took *{x.the}. Now it was hidden {v.at}.",
    test=("Under the moon {a} carried *{x.the} away and laid it {v.at}.",),
)
_THEFT_MISS = Phrases(
    "In the morning {b} looked *{s.at}. No *{x.noun}! {b.He} was *{b.felt}.",
    "Soon {b} saw that *{x.the} was gone. {b.He} felt *{b.felt}.",
    "{b} looked *{s.at}, but it was gone. This made {b.him} *{b.felt}.",
    "The next day *{x.the} was not *{s.at}. {b} was *{b.felt}.",
    test=("At dawn nothing lay *{s.at}, and {b} felt *{b.felt}.",),
)
_THEFT_ASK = ask("Did you take my *{x.noun}", "Do you have my *{x.full}", who="b")
_THEFT_TRUE = say(
    "Yes, it is *{v.at}", "Yes, I took it and hid it *{v.at}", "Yes, I am sorry", who="a"
)
_THEFT_FALSE = say("No, I did not take it", "No, I have not seen it", who="a")
_THEFT_FORGIVE = Phrases(
    "{b} looked *{v.at}, and there it was.",
    "Then {b} found *{x.the} *{v.at} and smiled.",
    "So {b} had *{x.the} again and was glad about the truth.",
    test=("*{v.At} {b} found *{x.the} and forgave {a.him}.",),
)
_THEFT_CAUGHT = Phrases(
    "But then {b} saw *{x.the} *{v.at}.",
    "But *{x.the} fell down and {b} saw it.",
    "That was a lie. *{x.the} lay *{v.at}, and {b} found it.",
    test=("Yet *{v.at} {b} saw *{x.the} shine.",),
)
_THEFT_FRIENDS = Phrases(
    "They stayed friends.",
    "{b} forgave {a.him}.",
    "Soon they played together again.",
    "So they were still friends.",
    test=("They shook hands and laughed.",),
)
_THEFT_ALONE = Phrases(
    "After that nobody believed {a}.",
    "{b} did not play with {a.him} again.",
    "From then on {a} was alone.",
    "Nobody trusted {a.him} after that.",
    test=("The door of {b} stayed shut for {a.him}.",),
)
_THEFT_WHERE = exchange(
    ("Where was my {x.noun} all night", "It was *{v.at}"),
    ("Where did you hide it", "I hid it *{v.at}"),
)
_THEFT_FIRST = exchange(
    ("Where did you keep {x.the}", "I kept it *{s.at}"),
    ("Where was it before I took it", "It was *{s.at}"),
)


_CONFESSING = ("brave", "shy", "clever", "kind", "patient", "honest")


def theft(t: Teller) -> None:
    # Whether the thief confesses follows from the trait.
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    (x,) = things(t, 1)
    s, v = spots(t, 2)
    t.tell(SHORT_HERO)
    t.tell(TRAIT_FRIEND)
    t.tell(_THEFT_HAVE, x=x, s=s, v=v)
    t.tell(_THEFT_TAKE)
    b.feel("loss")
    t.tell(_THEFT_MISS)
    t.tell(_THEFT_ASK)
    confesses = a.trait in _CONFESSING
    t.tell(_THEFT_TRUE if confesses else _THEFT_FALSE)
    t.tell(_THEFT_FORGIVE if confesses else _THEFT_CAUGHT)
    if t.size < 105:
        t.tell(_THEFT_FRIENDS if confesses else _THEFT_ALONE)
    b.mood = ""
    queries = [Query(_THEFT_WHERE, b, a, {}), Query(_THEFT_FIRST, a, b, {})]
    close(t, queries if confesses else [], "honest" if confesses else "liar")


# --- family: who is whose mother, brother or aunt ---------------------------------------------

_FAMILY_ROOT = Phrases(
    "{a.name} was {a.akind} with two children, {b.name} and {c.name}. They lived {a.athome}.",
    "Once there was {a.akind} called {a.name}, the {a.father} of {b.name} and {c.name}.",
    "{b.name} and {c.name} lived {a.athome}. Their {a.father} was {a.name} the {a.kind}.",
    "{a.name} the {a.kind} was the {a.father} of {b.name} and {c.name}.",
    test=("{a.name} the {a.kind} was {a.father} to {b.name} and {c.name}.",),
)
_FAMILY_SEX = Phrases(
    "{b.name} was a {b.boy} and {c.name} was a {c.boy}.",
    "{b.name} was a {b.boy}. {c.name} was a {c.boy}.",
    "Of the two, {b.name} was a {b.boy} and {c.name} a {c.boy}.",
    test=("One of them, {b.name}, was a {b.boy}, and the other, {c.name}, was a {c.boy}.",),
)
_FAMILY_BOTH = Phrases(
    "{b.name} and {c.name} were {b.boys}.",
    "Both {b.name} and {c.name} were {b.boys}.",
    "{b.name} was a {b.boy}, and so was {c.name}.",
    test=("The two were {b.boys}.",),
)
_FAMILY_NEXT = Phrases(
    "When {b.name} grew up, {b.he} had a {d.son} called {d.name}.",
    "Later {b.name} became the {b.father} of {d.name}, a little {d.boy}.",
    "Years later {b.name} had a child, a {d.boy} called {d.name}.",
    "Then a {d.boy} was born to {b.name}, and {b.he} called {d.him} {d.name}.",
    test=("Time went by, and {b.name} had a little {d.son}, {d.name}.",),
)
_FAMILY_GIVE = Phrases(
    "One day {d.name} made {x.a} and gave it to {d.his} {o.kin}. So *{o.name} had *{x.the}.",
    "{d.name} had {x.a} for {d.his} {o.kin}. *{o.name} was happy with *{x.the}.",
    "{d.His} {o.kin} got {x.a} from {d.name}. So *{x.the} was now with *{o.name}.",
    "{d.name} gave {x.a} to {d.his} {o.kin}. So *{x.the} belonged to *{o.name}.",
    test=("For {d.his} {o.kin} {d.name} made {x.a}, and *{o.name} took *{x.the} home.",),
)
_FAMILY_THEN = Phrases(
    "*{o.name} showed *{x.the} to {o.his} {e.kin}, and *{e.name} liked it, too.",
    "Then *{o.name} gave *{x.the} to {o.his} {e.kin}. Now *{e.name} had it.",
    "Later {o.his} {e.kin} asked for it, and *{o.name} lent *{x.the} to *{e.name}.",
    "But {o.his} {e.kin} wanted it, so *{o.name} gave *{x.the} to *{e.name}.",
    test=("The {e.kin} of *{o.name} saw *{x.the}, and *{e.name} wanted one, too.",),
)
_FAMILY_WHO = exchange(
    ("Who is the {e.kin} of {u.name}", "The {e.kin} of {u.name} is *{e.name}"),
    ("What is {e.name} to {u.name}", "*{e.He} is the *{e.kin} of {u.name}"),
    test=(("Who is {e.name} to {u.name}", "*{e.He} is the *{e.kin}"),),
)


class Relative:
    """A being with what it is to another one."""

    __slots__ = ("_being", "_kin")

    def __init__(self, being: Being, kin: str) -> None:
        self._being = being
        self._kin = (word(kin, "kinship"),)

    def say(self, attr: str) -> tuple[Token, ...]:
        return self._kin if attr == "kin" else self._being.say(attr)


def family(t: Teller) -> None:
    a, b, c, d = cast(t, 4, species=[t.choice(KINDS)] * 4, by_name=True)
    (x,) = things(t, 1)

    def kin(u: Being, e: Being) -> Relative:
        """What e is to u."""
        age = {id(a): 0, id(b): 1, id(c): 1, id(d): 2}
        step = age[id(u)] - age[id(e)]
        male = e.male
        if step == 2:
            title = "grandfather" if male else "grandmother"
        elif step == 1:
            straight = not (u is d and e is c)
            title = ("father" if male else "mother") if straight else ("uncle" if male else "aunt")
        elif step == 0:
            title = "brother" if male else "sister"
        elif step == -1:
            straight = not (u is c and e is d)
            title = ("son" if male else "daughter") if straight else ("nephew" if male else "niece")
        else:
            title = "grandson" if male else "granddaughter"
        return Relative(e, title)

    t.bind(x=x)
    t.tell(_FAMILY_ROOT)
    t.tell(_FAMILY_BOTH if b.male == c.male else _FAMILY_SEX)
    t.tell(_FAMILY_NEXT)
    first = t.choice((a, b, c))
    t.tell(_FAMILY_GIVE, o=kin(d, first))
    then = t.choice([e for e in (a, b, c) if e is not first])
    t.tell(_FAMILY_THEN, e=kin(first, then))
    queries = []
    for u in (a, b, c, d):
        for e in (a, b, c, d):
            if u is not e:
                asker, answerer = (o for o in (a, b, c, d) if o is not u and o is not e)
                queries.append(Query(_FAMILY_WHO, asker, answerer, {"u": u, "e": kin(u, e)}))
    close(t, queries, "help")


# --- storm: how each feels follows from the trait, and the calm one helps ----------------------

_STORM_TRAITS = Phrases(
    "{a.name} was {a.trait}, {b.name} was {b.trait} and {c.name} was {c.trait}.",
    "{a.name} was the {a.trait} one, {b.name} the {b.trait} one and {c.name} the {c.trait} one.",
    "All knew that {a.name} was {a.trait}, {b.name} was {b.trait} and {c.name} was {c.trait}.",
    "They were not the same. {a.name} was {a.trait}, {b.name} {b.trait} and {c.name} {c.trait}.",
    test=("One was {a.trait}, that was {a.name}. {b.name} was {b.trait} and {c.name} {c.trait}.",),
)
_STORM_CAME = {
    "storm": Phrases(
        "One night there was a storm with thunder and lightning.",
        "Then a big storm came over the trees.",
        "Suddenly they heard thunder.",
        "One evening a storm began.",
        test=("Black clouds brought a storm.",),
    ),
    "dark": Phrases(
        "One night the lamp went out and it was dark.",
        "They stayed in the woods until it was dark.",
        "Suddenly all the candles went out.",
        "One evening it was very dark.",
        test=("The moon went away and left them in the dark.",),
    ),
}
_STORM_FELT = Phrases(
    "{a} was *{a.felt}, {b} was *{b.felt} and {c} was *{c.felt}.",
    "{a} felt *{a.felt}. {b} felt *{b.felt}, and {c} felt *{c.felt}.",
    "This made {a} *{a.felt}, {b} *{b.felt} and {c} *{c.felt}.",
    "How did they feel? {a} was *{a.felt}, {b} *{b.felt} and {c} *{c.felt}.",
    test=("*{a.felt} was {a}, *{b.felt} was {b}, and *{c.felt} was {c}.",),
)
_STORM_SAY = say("I want to be {p.myhome}", "I wish I were {p.myhome}", who="p")
_STORM_HOLD = Phrases(
    "{q.name}, who was *{q.felt}, stayed close to {p.name}, who was *{p.felt}.",
    "{q.name} was *{q.felt} and helped {p.name}, who was *{p.felt}.",
    "Because {p.name} was *{p.felt} and {q.name} was *{q.felt}, {q.name} stayed with {p.him}.",
    "{p.name} was *{p.felt}, but {q.name} was *{q.felt} and sat down next to {p.him}.",
    test=("As {p.name} was *{p.felt} and {q.name} *{q.felt}, {q.he} took care of {p.him}.",),
)
_STORM_AFTER = Phrases(
    "In the morning {r} *{r.moved} to {w.the}, and {p} *{p.moved} home.",
    "In the morning it was over. {p} *{p.moved} home and {q} *{q.moved} to {w.the}.",
    "When it was over, {p} *{p.moved}, {q} *{q.moved} and {r} *{r.moved} home.",
    "When the sun came, {q} *{q.moved} to {w.the}, {r} *{r.moved} home, and {p} slept.",
    test=("At dawn {p} *{p.moved} home, and {r} *{r.moved} after *{p.him}.",),
)
_STORM_HOW = exchange(
    ("How did {o.name} feel", "*{o.He} was *{o.felt}"),
    ("Was {o.name} {not} that night", "*{yes}, *{o.he} was *{o.felt}"),
)
_STORM_WHO = exchange(
    ("Who was {o.felt} that night", "*{o.name} was *{o.felt}"),
    ("Who of us is {o.trait}", "That is *{o.name}"),
)


def storm(t: Teller) -> None:
    event = t.choice(("storm", "dark"))
    table = dict(zip(TRAITS, EMOTIONS[event]))
    # One is troubled, so that somebody needs help.
    troubled = [trait for trait in TRAITS if _TROUBLE.get(MOOD.get(table[trait], ""), 0) > 1]
    others = [trait for trait in TRAITS if trait not in troubled]
    beings = cast(t, 3, traits=t.sample([t.choice(troubled), *t.sample(others, 2)], 3))
    (w,) = places(t, 1)
    t.tell(TRIO)
    t.tell(_STORM_TRAITS)
    t.tell(_STORM_CAME[event])
    for being in beings:
        being.feel(event)
    t.tell(_STORM_FELT)
    # The one to be helped is the most troubled, the helper the least; ties go by order.
    order = sorted(beings, key=lambda b: _TROUBLE.get(b.mood, 0))
    q, r, p = order
    t.bind(p=p, q=q, r=r, w=w)
    t.tell(_STORM_SAY)
    t.tell(_STORM_HOLD)
    t.tell(_STORM_AFTER)
    for being in beings:
        being.mood = ""
    queries = []
    for i, o in enumerate(beings):
        asker, answerer = beings[(i + 1) % 3], beings[(i + 2) % 3]
        guess = t.choice(("calm", "scared"))
        values = {
            "o": o,
            "not": Words(guess),
            "yes": Words("Yes" if table[o.trait] == guess else "No"),
        }
        queries.append(Query(_STORM_HOW, asker, answerer, values))
        if sum(table[other.trait] == table[o.trait] for other in beings) == 1:
            queries.append(Query(_STORM_WHO, asker, answerer, {"o": o}))
    close(t, queries, "calm")


_TROUBLE = {"afraid": 3, "sad": 2, "angry": 1, "tired": 1}


# --- baby (test only): a lost young one is brought to its parent ------------------------------

_BABY_CRY = Phrases(
    "On the road {a} found a little {y.young} that cried for its {c.father}.",
    "{a} met a little {y.young} {w.at}. It had lost its {c.father}.",
    "There was a lost {y.young} {w.at}. It told {a} that its {c.father} was gone.",
)
_BABY_WRONG = Phrases(
    '{a.He} took it to {b.name} the {b.kind}. "That is not my child," {b.said} {b}.',
    'First they {a.moved} to {b.name} the {b.kind}. "*{y.A} is not mine," {b.said} {b}.',
)
_BABY_RIGHT = Phrases(
    "Then they came to {c.name} the *{c.kind}, and that was the {c.father} of the *{y.young}.",
    "{w.At} they found {c.name} the *{c.kind}, who was glad to see the *{y.young}.",
)
_BABY_GLAD = Phrases(
    '"My little *{y.young}!" ~{c.said} *{c.name}. "Thank you, {a.name}."',
    '"Thank you, {a.name}," {c.said} *{c.name}, and the *{y.young} ate *{c.food}.',
)
_BABY_WHO = exchange(
    ("Who is the {c.father} of the {y.young}", "It is *{c.name} the *{c.kind}"),
    ("Why was it not {b.name}", "*{b.He} is *{b.akind}, not *{c.akind}"),
)
_BABY_EAT = exchange(
    ("What does the {y.young} eat", "It eats *{c.food}"),
    ("What do you give it", "I give it *{c.food}"),
)


def baby(t: Teller) -> None:
    young, parent = t.choice(YOUNG)
    others = [k for k in ANIMALS if k.noun != parent]
    (kind,) = [k for k in ANIMALS if k.noun == parent]
    a, b, c = cast(t, 3, species=[*t.sample(others, 2), kind])
    (w,) = places(t, 1)
    t.tell(PLAIN_HERO)
    t.bind(y=Young(young), w=w)
    t.tell(_BABY_CRY)
    t.tell(_BABY_WRONG)
    t.tell(_BABY_RIGHT)
    t.tell(_BABY_GLAD)
    close(t, [Query(_BABY_WHO, b, a, {}), Query(_BABY_EAT, a, c, {})], "help")


class Young:
    """An animal's child, called by what it is."""

    __slots__ = ("_forms",)

    def __init__(self, young: str) -> None:
        self._forms = {"young": (word(young),), "a": (word(article(young)), word(young))}

    def say(self, attr: str) -> tuple[Token, ...]:
        return self._forms[attr]


# --- promise (test only): a thing promised for a day, brought or forgotten --------------------

_PROMISE_MADE = Phrases(
    '"On {d.day} I will bring you {x.a}," {a.said} {a}.',
    "{a} promised to bring {b} {x.a} on {d.day}.",
    '{a} {a.said}, "You get {x.a} on {d.day}, {b.name}."',
)
_PROMISE_WAIT = Phrases(
    "{e.day} came, and {b} waited. Then it was *{d.day}.",
    "On {e.day} {b} counted the hours. The next day was *{d.day}.",
)
_PROMISE_KEPT = Phrases(
    "{a} {a.moved} in with *{x.the}. {b} was *{b.felt}.",
    "And there came {a} with *{x.the}, and {b} felt *{b.felt}.",
)
_PROMISE_BROKEN = Phrases(
    "But {a} came without *{x.the}. {b} was *{b.felt}.",
    "But {a} had left^ *{x.the} at home, and {b} felt *{b.felt}.",
)
_PROMISE_ASK = ask("Where is my *{x.noun}", "Do you have *{x.the}", who="b")
_PROMISE_HERE = say("Here is *{x.the}", "Yes, take *{x.the}", who="a")
_PROMISE_NOT = say("I do not have it", "No, I forgot *{x.the}", who="a")
_PROMISE_WHEN = exchange(
    ("Which day did you promise", "I promised *{d.day}"),
    ("What day is it tomorrow", "After *{d.day} comes *{f.day}"),
)


def promise(t: Teller) -> None:
    # The lazy and the greedy forget; the others keep their word.
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    (x,) = things(t, 1)
    i = t.choice(range(7))
    days = [Words(DAYS[(i + k) % 7], "time_word") for k in range(3)]
    t.tell(HERO)
    t.tell(FRIEND)
    t.bind(x=x, e=days[0], d=days[1], f=days[2])
    t.tell(_PROMISE_MADE)
    t.tell(_PROMISE_WAIT)
    kept = a.trait not in ("lazy", "greedy", "proud", "grumpy", "curious")
    b.feel("gift" if kept else "loss")
    t.tell(_PROMISE_KEPT if kept else _PROMISE_BROKEN)
    if not kept:
        t.tell(_PROMISE_ASK)
    t.tell(_PROMISE_HERE if kept else _PROMISE_NOT)
    b.mood = ""
    close(t, [Query(_PROMISE_WHEN, b, a, {})], "promise" if kept else "broken")
