"""Plots about what is known: orders, weathers, foods, tools, colours, voices, contraries.

A plot is a function of a Teller. It keeps the true state in plain Python values and lets the
sentences say it; what a star marks in a template follows from that state.
"""

from __future__ import annotations

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
    Job,
    Token,
    article,
    bits,
    word,
)
from clearnets.data.storybook.sentences import (
    FRIEND,
    GENDERS,
    HERO,
    LETTERS,
    PLAIN_HERO,
    SHORT_FRIEND,
    TRIO,
    Query,
    cast,
    close,
    places,
    things,
)
from clearnets.data.storybook.world import Phrases, Teller, Thing, Words, exchange

# --- compare: who is the tallest follows from two comparisons --------------------------------

_COMPARE_ONE = Phrases(
    "{p} was {more} than {q}.",
    "{p} had always been {more} than {q}.",
    "Everybody knew that {p} was {more} than {q}.",
    "All could see that {p} was {more} than {q}.",
    test=("One could see that {p} was {more} than {q}.",),
)
_COMPARE_TWO = Phrases(
    "But {p} was {more} than {q}.",
    "{p} was {more} than {q}.",
    "And {p} was even {more} than {q}.",
    "And all could see that {p} was {more} than {q}.",
    test=("It was also true that {p} was {more} than {q}.",),
)
_COMPARE_SUM = Phrases(
    "So *{o.name} was the {most} and *{l.name} was the {least}.",
    "That made *{o.name} the {most} and *{l.name} the {least} of the three.",
    "*{o.name} was the {most}, *{l.name} was the {least}, and *{m.name} was between them.",
    "Of the three, *{l.name} was the {least} and *{o.name} was the {most}.",
    test=("Of the three, *{o.name} was the {most} and *{l.name} the {least}.",),
)
_COMPARE_TASK = Phrases(
    "They had to {task}. Only the {most} could do that, so *{o.name} did it.",
    "One day somebody had to {task}. Only *{o.name} could do it.",
    "Who could {task}? It had to be *{o.name}.",
    "It was not easy to {task}. *{o.name}, the {most}, did it for them.",
    test=("A voice told them to {task}, and *{o.name} was the one who could.",),
)
_COMPARE_LEAST = Phrases(
    "Then they had to {task}. The one to do it was *{l.name}.",
    "Later somebody had to {task}. Only the {least}, *{l.name}, could do it.",
    "And who could {task}? It had to be *{l.name}.",
    "It was not easy to {task}. *{l.name}, the {least}, did it for them.",
    test=("To {task} was a task for *{l.name} alone.",),
)
_COMPARE_WHO = exchange(
    ("Who is the {word}", "*{o.name} is the {word}"),
    ("Which of us is the {word}", "It is *{o.name}"),
)
_COMPARE_PAIR = exchange(
    ("Am I {more} than {l.name}", "*{yes}, you are *{word}"),
    ("Tell me, am I {more} than {l.name}", "*{yes}, you are *{word}"),
)


def compare(t: Teller) -> None:
    beings = cast(t, 3)
    scale = t.choice(SCALES)
    high, mid, low = t.sample(beings, 3)
    t.tell(TRIO)
    t.tell(GENDERS[LETTERS[beings.index(mid)]])
    t.bind(most=Words(scale.most), least=Words(scale.least), o=high, m=mid, l=low)
    facts = [(high, mid), (mid, low)]
    if t.chance(0.5):
        facts.reverse()
    for i, (upper, lower) in enumerate(facts):
        up = t.chance(0.5)
        t.tell(
            _COMPARE_TWO if i else _COMPARE_ONE,
            p=upper if up else lower,
            q=lower if up else upper,
            more=Words(scale.more if up else scale.less),
        )
    t.tell(_COMPARE_SUM)
    t.tell(_COMPARE_TASK, task=Words(scale.most_did))
    t.tell(_COMPARE_LEAST, task=Words(scale.least_did))
    queries = [
        Query(_COMPARE_WHO, mid, low, {"o": high, "word": Words(scale.most)}),
        Query(_COMPARE_WHO, mid, high, {"o": low, "word": Words(scale.least)}),
    ]
    for p, q in ((high, mid), (mid, low), (high, low)):
        for one, two, yes in ((p, q, True), (q, p, False)):
            other = next(b for b in beings if b is not one and b is not two)
            queries.append(
                Query(
                    _COMPARE_PAIR,
                    one,
                    other,
                    {
                        "l": two,
                        "more": Words(scale.more),
                        "yes": Words("Yes" if yes else "No"),
                        "word": Words(scale.more if yes else scale.less),
                    },
                )
            )
    close(t, queries, "differ")


