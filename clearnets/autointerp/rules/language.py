"""The language of rules, the offline explanations: values, their sentences, and the parser.

A rule says at which words of a text a latent is active. It has one or two clauses and fires where
any of them does. `render` writes it as a sentence, `parse` reads the sentence back, and
`parse(render(rule)) == rule` for every rule, so that the sentence alone carries the rule.

    sentence := clause ["; also " clause] "."
    clause   := trigger [" " context]
    trigger  := "Any word" | "The word " quoted | "The word part " quoted | "The mark " quoted
              | list                      (the first letter is small in a second clause)
    context  := "at the start of a sentence"     | "but not at the start of a sentence"
              | "in the first sentence"          | "but not in the first sentence"
              | "inside a quotation"             | "outside a quotation"
              | "at the start of a quotation"    | "but not at the start of a quotation"
              | "right after a closing quotation mark"
              | "but not right after a closing quotation mark"
              | "when it has occurred before"    | "when it occurs for the first time"
              | "when it has followed the same word before"
              | "when it has not followed the same word before"
              | "right after " list              | "but not right after " list
              | "shortly after " list            | "but not shortly after " list
              | "later in the text than " list   | "but not later in the text than " list
    list     := item | item {", " item} " or " item
    item     := quoted | "a word like " quoted " and " quoted    ("A" at the start of a sentence)
    quoted   := a word between double quotes, or single quotes where the word holds a double one;
                backslash escapes for the quote, the backslash and all that does not print

A word like two words is any word of the smallest class that holds both; the table of classes is
an artifact of its own (`clearnets.autointerp.rules.word_classes`).
`clearnets.autointerp.rules.matcher`, which executes rules, defines exactly what contexts mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from clearnets import UserError

State = Literal[
    "sentence-start",
    "first-sentence",
    "inside-quotation",
    "quotation-start",
    "closed-quotation",
    "seen",
    "followed",
]
After = Literal["right-after", "shortly-after", "text-after"]
Kind = State | After

STATES: tuple[State, ...] = get_args(State)
AFTERS: tuple[After, ...] = get_args(After)

# The phrase of each context, and of its negation.
_PHRASES: dict[Kind, tuple[str, str]] = {
    "sentence-start": ("at the start of a sentence", "but not at the start of a sentence"),
    "first-sentence": ("in the first sentence", "but not in the first sentence"),
    "inside-quotation": ("inside a quotation", "outside a quotation"),
    "quotation-start": ("at the start of a quotation", "but not at the start of a quotation"),
    "closed-quotation": (
        "right after a closing quotation mark",
        "but not right after a closing quotation mark",
    ),
    "seen": ("when it has occurred before", "when it occurs for the first time"),
    "followed": (
        "when it has followed the same word before",
        "when it has not followed the same word before",
    ),
    "right-after": ("right after", "but not right after"),
    "shortly-after": ("shortly after", "but not shortly after"),
    "text-after": ("later in the text than", "but not later in the text than"),
}
# The kind of context, and whether it is negated, by phrase.
_CONTEXTS: dict[str, tuple[Kind, bool]] = {
    phrase: (kind, negated)
    for kind, phrases in _PHRASES.items()
    for negated, phrase in zip((False, True), phrases)
}


@dataclass(frozen=True)
class Like:
    """The words of the smallest class that holds two words."""

    one: str
    other: str


# What a list names: a word, or a class of words.
Item = str | Like


@dataclass(frozen=True)
class Context:
    """Where a trigger counts: a state of the text, or behind one of some words.

    Attributes:
        kind: one of STATES, or of AFTERS, which take words.
        words: the words and classes of a context of AFTERS; empty for a state.
        negated: the trigger counts where the context does not hold.
    """

    kind: Kind
    words: tuple[Item, ...] = ()
    negated: bool = False

    def __post_init__(self) -> None:
        assert bool(self.words) == (self.kind in AFTERS), self
        assert len(set(self.words)) == len(self.words), self


@dataclass(frozen=True)
class Clause:
    """Trigger words and classes, or any word where there are none, and the context in which they
    count."""

    words: tuple[Item, ...] = ()
    context: Context | None = None

    def __post_init__(self) -> None:
        assert len(set(self.words)) == len(self.words), self


@dataclass(frozen=True)
class Rule:
    """One or two clauses; the rule fires where any of them does."""

    clauses: tuple[Clause, ...]

    def __post_init__(self) -> None:
        assert 1 <= len(self.clauses) <= 2, self

    @property
    def num_words(self) -> int:
        """Return the number of words and classes that the whole sentence names."""
        return sum(len(c.words) + len(c.context.words if c.context else ()) for c in self.clauses)


_ALSO = "; also "
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_UNESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def _quote(word: str) -> str:
    mark = "'" if '"' in word and "'" not in word else '"'
    return mark + "".join(_escape(char, mark) for char in word) + mark


def _escape(char: str, mark: str) -> str:
    if char == mark:
        return "\\" + char
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)


def _unquote(quoted: str) -> str:
    def char(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else _UNESCAPES.get(match[3], match[3])

    return _ESCAPE.sub(char, quoted[1:-1])


def _item(item: Item) -> str:
    if isinstance(item, Like):
        return f"a word like {_quote(item.one)} and {_quote(item.other)}"
    return _quote(item)


def _list(items: tuple[Item, ...]) -> str:
    named = [_item(item) for item in items]
    return " or ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def quoted_list(words: tuple[str, ...]) -> str:
    """Return words as a sentence lists them."""
    return _list(words)


def _noun(word: str) -> str:
    if word[1:2].isalnum() and word[0] == "-":
        return "word part"
    return "word" if word[:1].isalnum() else "mark"


def _clause(clause: Clause, *, first: bool) -> str:
    words, context = clause.words, clause.context
    if not words:
        text = "any word"
    elif len(words) == 1 and isinstance(words[0], str):
        text = f"the {_noun(words[0])} {_quote(words[0])}"
    else:
        text = _list(words)
    if first:  # A quotation mark has no capital.
        text = text[0].upper() + text[1:]
    if context is None:
        return text
    phrase = _PHRASES[context.kind][context.negated]
    return f"{text} {phrase} {_list(context.words)}" if context.words else f"{text} {phrase}"


def render(rule: Rule) -> str:
    """Return the rule as a sentence."""
    clauses = [_clause(clause, first=i == 0) for i, clause in enumerate(rule.clauses)]
    return _ALSO.join(clauses) + "."


# The parser works on the skeleton of a sentence: each quoted word replaced by this character.
_HOLE = "\0"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_ITEM = rf"(?:{_HOLE}|[Aa] word like {_HOLE} and {_HOLE})"
_ITEMS = rf"{_ITEM}(?:(?:, {_ITEM})* or {_ITEM})?"
_TRIGGER = rf"[Aa]ny word|[Tt]he (?:word|word part|mark) {_HOLE}|{_ITEMS}"
_CLAUSE = re.compile(
    rf"(?P<trigger>{_TRIGGER})"
    rf"(?: (?P<phrase>[a-z ]+?)(?: (?P<words>{_ITEMS}))?)?"
)
# The items of a list, one by one.
_ONE = re.compile(rf"(?P<like>like {_HOLE} and )?{_HOLE}")


def parse(sentence: str) -> Rule:
    """Return the rule that a sentence states.

    Raises:
        UserError: the sentence is not of the grammar above.
    """
    skeleton = _QUOTED.sub(_HOLE, sentence)
    words = iter([_unquote(match[0]) for match in _QUOTED.finditer(sentence)])
    fault = UserError(
        f"not a rule: {sentence!r:.120}; score rules that `clearnets explain` wrote with `tokens`"
    )
    if _HOLE in sentence or not skeleton.endswith("."):
        raise fault
    clauses = []
    for part in skeleton[:-1].split(_ALSO):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise fault
        trigger = _take(words, match["trigger"])
        context = None
        if match["phrase"] is not None:
            kind, negated = _CONTEXTS.get(match["phrase"], (None, False))
            if kind is None or (kind in AFTERS) != (match["words"] is not None):
                raise fault
            context = Context(kind, _take(words, match["words"] or ""), negated)
        clauses.append(Clause(trigger, context))
    if len(clauses) > 2:
        raise fault
    return Rule(tuple(clauses))


def _take(words: Iterator[str], skeleton: str) -> tuple[Item, ...]:
    """Return the next words and classes, as a list has them, without repetitions."""
    items = [
        Like(next(words), next(words)) if found["like"] else next(words)
        for found in _ONE.finditer(skeleton)
    ]
    return tuple(dict.fromkeys(items))
