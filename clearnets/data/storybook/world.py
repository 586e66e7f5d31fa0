"""The teller: draws choices, keeps the cast, turns templates into labelled words.

A template is plain text with slots: "{a.He} gave {x.the} to *{b}." A slot names a value of the
story and one of its forms. A star marks a word that follows from the story's state and could not
be known from its sentence alone. A slot opens a sentence where the text does, and is then written
with a capital; "~" before a slot says that it goes on with the sentence of a quotation that ended
in ! or ?. Templates are compiled once, at import; telling only appends ready tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, TypeVar

from clearnets.data.storybook.lexicon import (
    ALL_CONCEPTS,
    BASE,
    EMOTIONS,
    MOOD,
    NUMBERS,
    SPEECH,
    TIGHT,
    TRAITS,
    Kind,
    Stock,
    Token,
    article,
    bits,
    emotion,
    word,
)

T = TypeVar("T")

NUM_STYLES = 12
STYLE_LOYALTY = 0.85
"""How often a story words a sentence the way its style does."""
HELD_OUT_SHARE = 0.15
"""In the test splits: share of sentences worded, and of stories plotted, as nowhere else."""

_TOKEN = re.compile(r"""\*?~?\{[^}]+\}|'s\b|\*?[A-Za-z]+(?:'(?:t|m|ll|re|ve|d)\b)?\^?|[.,!?"]""")
_ENDS = frozenset(".!?")
_NEGATION = bits("negation")
_CLAUSE_ENDS = frozenset(',.!?"')
_SEEN = bits("repeated_object")
_STATE = bits("requires_state")
_LITTLE = frozenset(("was", "in", "on", "the", "a", "an", "at"))
_ARTICLES = frozenset(("a", "an", "the"))


class Slot:
    """A gap of a template: which value, in which form, and the labels of the place."""

    __slots__ = ("attr", "capital", "every", "first", "var")

    def __init__(self, var: str, attr: str, *, every: int, first: int, capital: bool) -> None:
        self.var, self.attr = var, attr
        self.every, self.first, self.capital = every, first, capital

    def __repr__(self) -> str:
        return f"{{{self.var}.{self.attr}}}"


Template = tuple["Token | Slot", ...]


def compile_template(text: str, extra: int = 0) -> Template:
    """Parse a template into tokens and slots with the labels that its text decides.

    Args:
        text: the template.
        extra: labels of all its words (for instance those of a moral).
    """
    raw = _TOKEN.findall(text)
    glue = re.sub(r"\s", "", text)
    assert "".join(raw) == glue, f"unreadable template: {text!r}"
    items: list[Token | Slot] = []
    inside, negated, start, glued, ended = False, False, True, False, False
    sentence_from = 0  # index of the first item of the running sentence, for questions
    marks: list[int] = [0] * len(raw)
    for i, piece in enumerate(raw):
        if piece == "?":
            for j in range(sentence_from, i + 1):
                marks[j] |= bits("question")
        if piece in _ENDS or piece == '"':
            sentence_from = i + 1
    for i, piece in enumerate(raw):
        state = piece[0] == "*"
        piece = piece.lstrip("*")
        goes_on = piece[0] == "~"
        piece = piece.lstrip("~")
        if piece == '"':
            mask = bits("quotation_mark") | extra
            if inside:
                mask |= TIGHT
                inside = False
                # A quotation that ends in ! or ? ends the sentence unless the text goes on.
                start = ended
                glued = False
            else:
                mask |= bits("sentence_start") if start else 0
                inside, start, glued = True, True, True
            items.append((piece, mask))
            negated = False
            continue
        every = marks[i] | extra
        every |= bits("inside_quotation") if inside else 0
        every |= bits("negated") if negated else 0
        every |= _STATE if state else 0
        first = TIGHT if glued else 0
        if piece[0] == "{":
            var, _, attr = piece[1:-1].partition(".")
            capital = start and not goes_on
            first |= bits("sentence_start") if capital else 0
            # {a.He} is the form {a.he}; a slot without a form is the usual reference.
            items.append(
                Slot(var, attr.lower() or "ref", every=every, first=first, capital=capital)
            )
            start = glued = ended = False
        elif piece in _CLAUSE_ENDS:
            items.append((piece, BASE.get(piece, 0) | every & ~bits("negated") | TIGHT))
            negated = False
            ended = piece in _ENDS
            start = ended
            glued = False
        else:
            lower = piece[0].islower()
            opens = start and not lower
            base = BASE.get(piece.lower(), 0)
            piece = piece.rstrip("^")
            if piece == "'s":
                base, first = bits("possessive"), TIGHT
            items.append((piece, base | every | first | (bits("sentence_start") if opens else 0)))
            negated = negated or bool(base & _NEGATION)
            start = glued = ended = False
    return tuple(items)