# --- race: three runners overtake each other -------------------------------------------------

_RACE_PRIZE = Phrases(
    "They ran a race to {w.the} for {x.a}.",
    "One day there was a race to {w.the}. The prize was {x.a}.",
    "They wanted to know who was the fastest, so they raced to {w.the} for {x.a}.",
    "Who would be first at {w.the}? The winner would get {x.a}.",
    test=("The winner of a race to {w.the} was to get {x.a}.",),
)
_RACE_START = Phrases(
    "At first {p} was in front, {q} was second and {r} was last.",
    "{p} led, {q} came next and {r} was behind.",
    "{p} started best, then came {q}, and {r} was last.",
    "First came {p}, then came {q}, then came {r}.",
    test=("From the start {p} led before {q}, and {r} followed.",),
)
_RACE_PASS = Phrases(
    "Then {p} passed *{q.name}.",
    "Soon {p} {p.moved} past *{q.name}.",
    "After the bend {p} was before *{q.name}.",
    "But *{q.name} was slow, and {p} passed {q.him}.",
    test=("Near the end {p} left^ *{q.name} behind.",),
)
_RACE_END = Phrases(
    "So *{p.name} won, *{q.name} was second and *{r.name} was last.",
    "In the end *{p.name} came first, *{q.name} second and *{r.name} third.",
    "*{p.name} won the race before *{q.name}, and *{r.name} was third.",
    "The race was over. *{p.name} was first, *{q.name} was second, *{r.name} was third.",
    test=("At the goal it was *{p.name}, then *{q.name}, then *{r.name}.",),
)
_RACE_GET = Phrases(
    "*{p.name} got *{x.the} and was *{p.felt}. *{r.name} was *{r.felt}.",
    "The winner was *{p.felt} with *{x.the}, but *{r.name} was *{r.felt}.",
    "*{p.He} took *{x.the} and felt *{p.felt}. The last one, *{r.name}, was *{r.felt}.",
    "*{x.the} was for *{p.name}, who was *{p.felt}. But *{r.name} was *{r.felt}.",
    test=("With *{x.the} *{p.name} felt *{p.felt}, while *{r.name} was *{r.felt}.",),
)
_RACE_WHO = exchange(
    ("Who was {nth}", "*{o.name} was {nth}"),
    ("Who came in {nth}", "It was *{o.name}"),
)
_RACE_WHERE = exchange(
    ("Were you {nth} at the start", "*{yes}, I was *{mth}"),
    ("Did you start {nth}", "*{yes}, I was *{mth} then"),
)


def race(t: Teller) -> None:
    beings = cast(t, 3, traits=t.sample(TRAITS, 3))
    (x,), (w,) = things(t, 1), places(t, 1)
    order = t.sample(beings, 3)
    start = list(order)
    t.tell(TRIO)
    t.tell(_RACE_PRIZE, x=x, w=w)
    t.tell(_RACE_START, p=order[0], q=order[1], r=order[2])
    for _ in range(2):
        i = 1 + t.choice(range(2))
        t.tell(_RACE_PASS, p=order[i], q=order[i - 1])
        order[i], order[i - 1] = order[i - 1], order[i]
    order[0].feel("win")
    order[2].feel("defeat")
    t.bind(p=order[0], q=order[1], r=order[2])
    t.tell(_RACE_END)
    t.tell(_RACE_GET)
    queries = []
    for i, nth in enumerate(("first", "second", "last")):
        queries.append(
            Query(
                _RACE_WHO,
                order[(i + 1) % 3],
                order[(i + 2) % 3],
                {"o": order[i], "nth": Words(nth)},
            )
        )
        asked = t.choice(range(3))
        yes = start[asked] is order[i]
        true = ("first", "second", "last")[start.index(order[i])]
        queries.append(
            Query(
                _RACE_WHERE,
                order[(i + 1) % 3],
                order[i],
                {
                    "nth": Words(("first", "second", "last")[asked]),
                    "yes": Words("Yes" if yes else "No"),
                    "mth": Words(true),
                },
            )
        )
    close(t, queries, "slow" if start[0] is order[0] else "win")


