"""Sentence templates: read from sentences.toml and compiled into labelled tokens and slots.

Templates are compiled once, at import; sentences.toml describes how they are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clearnets.data.storybook.lexicon import BASE, TIGHT, Token, bits, read_table

_PIECE = re.compile(r"""\*?~?\{[^}]+\}|\*?[A-Za-z]+\^?|[.,!?"]""")
_SENTENCE_ENDS = frozenset(".!?")
_CLAUSE_ENDS = frozenset(",.!?")
_TEST = "test: "


class Slot:
    """A gap of a template: which value in which form, and the labels of its words."""

    __slots__ = ("capital", "every", "first", "form", "value")

    def __init__(self, value: str, form: str, *, every: int, first: int, capital: bool) -> None:
        self.value, self.form = value, form
        self.every, self.first, self.capital = every, first, capital


Template = tuple[Token | Slot, ...]


class _Compiler:
    """The state of a template's text while it is read from left to right."""

    def __init__(self) -> None:
        self.items: list[Token | Slot] = []
        self.quoted = False
        self.negated = False
        self.opens = True  # the next word begins a sentence
        self.ended = False  # the last mark ended a sentence
        self.glued = False  # no space before the next word

    def quotation_mark(self, labels: int) -> None:
        labels |= bits("quotation_mark")
        if self.quoted:
            labels |= TIGHT
            # A quotation that ends in ! or ? ends the sentence unless the text goes on.
            self.opens = self.ended
        else:
            labels |= bits("sentence_start") if self.opens else 0
            self.opens = True
        self.quoted = self.glued = not self.quoted
        self.negated = False
        self.items.append(('"', labels))

    def mark(self, mark: str, labels: int) -> None:
        self.items.append((mark, BASE[mark] | self._context(labels) & ~bits("negated") | TIGHT))
        self.negated = self.glued = False
        self.opens = self.ended = mark in _SENTENCE_ENDS

    def slot(self, slot: str, labels: int) -> None:
        capital = self.opens and not slot.startswith("~")
        value, _, form = slot.strip("~{}").partition(".")
        # {a.He} is the form {a.he}; a slot without a form is the usual reference.
        self.items.append(
            Slot(
                value,
                form.lower() or "ref",
                every=self._context(labels),
                first=self._first(opens=capital),
                capital=capital,
            )
        )
        self.opens = self.ended = self.glued = False

    def word(self, word: str, labels: int) -> None:
        base = BASE.get(word.lower(), 0)
        first = self._first(opens=self.opens and word[0].isupper())
        self.items.append((word.rstrip("^"), base | self._context(labels) | first))
        self.negated = self.negated or bool(base & bits("negation"))
        self.opens = self.ended = self.glued = False

    def _context(self, labels: int) -> int:
        labels |= bits("inside_quotation") if self.quoted else 0
        return labels | (bits("negated") if self.negated else 0)

    def _first(self, *, opens: bool) -> int:
        return (TIGHT if self.glued else 0) | (bits("sentence_start") if opens else 0)


def _in_questions(pieces: Sequence[str]) -> list[bool]:
    """Return for each piece whether it belongs to a sentence that ends in a question mark."""
    found: list[bool] = []
    sentence = 0
    for piece in pieces:
        sentence += 1
        if piece in _SENTENCE_ENDS or piece == '"':
            found += [piece == "?"] * sentence
            sentence = 0
    return found + [False] * sentence


def compile_template(text: str, extra: int = 0) -> Template:
    """Parse a template into tokens and slots with the labels that its text decides.

    Args:
        text: the template.
        extra: labels of all its words (for instance those of a moral).
    """
    pieces = _PIECE.findall(text)
    assert "".join(pieces) == re.sub(r"\s", "", text), f"unreadable template: {text!r}"
    compiler = _Compiler()
    for piece, question in zip(pieces, _in_questions(pieces)):
        if piece == '"':
            compiler.quotation_mark(extra)
            continue
        labels = extra | (bits("question") if question else 0)
        labels |= bits("requires_state") if piece.startswith("*") else 0
        piece = piece.lstrip("*")
        if piece.endswith("}"):
            compiler.slot(piece, labels)
        elif piece in _CLAUSE_ENDS:
            compiler.mark(piece, labels)
        else:
            compiler.word(piece, labels)
    return tuple(compiler.items)


class Phrases:
    """The wordings of one kind of sentence; `test` ones appear in the test splits only."""

    __slots__ = ("held_out", "shared", "test_texts", "texts")

    def __init__(self, *texts: str, test: Sequence[str] = (), extra: int = 0) -> None:
        self.texts, self.test_texts = texts, tuple(test)
        self.shared = tuple(compile_template(text, extra) for text in texts)
        self.held_out = tuple(compile_template(text, extra) for text in test)


class _Frame(NamedTuple):
    """What is put around the lines of a group: %s stands for a line, or for each of its parts."""

    shared: Sequence[str]
    test: str


def _phrases(block: str, frame: _Frame | None = None, extra: int = 0) -> Phrases:
    """Read the lines of a group, those for the test splits among them."""
    lines = [line for line in block.splitlines() if not line.startswith(_TEST)]
    test = [line.removeprefix(_TEST) for line in block.splitlines() if line.startswith(_TEST)]
    if frame:
        test = [frame.test % tuple(line.split("? ")) for line in (lines[0], *test)]
        lines = [shared % tuple(line.split("? ")) for line in lines for shared in frame.shared]
    return Phrases(*lines, test=test, extra=extra)


def _read() -> tuple[dict[str, dict[str, Phrases]], dict[str, Phrases]]:
    """Return each plot's phrases, with those that plots share, and the morals."""
    tables = read_table("sentences.toml")
    frames = {form: _Frame(**frame) for form, frame in tables.pop("frames").items()}
    morals = tables.pop("morals")

    def read(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Phrases]:
        return {
            name: _phrases(block, frames.get(form))
            for form, blocks in groups.items()
            for name, block in blocks.items()
        }

    shared = read(tables.pop("shared"))
    return (
        {plot: {**shared, **read(groups)} for plot, groups in tables.items()},
        {name: _phrases(block, extra=bits("moral")) for name, block in morals.items()},
    )


PHRASES, MORALS = _read()