class Phrases:
    """The wordings of one kind of sentence; `test` ones appear in the test splits only."""

    __slots__ = ("held_out", "shared", "test_texts", "texts")

    def __init__(self, *texts: str, test: Sequence[str] = (), label: str = "") -> None:
        extra = bits(label) if label else 0
        self.texts, self.test_texts = texts, tuple(test)
        self.shared = tuple(compile_template(t, extra) for t in texts)
        self.held_out = tuple(compile_template(t, extra) for t in test)


def ask(*questions: str, who: str = "a", test: Sequence[str] = ()) -> Phrases:
    """Questions, each put by `who` in several ways. Only questions are "asked"."""
    texts = []
    for q in questions:
        texts.append(f'"{q}?" asked {{{who}}}.')
        texts.append(f'{{{who}}} asked, "{q}?"')
    held = [f'{{{who}}} wanted to know, "{q}?"' for q in (*questions[:1], *test)]
    return Phrases(*texts, test=held)


def exchange(*pairs: tuple[str, str], test: Sequence[tuple[str, str]] = ()) -> Phrases:
    """Questions of p with the answers of q."""
    texts = []
    for question, answer in pairs:
        texts.append(f'"{question}?" asked {{p}}. "{answer}," {{q.said}} {{q}}.')
        texts.append(f'{{p}} asked, "{question}?" {{q}} {{q.said}}, "{answer}."')
    held = [
        f'{{p}} wanted to know, "{question}?" "{answer}," came the answer from {{q}}.'
        for question, answer in (*pairs[:1], *test)
    ]
    return Phrases(*texts, test=held)


def say(*lines: str, who: str = "b", test: Sequence[str] = ()) -> Phrases:
    """Statements, each said by `who` in several ways; the verb follows from mood and kind."""
    texts = []
    for line in lines:
        texts.append(f'"{line}," {{{who}.said}} {{{who}}}.')
        texts.append(f'{{{who}}} {{{who}.said}}, "{line}."')
    held = [f'{{{who}}} turned around and {{{who}.said}}, "{q}."' for q in (*lines[:1], *test)]
    return Phrases(*texts, test=held)


class Value(Protocol):
    """What can fill a slot: it says itself in the form that the slot names."""

    def say(self, attr: str, /) -> tuple[Token, ...]: ...