# --- week: the weather of three days, what is worn and done ----------------------------------

_WEEK_DAY = Phrases(
    "On *{d.day} it {weather}, so {a} put on {a.his} *{wear} and *{did}.",
    "On *{d.day} it {weather}. {a} wore {a.his} *{wear} and *{did}.",
    "It {weather} on *{d.day}. In {a.his} *{wear} {a} *{did}.",
    "*{d.day} came. It {weather}, and {a} in {a.his} *{wear} *{did}.",
    test=("*{d.day} came and it {weather}, so {a} took {a.his} *{wear} and *{did}.",),
)
_WEEK_WORE = exchange(
    ("What did you wear on {d.day}", "I wore my *{wear}"),
    ("What did you put on when it {weather}", "I put on my *{wear}"),
)
_WEEK_WHEN = exchange(
    ("When did you wear your {wear}", "On *{d.day}"),
    ("On which day was it that it {weather}", "That was *{d.day}"),
)
_WEEK_NEXT = exchange(
    ("What day is it tomorrow", "It is *{d.day}"),
    ("Which day comes now", "*{d.day} comes next"),
)


def week(t: Teller) -> None:
    a, b = cast(t, 2, traits=t.sample(TRAITS, 2))
    start = t.choice(range(7))
    days = [Words(DAYS[(start + i) % 7], "time_word") for i in range(4)]
    weathers = t.sample(WEATHERS, 3)
    t.tell(HERO)
    t.tell(FRIEND)
    for day, weather in zip(days[:3], weathers):
        t.tell(
            _WEEK_DAY,
            d=day,
            weather=Words(weather.happened, "weather"),
            wear=Words(weather.wear, "clothing"),
            did=Words(weather.did),
        )
    queries = [Query(_WEEK_NEXT, a, b, {"d": days[3]})]
    for day, weather in zip(days, weathers):
        values = {
            "d": day,
            "weather": Words(weather.happened, "weather"),
            "wear": Words(weather.wear, "clothing"),
        }
        queries.append(Query(_WEEK_WORE, b, a, values))
        queries.append(Query(_WEEK_WHEN, b, a, values))
    close(t, queries, "plan")


# --- feast: each eats its own food; two plates are mixed up -----------------------------------

