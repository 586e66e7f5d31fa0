"""Matching of rules against text: tokens as words, and the positions at which a rule fires.

A *word* is the text of one token: a token that begins a word is that word, with or without a space
before it (`said`); a token inside a word is a word part (`-ing`); anything else is a mark and keeps
its spaces (`,` or ` "`). Only counted positions can fire or be named.

A rule is read from the start of the row on, so a window's first positions have their context:

- *inside a quotation*: an odd number of quotation marks stands before, and none in the token;
- *at the start of a quotation*, *right after a closing quotation mark*: directly behind a token
  with a quotation mark that opens or closes;
- a *sentence* ends with `.`, `!`, `?`, a line break or an opening quotation mark, or its text;
- *at the start of a sentence*: the first word of a sentence, unless it begins with a small letter;
- *in the first sentence*: of its text, which begins behind an uncounted position;
- *has occurred before*: the same word stands earlier in the row;
- *has followed the same word before*: so do this word and the one before it, side by side;
- *right after*: directly before stands one of the words;
- *shortly after*: one of them is among the `NEAR` tokens before;
- *later in the text*: one of them stands earlier in the row.

Sets of positions are bits: a window of up to 64 positions is one integer, so that a rule is tried
on a hundred windows by a handful of integer operations.

Shape suffixes: T token ids, V words, R rows, S positions of a row, N windows, W chosen windows, L
positions of a window, B machine words per window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, Protocol, TypeVar, cast

import numpy as np

from clearnets.autointerp.rules.language import (
    AFTERS,
    STATES,
    After,
    Clause,
    Item,
    Like,
    Rule,
    State,
)
from clearnets.autointerp.rules.word_classes import NO_CLASSES, WordClasses
from clearnets.latents.examples import Grid, Windows, windows_of

W = TypeVar("W", bound=Windows)
# Where a word or class stands: at a position itself, or before it.
Role = Literal["here"] | After

# Tokens back to which "shortly after" reaches.
NEAR = 5
# No word: an uncounted position, or one before the row.
NOTHING = -1
# Marks of words are kept for the next search where those of all words take so many bytes at most.
MOST_BYTES = 2**28
_QUOTES = '"“”'
_ENDS = ".!?\n"


def pack(flags_xL: np.ndarray) -> np.ndarray:
    """Pack booleans (..., L) as bits into words (..., B) of 32 bits if one is enough, else of
    64."""
    word = np.dtype(np.uint32 if flags_xL.shape[-1] <= 32 else np.uint64)
    packed = np.packbits(flags_xL, axis=-1)
    size = packed.shape[-1]
    if not size % word.itemsize:
        return packed.view(word)
    whole = -(-size // word.itemsize) * word.itemsize
    bits = np.zeros((*packed.shape[:-1], whole), dtype=np.uint8)
    bits[..., :size] = packed
    return bits.view(word)


def count(bits_xB: np.ndarray) -> np.ndarray:
    """Return the number of set bits over the last axis."""
    counts_xB = np.bitwise_count(bits_xB)
    if counts_xB.shape[-1] == 1:  # NumPy reduces an axis of one element by element.
        return counts_xB[..., 0]
    return counts_xB.sum(axis=-1, dtype=np.int64)


def fires(bits_xB: np.ndarray) -> np.ndarray:
    """Return which windows have a bit set."""
    return np.asarray(bits_xB[..., 0] != 0 if bits_xB.shape[-1] == 1 else bits_xB.any(axis=-1))


class Lexicon:
    """The words that tokens stand for, and their classes. Both have numbers: a class that of its
    place in the table of classes, behind all words.

    Attributes:
        words: the text of each word; all different.
        word_T2: word of each token where it begins a word (column 0) or goes on in one (1).
        classes: of words.
        leaf_V: place of each word in the order of the classes, -1 where it is in none; one more
            for NOTHING.
    """

    def __init__(self, strings: Iterable[str], classes: WordClasses = NO_CLASSES) -> None:
        self._ids: dict[str, int] = {}
        strings = list(strings)
        self.word_T2 = np.array([self._pair(t, s) for t, s in enumerate(strings)], dtype=np.int32)
        self.words = tuple(self._ids)
        self.written_T = np.array([bool(s) for s in strings])
        self.solid_T = np.array([s[:1].isalnum() for s in strings])
        self.letter_end_T = np.array([s[-1:].isalnum() for s in strings])
        self.has_word_T = np.array([any(c.isalnum() for c in s) for s in strings])
        self.small_T = np.array([s.lstrip()[:1].islower() for s in strings])
        self.quotes_T = np.array([sum(c in _QUOTES for c in s) for s in strings])
        self.ends_T = np.array([any(c in _ENDS for c in s) for s in strings])
        self.classes = classes
        self._spans = np.array(classes.spans, dtype=int).reshape(-1, 2)
        self.leaf_V = np.full(len(self.words) + 1, -1, dtype=np.int32)
        leaf = {word: i for i, word in enumerate(classes.words) if word in self._ids}
        self.leaf_V[[self._ids[word] for word in leaf]] = list(leaf.values())

    def _pair(self, token: int, string: str) -> tuple[int, int]:
        if string[:1] == " " and string[1:2].isalnum():
            word = self._shared_id(string[1:])
            return word, word
        if string[:1].isalnum():
            return self._shared_id(string), self._own_id(f"-{string}", token)
        mark = self._own_id(string, token)
        return mark, mark

    def _shared_id(self, text: str) -> int:
        # "-ing" can't be one of these, nor can a mark: they don't begin with a letter or a digit.
        return self._ids.setdefault(text, len(self._ids))

    def _own_id(self, text: str, token: int) -> int:
        # Byte fragments all decode to the same replacement character: number them.
        while text in self._ids:
            text = f"{text}<{token}>"
        return self._ids.setdefault(text, len(self._ids))

    def id(self, item: Item) -> int:
        """Return the number of a word or class; NOTHING - 1, which is nowhere, if there is none."""
        if isinstance(item, Like):
            number = self.classes.number.get(item)
            return NOTHING - 1 if number is None else len(self.words) + number
        return self._ids.get(item, NOTHING - 1)

    def class_sums(self, count_V: np.ndarray) -> np.ndarray:
        """Return the sum over each class's words of a number per word."""
        leaf_V = self.leaf_V[: len(self.words)]
        member_V = leaf_V >= 0
        up_to_F = np.zeros(len(self.classes.words) + 1, dtype=count_V.dtype)
        up_to_F[1 + leaf_V[member_V]] = count_V[member_V]
        np.cumsum(up_to_F, out=up_to_F)
        return up_to_F[self._spans[:, 1]] - up_to_F[self._spans[:, 0]]

    def item(self, number: int) -> Item:
        """Return the word or class that has a number."""
        words = len(self.words)
        return self.words[number] if number < words else self.classes.names[number - words]