class Being:
    """A character: name, kind, gender, trait, and how it feels now."""

    __slots__ = ("_calls", "_forms", "kind", "male", "mood", "name", "reference", "seen", "trait")

    def __init__(
        self, *, name: str, kind: Kind, male: bool, trait: str, voices: bool, reference: int
    ) -> None:
        self.name, self.kind, self.male, self.trait = name, kind, male, trait
        self.mood = ""
        self.seen = False
        self.reference = reference
        self._calls = 0
        gender = bits("pronoun_male" if male else "pronoun_female")
        species = word(kind.noun)
        preposition, home = kind.home.split()
        self._forms: dict[str, tuple[Token, ...]] = {
            "name": ((name, bits("name", "first_mention")),),
            "kind": (species,),
            "akind": (word(article(kind.noun)), species),
            "atrait": (word(article(trait)), word(trait), species) if trait else (),
            "the": (word("the"), species),
            "he": (("he" if male else "she", gender),),
            "him": (("him" if male else "her", gender),),
            "his": (("his" if male else "her", gender | bits("possessive")),),
            "trait": (word(trait),) if trait else (),
            "thehome": (word(preposition), word("the"), word(home)),
            "myhome": (word(preposition), word("my"), word(home)),
            "athome": (word(preposition), word(article(home)), word(home)),
            "moved": (word(kind.move),),
            "food": (word(kind.food, "food"),),
            "cried": (word(kind.cry),),
            "voice": (word(kind.cry if voices else "said"),),
            "boy": (word("boy" if male else "girl"),),
            "boys": (word("boys" if male else "girls", "plural_noun"),),
            "brother": (word("brother" if male else "sister"),),
            "father": (word("father" if male else "mother"),),
            "son": (word("son" if male else "daughter"),),
        }

    def say(self, attr: str) -> tuple[Token, ...]:
        if attr == "ref":
            # By names, by kinds, or by turns; the way is chosen once per story.
            self._calls += 1
            by_kind = self.seen and (
                self.reference == 1 or (self.reference == 2 and self._calls % 2 == 0)
            )
            if by_kind:
                return self._forms["the"]
            attr = "name"
        if attr == "name":
            tokens = self._forms["name"]
            if not self.seen:
                self.seen = True
                self._forms["name"] = ((self.name, bits("name", "repeated_name")),)
            return tokens
        if attr == "said":
            verb = SPEECH.get(self.mood)
            return (word(verb),) if verb else self._forms["voice"]
        return self._forms[attr]

    def feel(self, event: str) -> None:
        """Let an event change the mood: it follows from the trait, and `felt` says how."""
        felt = EMOTIONS[event][TRAITS.index(self.trait)]
        self.mood = MOOD.get(felt, "")
        self._forms["felt"] = (emotion(felt),)


class Thing:
    """A single object, told apart by an adjective."""

    __slots__ = ("_forms", "adjective", "noun", "seen")

    def __init__(self, noun: str, adjective: str) -> None:
        self.noun, self.adjective = noun, adjective
        self.seen = False
        self._build(bits("object"))

    def _build(self, label: int) -> None:
        noun = (self.noun, BASE.get(self.noun, 0) | label)
        adjective = word(self.adjective)
        self._forms: dict[str, tuple[Token, ...]] = {
            "noun": (noun,),
            "a": (word(article(self.adjective)), adjective, noun),
            "the": (word("the"), adjective, noun),
            "full": (adjective, noun),
            "thenoun": (word("the"), noun),
        }

    def say(self, attr: str) -> tuple[Token, ...]:
        tokens = self._forms[attr]
        if not self.seen:
            self.seen = True
            self._forms = {
                k: tuple((t, m) if t in _ARTICLES else (t, m | _SEEN) for t, m in v)
                for k, v in self._forms.items()
            }
        return tokens

    def repaint(self, colour: str) -> None:
        """Give the thing another adjective; it stays the same thing."""
        self.adjective = colour
        self._build(bits("object") | (_SEEN if self.seen else 0))


class Count:
    """A number of things of one sort, with plural agreement."""

    __slots__ = ("_forms",)

    def __init__(self, n: int, stock: Stock, adjective: str, *, repeated: bool) -> None:
        number = word(NUMBERS[n])
        label = bits("food" if stock.food else "object") | (_SEEN if repeated else 0)
        noun: Token = (stock.one, label) if n == 1 else (stock.many, label | bits("plural_noun"))
        adj = word(adjective)
        self._forms: dict[str, tuple[Token, ...]] = {
            "n": (number,),
            "np": (number, adj, noun),
            "short": (number, noun),
            "noun": (noun,),
            "many": ((stock.many, label | bits("plural_noun")),),
        }

    def say(self, attr: str) -> tuple[Token, ...]:
        return self._forms[attr]


class Where:
    """A place or a spot, with the preposition of being there."""

    __slots__ = ("_forms", "noun")

    def __init__(self, preposition: str, noun: str, label: str) -> None:
        self.noun = noun
        there: Token = (noun, BASE.get(noun, 0) | bits(label))
        the = word("the")
        self._forms: dict[str, tuple[Token, ...]] = {
            "noun": (there,),
            "the": (the, there),
            "at": (word(preposition), the, there),
            "to": (("to", 0), the, there),
            "a": (word(article(noun)), there),
        }

    def say(self, attr: str) -> tuple[Token, ...]:
        return self._forms[attr]