_FEAST_COOK = Phrases(
    "{a} cooked for {a.his} friends and made *{a.food}, *{b.food} and *{c.food}.",
    "One evening {a} made *{a.food}, *{b.food} and *{c.food} for them all.",
    "{a} invited the others and brought *{a.food}, *{b.food} and *{c.food}.",
    "At the house of {a} there was a feast with *{a.food}, *{b.food} and *{c.food}.",
    test=("The table of {a} was full of *{a.food}, *{b.food} and *{c.food}.",),
)
_FEAST_MIXED = Phrases(
    "But it was dark, and {p} got the *{q.food} and {q} got the *{p.food}.",
    "By mistake {p} got the *{q.food}, and the *{p.food} went to {q}.",
    "But {p} was given *{q.food}, and so *{q.name} was given *{p.food}.",
    "The plates were mixed up. {p} had the *{q.food} and {q} had the *{p.food}.",
    test=("In the dark the *{q.food} came to {p} and the *{p.food} to {q}.",),
)
_FEAST_CRY = Phrases(
    '"I do not eat *{q.food}," {p.said} {p}. "I eat *{p.food}."',
    '{p} {p.said}, "I got *{q.food}, but I eat *{p.food}."',
    '"I have never liked *{q.food}," {p.said} {p}. "I like *{p.food}."',
    '"Where is my *{p.food}?" asked {p}. "I cannot eat *{q.food}."',
    test=('"Who can eat *{q.food}?" asked {p}. "Not I. I eat *{p.food}."',),
)
_FEAST_SWAP = Phrases(
    "So *{p.name} and *{q.name} swapped, and {p} ate *{p.food} and {q} ate *{q.food}.",
    "They changed plates. Now *{p.name} had the *{p.food} and *{q.name} had the *{q.food}.",
    "So {p} gave *{q.name} the *{q.food} and took the *{p.food}.",
    "Soon *{p.name} held the *{p.food} and *{q.name} held the *{q.food}.",
    test=("So the *{p.food} went to *{p.name} and the *{q.food} to *{q.name}.",),
)
_FEAST_REST = Phrases(
    "*{r.name} ate the *{r.food}.",
    "That left the *{r.food} for *{r.name}.",
    "And *{r.name} had *{r.food}.",
    "The *{r.food} went to *{r.name}.",
    test=("What was left, the *{r.food}, went to *{r.name}.",),
)
_FEAST_WHO = exchange(
    ("Who likes {o.food}", "*{o.name} the *{o.kind} does"),
    ("Who eats {o.food}", "*{o.name} eats *{o.food}"),
)
_FEAST_WHAT = exchange(
    ("What does {o.name} eat", "*{o.He} eats *{o.food}"),
    ("What is good for {o.name}", "*{o.He} likes *{o.food}"),
)


def feast(t: Teller) -> None:
    beings = cast(t, 3)
    t.tell(TRIO)
    t.tell(_FEAST_COOK)
    p, q = t.sample(beings, 2)
    r = next(b for b in beings if b is not p and b is not q)
    p.mood = "angry" if t.chance(0.3) else ""
    t.bind(p=p, q=q, r=r)
    t.tell(_FEAST_MIXED)
    t.tell(_FEAST_CRY)
    p.mood = ""
    t.tell(_FEAST_SWAP)
    t.tell(_FEAST_REST)
    queries = []
    for i, o in enumerate(beings):
        asker, answerer = beings[(i + 1) % 3], beings[(i + 2) % 3]
        queries.append(Query(_FEAST_WHO, asker, answerer, {"o": o}))
        queries.append(Query(_FEAST_WHAT, asker, answerer, {"o": o}))
    close(t, queries, "share")


# --- riddle: who lives there, who eats that, who speaks so ------------------------------------

_RIDDLE_START = Phrases(
    "{c} had a riddle for them.",
    "One evening they told riddles.",
    "It rained, so they played a game of questions.",
    "They sat together and told riddles.",
    test=("{c} loved a good riddle.",),
)
_RIDDLE_HOME = exchange(
    ("Who lives {o.athome}", "That is *{o.name} the *{o.kind}"),
    ("Who of us sleeps {o.athome}", "*{o.name} the *{o.kind} does"),
)
_RIDDLE_FOOD = exchange(
    ("Who eats {o.food}", "*{o.name} the *{o.kind} eats *{o.food}"),
    ("Who is happy with {o.food}", "It is *{o.name} the *{o.kind}"),
)
_RIDDLE_BOTH = exchange(
    ("Who lives {o.athome} and eats *{o.food}", "*{o.name} does"),
    ("Who sleeps {o.athome} and likes *{o.food}", "It is *{o.name}"),
)
_RIDDLE_GUESS = exchange(
    ("Who likes {o.food}, {g.name} or {o.name}", "*{o.name}, for *{g.name} eats *{g.food}"),
    ("Does {g.name} eat {o.food}", "No, *{g.he} eats *{g.food}, but *{o.name} eats *{o.food}"),
)
_RIDDLE_CRY = Phrases(
    "Somebody *{o.cried}. It was *{o.name} the *{o.kind}.",
    "Who *{o.cried} there? It was *{o.name}, the *{o.kind}.",
    "Then one of them *{o.cried}, and that was *{o.name}.",
    "They heard somebody who *{o.cried}. It was the *{o.kind}, *{o.name}.",
    test=("From the dark came a voice that *{o.cried}. That was *{o.name}.",),
)