class Store(Protocol):
    """The part of `clearnets.data.tokens.TokenStore` that is needed here."""

    def split(self, name: str) -> np.ndarray: ...
    def counted(self, tokens: np.ndarray) -> np.ndarray: ...
    def strings(self) -> list[str]: ...


@dataclass(frozen=True)
class Rows:
    """One split as rules see it, by row.

    Attributes:
        lexicon: its words.
        word_RS: the word of each position, NOTHING where none counts.
        counted_RS: counted positions.
        state_RS: counted positions in each state.
    """

    lexicon: Lexicon
    word_RS: np.ndarray
    counted_RS: np.ndarray
    state_RS: dict[State, np.ndarray]

    @cached_property
    def leaf_RS(self) -> np.ndarray:
        """The place of each position's word in the order of the classes, -1 where it has none."""
        return self.lexicon.leaf_V[self.word_RS]

    def only(self, row_U: np.ndarray) -> Rows:
        """Return some of the rows."""
        state_RS: dict[State, np.ndarray] = {
            kind: flag_RS[row_U] for kind, flag_RS in self.state_RS.items()
        }
        return Rows(self.lexicon, self.word_RS[row_U], self.counted_RS[row_U], state_RS)

    def holding(self, number: int, out_RS: np.ndarray) -> None:
        """Write the positions of a word or class; of a number below zero there is none."""
        words = len(self.lexicon.words)
        if number < 0:
            out_RS[:] = False
        elif number < words:
            np.equal(self.word_RS, number, out=out_RS)
        else:
            first, end = self.lexicon.classes.spans[number - words]
            np.greater_equal(self.leaf_RS, first, out=out_RS)
            out_RS &= self.leaf_RS < end

    def marked(self, role: Role, numbers: Sequence[int]) -> np.ndarray:
        """Return the positions (K, R, S) of each word or class, or those that have it in a role."""
        hit_KRS = np.empty((len(numbers), *self.word_RS.shape), dtype=bool)
        for hit_RS, number in zip(hit_KRS, numbers):
            self.holding(number, hit_RS)
        if role == "right-after":
            return _before(hit_KRS, False)
        if role == "shortly-after":
            near_KRS = _before(hit_KRS, False)
            for back in range(2, NEAR + 1):
                near_KRS[..., back:] |= hit_KRS[..., :-back]
            return near_KRS
        if role == "text-after":
            size = hit_KRS.shape[-1]
            first_KR = np.where(hit_KRS.any(axis=-1), hit_KRS.argmax(axis=-1), size)
            return np.arange(size) > first_KR[..., None]
        return hit_KRS

    @cached_property
    def kept(self) -> dict[tuple[Role, int, int], np.ndarray] | None:
        """Marks by role, word or class, and window size: the bits (R * slots, B) of all windows
        that begin at a multiple of their size; None of a text that is too long to keep them."""
        numbers = len(self.lexicon.words) + len(self.lexicon.classes.spans)
        roles = 1 + len(AFTERS)
        return {} if self.word_RS.size // 8 * numbers * roles <= MOST_BYTES else None