class Words:
    """Fixed words that fill a slot."""

    __slots__ = ("_tokens",)

    def __init__(self, text: str, *concepts: str) -> None:
        self._tokens = tuple(
            word(t, *concepts) if t not in _LITTLE else word(t) for t in text.split()
        )

    def say(self, attr: str) -> tuple[Token, ...]:
        del attr  # fixed words have one form
        return self._tokens


class Teller:
    """One story in the making."""

    __slots__ = ("bound", "nll", "random", "style", "test", "tokens")

    def __init__(self, random: Random, *, test: bool) -> None:
        self.random = random
        self.test = test
        self.nll = 0.0
        self.tokens: list[Token] = []
        self.bound: dict[str, Value] = {}
        self.style = 0

    # Only draw, choice and phrase take from `random`, and each adds -log p to the story's nll.
    def draw(self, probabilities: Sequence[float]) -> int:
        """Draw an index by its probability and add -log p (nats) to the story's nll."""
        r = self.random.random()
        last = len(probabilities) - 1
        for i, p in enumerate(probabilities):
            r -= p
            if r < 0.0 or i == last:
                self.nll -= math.log(p)
                return i
        raise AssertionError("nothing to draw from")

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        n = len(options)
        self.nll += math.log(n)
        return options[int(self.random.random() * n)]

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self.draw((p, 1.0 - p)) == 0

    def sample(self, options: Sequence[T], n: int) -> list[T]:
        """n different options in random order."""
        pool = list(options)
        taken = []
        for _ in range(n):
            pick = self.choice(range(len(pool)))
            taken.append(pool[pick])
            pool[pick] = pool[-1]
            pool.pop()
        return taken

    def phrase(self, phrases: Phrases) -> Template:
        """A wording: mostly that of the story's style; in test splits sometimes a held-out one."""
        held_out = phrases.held_out if self.test else ()
        share = HELD_OUT_SHARE if held_out else 0.0
        shared = phrases.shared
        n = len(shared)
        loyal = self.style % n
        r = self.random.random()
        if r < share:
            self.nll += math.log(len(held_out) / share)
            return held_out[int(r / share * len(held_out))]
        r = (r - share) / (1.0 - share)
        index = loyal if r < STYLE_LOYALTY else int((r - STYLE_LOYALTY) / (1 - STYLE_LOYALTY) * n)
        index = min(index, n - 1)
        p = (1.0 - STYLE_LOYALTY) / n + (STYLE_LOYALTY if index == loyal else 0.0)
        self.nll -= math.log(p * (1.0 - share))
        return shared[index]

    def bind(self, **values: Value) -> None:
        """Give values of the story the names by which templates call them."""
        self.bound.update(values)

    def tell(self, phrases: Phrases, **values: Value) -> None:
        """Append one wording of the phrases, its slots filled from what is bound."""
        if values:
            self.bound.update(values)
        bound = self.bound
        append = self.tokens.append
        for item in self.phrase(phrases):
            if isinstance(item, tuple):
                append(item)
                continue
            first = item.first
            for text, mask in bound[item.var].say(item.attr):
                # An article follows from its noun, which is what the state decides.
                mask |= item.every if text not in _ARTICLES else item.every & ~_STATE
                if first is not None:
                    mask |= first
                    first = None
                    if item.capital:
                        text = text[0].upper() + text[1:]
                append((text, mask))

    @property
    def size(self) -> int:
        """Words and punctuation marks so far."""
        return len(self.tokens)

    def finish(self) -> tuple[str, list[tuple[int, int, int]]]:
        """The text and the span and labels of each token."""
        parts: list[str] = []
        spans: list[tuple[int, int, int]] = []
        at = 0
        for text, mask in self.tokens:
            if not mask & TIGHT and at:
                parts.append(" ")
                at += 1
            end = at + len(text)
            parts.append(text)
            spans.append((at, end, mask & ALL_CONCEPTS))
            at = end
        return "".join(parts), spans


Plot = Callable[[Teller], None]