def riddle(t: Teller) -> None:
    beings = cast(t, 3, species=t.sample(ANIMALS, 3))
    t.tell(TRIO)
    t.tell(_RIDDLE_START)
    asked = t.sample((_RIDDLE_HOME, _RIDDLE_FOOD, _RIDDLE_BOTH), 2)
    for kind_of_riddle, i in zip(asked, t.sample(range(3), 2)):
        o, g = beings[i], beings[(i + 1) % 3]
        t.tell(kind_of_riddle, p=beings[(i + 2) % 3], q=g, o=o)
    t.tell(_RIDDLE_CRY, o=t.choice(beings))
    queries = []
    for i, o in enumerate(beings):
        p, q = beings[(i + 1) % 3], beings[(i + 2) % 3]
        queries.append(Query(_RIDDLE_GUESS, p, q, {"o": o, "g": p}))
        queries.append(Query(_FEAST_WHAT, p, q, {"o": o}))
    close(t, queries, "differ")


# --- tools: the right tool has been lent on ---------------------------------------------------

_TOOLS_NEED = Phrases(
    "One day {j.broken}. {a} wanted to {j.do}, so {a.he} needed *{j.atool}.",
    "One morning {j.broken}. To {j.do}, {a} needed *{j.atool}.",
    "{a} saw that {j.broken}. With *{j.atool} {a.he} could {j.do}.",
    test=("To {j.do} was the task, and {a} had no *{j.tool}.",),
)
_TOOLS_CHAIN = Phrases(
    '{a} asked {b} for *{j.thetool}. "I gave *{j.it} to {c.name}," {b.said} {b}.',
    '"Do you have *{j.atool}?" asked {a}. "No, {c.name} took *{j.it}," {b.said} {b}.',
    '{a} {a.moved} to {b}. "{c.name} has *{j.thetool} now," {b.said} {b}.',
    test=('{b} had lent *{j.thetool} to somebody. "Ask {c.name}," {b.said} {b}.',),
)
_TOOLS_PLACE = Phrases(
    'So {a.he} {a.moved} to *{c.name}. "I left^ *{j.it} {w.at}," {c.said} {c}.',
    'Then {a.he} asked *{c.name}. "*{j.thetool} is {w.at}," {c.said} {c}.',
    '{a.He} looked for *{c.name}. "Go to {w.the}," {c.said} {c}.',
    test=('So {a.he} found *{c.name}. "I was {w.at} with *{j.it}," {c.said} {c}.',),
)
_TOOLS_DONE = Phrases(
    "{a} {a.moved} to *{w.the}, found *{j.thetool} and *{j.did}.",
    "*{w.At} {a} found *{j.thetool}, and then {a.he} *{j.did}.",
    "So {a} *{a.moved} to *{w.the}, took *{j.thetool} and *{j.did}.",
    test=("*{w.At} lay *{j.thetool}, and soon {a} had *{j.did}.",),
)
_TOOLS_WHERE = exchange(
    ("Where was *{j.thetool}", "It was *{w.at}"),
    ("Where did you find *{j.thetool}", "I found it *{w.at}"),
)
_TOOLS_WHO = exchange(
    ("Who had *{j.thetool} last", "*{c.name} had it last"),
    ("Who gave *{j.thetool} to {c.name}", "*{b.name} gave it to *{c.him}"),
)
_TOOLS_WHAT = exchange(
    ("What do I need to {k.do}", "You need *{k.atool}"),
    ("How can I {k.do}", "Take *{k.atool}"),
)