@dataclass(frozen=True)
class Text(Generic[W]):
    """Windows of one split as rules see them.

    Attributes:
        rows: the split.
        windows: the windows.
    """

    rows: Rows
    windows: W

    @cached_property
    def word_NL(self) -> np.ndarray:
        """The words of each window; NOTHING where none counts."""
        return self.windows.cut(self.rows.word_RS)

    @cached_property
    def counted_NB(self) -> np.ndarray:
        """Counted positions as bits."""
        return _bits(self.windows, self.rows.counted_RS)

    @cached_property
    def shown(self) -> tuple[Rows, Windows]:
        """The rows that hold a window, and the windows in these; all rows, where most do."""
        rows, windows = self.rows, self.windows
        row_U, row_N = np.unique(windows.row_N, return_inverse=True)
        if 2 * len(row_U) > len(rows.word_RS):
            return rows, windows
        rows = rows.only(row_U)
        return rows, Windows(windows.size, rows.counted_RS, row_N, windows.start_N)

    def state(self, kind: State) -> np.ndarray:
        """Return the positions in a state, as bits (N, B)."""
        return _bits(self.windows, self.rows.state_RS[kind])

    def marked(self, role: Role, numbers: Sequence[int]) -> np.ndarray:
        """Return the positions, as bits (K, N, B), at which each word or class stands (`here`), or
        before which it does."""
        rows, windows = self.rows, self.windows
        if rows.kept is None or self._slot_N is None:
            rows, windows = self.shown
            return _bits(windows, rows.marked(role, numbers))
        bits_KNB = np.empty((len(numbers), *self.counted_NB.shape), self.counted_NB.dtype)
        for bits_NB, number in zip(bits_KNB, numbers):
            key = role, number, windows.size
            if key not in rows.kept:
                (hit_RS,) = rows.marked(role, [number])
                rows.kept[key] = pack(hit_RS.reshape(-1, windows.size))
            np.take(rows.kept[key], self._slot_N, axis=0, out=bits_NB, mode="clip")
        return bits_KNB

    @cached_property
    def _slot_N(self) -> np.ndarray | None:
        """The number of each window among all that begin at a multiple of their size; None where
        one does not."""
        windows, length = self.windows, self.rows.word_RS.shape[1]
        slot_N, off_N = np.divmod(windows.start_N, windows.size)
        return None if off_N.any() else windows.row_N * (length // windows.size) + slot_N

    @property
    def lexicon(self) -> Lexicon:
        """Return the words of the split."""
        return self.rows.lexicon

    @cached_property
    def _holders(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of all positions, sorted by word, and where each word's begin."""
        order = np.argsort(self.word_NL, axis=None, kind="stable")
        counts = np.bincount(self.word_NL.ravel() + 1, minlength=len(self.lexicon.words) + 1)
        return order // self.windows.size, np.cumsum(counts)

    def holding(self, word: int) -> np.ndarray:
        """Return the windows that hold a word at a counted position, ascending."""
        holders, begins = self._holders
        # Ascending already, with repetitions.
        holders = holders[begins[word] : begins[word + 1]]
        return holders[np.diff(holders, prepend=-1) > 0]

    def fires(self, rule: Rule, window_W: np.ndarray | None = None) -> np.ndarray:
        """Return the positions, as bits (W, B), at which a rule fires in the given windows, or in
        all."""
        if window_W is not None:
            return Text(self.rows, self.windows.these(window_W)).fires(rule)
        return np.bitwise_or.reduce([self._clause(clause) for clause in rule.clauses])

    def _clause(self, clause: Clause) -> np.ndarray:
        fired_NB = self.counted_NB
        if clause.words:
            fired_NB = fired_NB & self._among("here", clause.words)
        context = clause.context
        if context is None:
            return fired_NB
        if context.kind in AFTERS:
            where_NB = self._among(context.kind, context.words)
        else:
            where_NB = self.state(cast(State, context.kind))
        return fired_NB & (~where_NB if context.negated else where_NB)

    def _among(self, role: Role, words: tuple[Item, ...]) -> np.ndarray:
        return np.bitwise_or.reduce(self.marked(role, [self.lexicon.id(word) for word in words]))


def _bits(windows: Windows, flag_xRS: np.ndarray) -> np.ndarray:
    """Return flags of rows by window, as bits (..., N, B)."""
    if isinstance(windows, Grid):
        # All slots in order take less time than the chosen ones one by one.
        flag_xRKL = flag_xRS.reshape(*flag_xRS.shape[:-1], -1, windows.size)
        return pack(flag_xRKL)[..., windows.row_N, windows.slot_N, :]
    place_L = np.arange(windows.size)
    return pack(flag_xRS[..., windows.row_N[:, None], windows.start_N[:, None] + place_L])


def _before(values_xS: np.ndarray, first: int | bool) -> np.ndarray:
    """Return the values of the position before each; `first` at the row's start."""
    shifted_xS = np.empty_like(values_xS)
    shifted_xS[..., 0] = first
    shifted_xS[..., 1:] = values_xS[..., :-1]
    return shifted_xS


def _last(flag_RS: np.ndarray) -> np.ndarray:
    """Return the nearest earlier position with the flag, -1 where there is none."""
    position_S = np.arange(flag_RS.shape[1])
    return _before(np.maximum.accumulate(np.where(flag_RS, position_S, -1), axis=1), -1)


def read_rows(tokens_RS: np.ndarray, counted, lexicon: Lexicon, *, size: int) -> Text[Grid]:
    """Return rows of tokens as rules see them; `counted` maps tokens to the mask of counted
    ones."""
    rows = words_of(tokens_RS, counted, lexicon)
    return Text(rows, windows_of(rows.counted_RS, size=size))


def words_of(tokens_RS: np.ndarray, counted, lexicon: Lexicon) -> Rows:
    """Return rows of tokens as words, and in which state each position is."""
    token_RS = np.asarray(tokens_RS).astype(np.int64)
    counted_RS = counted(tokens_RS)
    at = lexicon

    # A special token neither goes on in a word nor holds anything that a reader sees.
    letter_before_RS = _before(at.letter_end_T[token_RS] & counted_RS, False)
    goes_on_RS = at.solid_T[token_RS] & letter_before_RS
    word_RS = np.where(counted_RS, at.word_T2[token_RS, goes_on_RS.astype(np.int64)], NOTHING)

    before_RS = _before(word_RS, NOTHING)

    quotes_RS = np.where(counted_RS, at.quotes_T[token_RS], 0)
    after_RS = np.cumsum(quotes_RS, axis=1) % 2
    open_RS = _before(after_RS, 0) == 1
    behind_quote_RS = _before(quotes_RS > 0, False)

    has_word_RS = counted_RS & at.has_word_T[token_RS]
    edge_RS = (counted_RS & at.ends_T[token_RS]) | ((quotes_RS > 0) & (after_RS == 1))
    last_edge_RS = _last(edge_RS | ~counted_RS)
    starts_RS = last_edge_RS >= _last(has_word_RS)
    starts_RS &= has_word_RS & ~goes_on_RS & ~at.small_T[token_RS]

    state_RS: dict[State, np.ndarray] = {
        "sentence-start": starts_RS,
        "first-sentence": last_edge_RS <= _last(~counted_RS),
        "inside-quotation": open_RS & (quotes_RS == 0),
        "quotation-start": open_RS & behind_quote_RS,
        "closed-quotation": ~open_RS & behind_quote_RS,
        "seen": _seen(word_RS),
        "followed": _seen((before_RS + 1) * (len(at.words) + 1) + word_RS) & (before_RS >= 0),
    }
    assert tuple(state_RS) == STATES
    return Rows(
        lexicon,
        word_RS.astype(np.int32),
        counted_RS,
        {kind: flag_RS & counted_RS for kind, flag_RS in state_RS.items()},
    )


def _seen(value_RS: np.ndarray) -> np.ndarray:
    """Return which positions hold a value that stands earlier in the row."""
    order_RS = np.argsort(value_RS, axis=1, kind="stable")
    sorted_RS = np.take_along_axis(value_RS, order_RS, axis=1)
    seen_RS = np.zeros(value_RS.shape, dtype=bool)
    np.put_along_axis(seen_RS, order_RS[:, 1:], sorted_RS[:, 1:] == sorted_RS[:, :-1], axis=1)
    return seen_RS