class Task:
    """A job as a value of the story."""

    __slots__ = ("_forms",)

    def __init__(self, job: Job) -> None:
        tool = word(job.tool, "tool")
        self._forms: dict[str, tuple[Token, ...]] = {
            "broken": tuple(word(w) for w in job.broken.split()),
            # "cut" and "split" look the same in the past.
            "do": tuple((w, word(w)[1] & ~bits("past_tense")) for w in job.do.split()),
            "did": tuple(word(w) for w in job.did.split()),
            "tool": (tool,),
            "atool": (word(article(job.tool)), tool),
            "thetool": (word("the"), tool),
            "it": (word("it"),),
        }

    def say(self, attr: str) -> tuple[Token, ...]:
        return self._forms[attr]


def tools(t: Teller) -> None:
    a, b, c = cast(t, 3)
    job, other = t.sample(JOBS, 2)
    (w,) = places(t, 1)
    t.tell(TRIO)
    t.bind(j=Task(job), k=Task(other), w=w)
    t.tell(_TOOLS_NEED)
    t.tell(_TOOLS_CHAIN)
    t.tell(_TOOLS_PLACE)
    t.tell(_TOOLS_DONE)
    queries = [
        Query(_TOOLS_WHERE, b, a, {}),
        Query(_TOOLS_WHO, a, b, {}),
        Query(_TOOLS_WHAT, c, a, {}),
    ]
    close(t, queries, "help")


# --- paint: two colours are mixed, and a thing changes its colour -----------------------------

_PAINT_HAVE = Phrases(
    "{a} had {x.a} and {b} had {y.a}. They wanted new colours.",
    "{x.A} belonged to {a} and {y.a} to {b}. One day they painted.",
    "{a} brought {x.a} and {b} brought {y.a}. There was paint, too.",
    "{a} owned {x.a} and {b} owned {y.a}. They sat down to paint.",
    test=("With {x.a} came {a}, with {y.a} came {b}, and there was paint.",),
)
_PAINT_MIX = Phrases(
    "{p} mixed {i.c} and {j.c}, and that made *{k.c}. So *{u.thenoun} became *{k.c}.",
    "With {i.c} and {j.c} {p} painted *{u.thenoun}. Now it was *{k.c}.",
    "{p} took {i.c} paint and {j.c} paint. Soon {p.his} *{u.noun} was *{k.c}.",
    "{i.c} and {j.c} make *{k.c}, so {p} painted {p.his} *{u.noun} *{k.c}.",
    test=("{i.c} and {j.c} went into the pot of {p}, and out came *{k.c} for *{u.thenoun}.",),
)
_PAINT_LIKE = Phrases(
    '"What a fine *{x.full}!" ~{b.said} {b}.',
    '{b} {b.said}, "I like your *{x.full}."',
    "{b} looked at *{x.the} and smiled.",
    '"May I have your *{x.full}?" asked {b}.',
    test=('"Your *{x.full} is the best," {b.said} {b}.',),
)
_PAINT_SWAP = Phrases(
    "Then they swapped. {a} got *{y.the} and {b} got *{x.the}.",
    "At last {a} gave *{x.the} to {b} for *{y.the}.",
    "So they traded, and {b} took *{x.the} and {a} took *{y.the}.",
    "In the end {b} went home with *{x.the} and {a} with *{y.the}.",
    test=("Before night {a} had *{y.the} and {b} had *{x.the}.",),
)
_PAINT_WAS = exchange(
    ("What colour was *{u.thenoun} before", "It was *{k.c}"),
    ("Which colour did *{u.thenoun} have at first", "It was *{k.c}"),
)
_PAINT_IS = exchange(
    ("What colour is *{u.thenoun} now", "It is *{k.c}"),
    ("Which colour does *{u.thenoun} have now", "It is *{k.c}"),
)
_PAINT_MAKE = exchange(
    ("What do {i.c} and {j.c} make", "They make *{k.c}"),
    ("How do I get {k.c} paint", "Mix *{i.c} and *{j.c}"),
)


def paint(t: Teller) -> None:
    a, b = cast(t, 2)
    nouns = t.sample(TOYS, 2)
    before = t.sample(("white", "black", "red", "blue"), 2)
    x, y = (Thing(noun, colour) for noun, colour in zip(nouns, before))
    mixes = t.sample(MIXES, 3)
    t.tell(PLAIN_HERO)
    t.tell(SHORT_FRIEND)
    t.tell(_PAINT_HAVE, x=x, y=y)

    def colours(mix: tuple[str, str, str], turned: bool) -> dict[str, Words]:
        first, second = (mix[1], mix[0]) if turned else mix[:2]
        return {"i": Words(first), "j": Words(second), "k": Words(mix[2])}

    for being, thing, mix in zip((a, b), (x, y), mixes):
        t.tell(_PAINT_MIX, p=being, u=thing, **colours(mix, t.chance(0.5)))
        thing.repaint(mix[2])
    t.tell(_PAINT_LIKE)
    t.tell(_PAINT_SWAP)
    queries = []
    for being, other, thing, colour, mix in zip((a, b), (b, a), (x, y), before, mixes):
        now = {"u": thing, "k": Words(mix[2])}
        queries.append(Query(_PAINT_WAS, other, being, {"u": thing, "k": Words(colour)}))
        queries.append(Query(_PAINT_IS, being, other, now))
    queries.append(Query(_PAINT_MAKE, b, a, dict(colours(mixes[2], False))))
    close(t, queries, "share")


# --- opposites: twins who want the contrary ---------------------------------------------------

_TWINS = Phrases(
    "{a.name} and {b.name} were twins, {a.akind} and {a.his} {b.brother}. They lived {a.athome}.",
    "Once there were twins, {a.name} the {a.kind} and {a.his} {b.brother} {b.name}.",
    "{a.name} was {a.akind} and had a twin {b.brother} called {b.name}. They lived {a.athome}.",
    "{a.His} twin {b.brother} {b.name} was {a.akind} like {a.name}. They lived {a.athome}.",
    test=("Twins lived {a.athome}, {a.name} the {a.kind} and {a.his} {b.brother} {b.name}.",),
)
_TWINS_SAME = Phrases(
    "They looked the same, but they never agreed.",
    "Nobody could tell who was who, but they were very different.",
    "What one^ liked, the other did not.",
    "When one^ said yes, the other said no.",
    test=("They were as different as day and night.",),
)
_TWINS_DO = Phrases(
    "{p.name} {one}, but {q.name} *{two}.",
    "When {p.name} {one}, {q.name} *{two}.",
    "{p.name} {one}, so {q.name} *{two}.",
    "While {p.name} {one}, {q.name} *{two}.",
    test=("While {p.name} {one}, {q.name} always *{two}.",),
)
_TWINS_DAY = Phrases(
    "One day they wanted to fool their mother and changed places.",
    "Then, for one day, each did what the other did.",
    "One morning they swapped their names for a day.",
    "One Sunday each wanted to be the other.",
    test=("For fun they lived a day the other way around.",),
)
_TWINS_CHANGED = Phrases(
    "So that day {p.name} *{two} and {q.name} *{one}.",
    "On that day {p.name} *{two}, and it was {q.name} who *{one}.",
    "Now it was {p.name} who *{two}, and {q.name} *{one}.",
    "Then it was {q.name} who *{one}, and {p.name} *{two}.",
    test=("All that day {p.name} *{two}, while {q.name} *{one}.",),
)
_TWINS_WHO = exchange(
    ("Who always {one}", "*{o.name} always *{one}"),
    ("Who of you {one} before that day", "That was *{o.name}"),
)


def opposites(t: Teller) -> None:
    a, b = cast(t, 2, species=[t.choice(KINDS)] * 2, by_name=True)
    pairs = t.sample(OPPOSITES, 3)
    t.tell(_TWINS)
    t.tell(_TWINS_SAME)
    contrary = []
    for frame, one, two in pairs:
        if t.chance(0.5):
            one, two = two, one
        p, q = (a, b) if t.chance(0.5) else (b, a)
        contrary.append((p, q, Words(frame.format(one)), Words(frame.format(two))))
        t.tell(_TWINS_DO, p=p, q=q, one=contrary[-1][2], two=contrary[-1][3])
    t.tell(_TWINS_DAY)
    for p, q, one, two in t.sample(contrary, 2):
        if t.size > 96:
            break
        t.tell(_TWINS_CHANGED, p=p, q=q, one=one, two=two)
    queries = []
    for p, q, one, two in contrary:
        queries.append(Query(_TWINS_WHO, p, q, {"o": p, "one": one}))
        queries.append(Query(_TWINS_WHO, q, p, {"o": q, "one": two}))
    close(t, queries, "differ")


# --- chorus: each animal sings in its own voice, in the order of a leader ---------------------

_CHORUS_LEAD = Phrases(
    "They made a song. {p.name} began and *{p.cried}. Then {q.name} *{q.cried} and {r.name} "
    "*{r.cried}.",
    "First {p.name} *{p.cried}, then {q.name} *{q.cried}, and at last {r.name} *{r.cried}.",
    "They sang together. {p.name} *{p.cried}, {q.name} *{q.cried} and {r.name} *{r.cried}.",
    "{p.name} started and *{p.cried}. {q.name} *{q.cried} next, and {r.name} *{r.cried} last.",
    test=("In their song {p.name} *{p.cried}, {q.name} *{q.cried} and {r.name} *{r.cried}.",),
)
_CHORUS_BACK = Phrases(
    "Then they sang it the other way around. *{r.name} *{r.cried}, *{q.name} *{q.cried} and "
    "*{p.name} *{p.cried}.",
    "After that they began at the end. First *{r.name} *{r.cried}, then *{q.name} *{q.cried}, "
    "then *{p.name} *{p.cried}.",
    "Now the last was first. *{r.name} *{r.cried}, *{q.name} *{q.cried}, *{p.name} *{p.cried}.",
    test=(
        "Backwards it went like this. *{r.name} *{r.cried}, *{q.name} *{q.cried} and "
        "*{p.name} *{p.cried}.",
    ),
)
_CHORUS_HEARD = Phrases(
    "Somebody far away heard the one^ who *{o.cried}. That was *{o.name}.",
    "Somebody *{o.cried} very loudly, and that was *{o.name} the *{o.kind}.",
    "The one^ who *{o.cried} was too loud. It was *{o.name}, the *{o.kind}.",
    "*{o.name} the *{o.kind} *{o.cried} once more.",
    test=("Loudest of all was *{o.name}, the one^ who *{o.cried}.",),
)
_CHORUS_WHO = exchange(
    ("Who {o.cried}", "*{o.name} the *{o.kind} *{o.cried}"),
    ("Who was it that {o.cried}", "It was *{o.name} the *{o.kind}"),
)
_CHORUS_AFTER = exchange(
    ("Who sang after {u.name} in the first song", "*{v.name} sang after *{u.him}"),
    ("Who came before {v.name} in the first song", "*{u.name} came before *{v.him}"),
)


def chorus(t: Teller) -> None:
    beings = cast(t, 3, species=t.sample(ANIMALS, 3))
    order = t.sample(beings, 3)
    t.tell(TRIO)
    t.tell(GENDERS[LETTERS[beings.index(order[1])]])
    t.tell(_CHORUS_LEAD, p=order[0], q=order[1], r=order[2])
    t.tell(_CHORUS_BACK)
    t.tell(_CHORUS_HEARD, o=t.choice(order))
    queries = []
    for i, o in enumerate(order):
        p, q = order[(i + 1) % 3], order[(i + 2) % 3]
        queries.append(Query(_CHORUS_WHO, p, q, {"o": o}))
    for i in range(2):
        u, v, other = order[i], order[i + 1], order[(i + 2) % 3]
        queries.append(Query(_CHORUS_AFTER, other, u, {"u": u, "v": v}))
    close(t, queries, "differ")
