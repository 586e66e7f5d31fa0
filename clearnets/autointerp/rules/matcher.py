"""Matching of rules against text: tokens as words, and the positions at which a rule fires.

A *word* is the text of one token: a token that begins a word is that word, with or without a space
before it (`said`); a token inside a word is a word part (`-ing`); anything else is a mark and keeps
its spaces (`,` or ` "`). Only counted positions can fire or be named.

A rule is read from the start of the row on, so a window's first positions have their context:

- *inside a quotation*: an odd number of quotation marks stands before, and none in the token;
- *at the start of a quotation*, *right after a closing quotation mark*: directly behind a token
  with a quotation mark that opens or closes;
- *at the start of a sentence*: the first word behind `.`, `!`, `?`, a line break, an opening
  quotation mark or the row's start, unless it begins with a small letter;
- *has occurred before*: the same word stands earlier in the row;
- *right after*: directly before stands one of the words;
- *shortly after*: one of them is among the `NEAR` tokens before.

Sets of positions are bits: a window of up to 64 positions is one integer, so that a rule is tried
on a hundred windows by a handful of integer operations.

Shape suffixes: T token ids, R rows, S positions of a row, N windows, W chosen windows, L positions
of a window, M = NEAR + L positions with their left context (of a row: NEAR + S), B machine words
per window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np

from clearnets.autointerp.rules.language import STATES, Clause, Rule, State
from clearnets.latents.examples import Grid, Windows, windows_of

W = TypeVar("W", bound=Windows)

# Tokens back to which "shortly after" reaches.
NEAR = 5
# No word: an uncounted position, or one before the row.
NOTHING = -1
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
    """The words that tokens stand for.

    Attributes:
        words: the text of each word; all different.
        word_T2: word of each token where it begins a word (column 0) or goes on in one (1).
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._ids: dict[str, int] = {}
        # Those that tokens with and without a space before share.
        self._shared: set[str] = set()
        strings = list(strings)
        self.word_T2 = np.array([self._pair(t, s) for t, s in enumerate(strings)], dtype=np.int32)
        self.words = tuple(self._ids)
        self.solid_T = np.array([s[:1].isalnum() for s in strings])
        self.letter_end_T = np.array([s[-1:].isalnum() for s in strings])
        self.has_word_T = np.array([any(c.isalnum() for c in s) for s in strings])
        self.small_T = np.array([s.lstrip()[:1].islower() for s in strings])
        self.quotes_T = np.array([sum(c in _QUOTES for c in s) for s in strings])
        self.ends_T = np.array([any(c in _ENDS for c in s) for s in strings])

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

    def id(self, word: str) -> int:
        """Return the number of a word; NOTHING - 1, which is nowhere, if no token stands for it."""
        return self._ids.get(word, NOTHING - 1)


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
        word_RM: the word of each position, NOTHING where none counts, and NEAR times NOTHING before
            the row.
        counted_RS: counted positions.
        state_RS: counted positions in each state.
    """

    lexicon: Lexicon
    word_RM: np.ndarray
    counted_RS: np.ndarray
    state_RS: dict[State, np.ndarray]


@dataclass(frozen=True)
class Text(Generic[W]):
    """Windows of one split as rules see them.

    Attributes:
        rows: the split.
        windows: the windows.
        word_NM: the words of each window, NEAR more to their left; NOTHING where none counts.
        counted_NB: counted positions as bits.
        state_NB: positions in each state, as bits.
    """

    rows: Rows
    windows: W
    word_NM: np.ndarray
    counted_NB: np.ndarray
    state_NB: dict[State, np.ndarray]

    @classmethod
    def of(cls, rows: Rows, windows: W) -> Text[W]:
        """Return the given windows of a split."""
        near_M = np.arange(NEAR + windows.size)
        return cls(
            rows=rows,
            windows=windows,
            word_NM=rows.word_RM[windows.row_N[:, None], windows.start_N[:, None] + near_M],
            counted_NB=pack(windows.cut(rows.counted_RS)),
            state_NB={kind: pack(windows.cut(flag)) for kind, flag in rows.state_RS.items()},
        )

    @property
    def lexicon(self) -> Lexicon:
        """Return the words of the split."""
        return self.rows.lexicon

    @cached_property
    def _holders(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of all positions, sorted by word, and where each word's begin."""
        word_NL = self.word_NM[:, NEAR:]
        order = np.argsort(word_NL, axis=None, kind="stable")
        counts = np.bincount(word_NL.ravel() + 1, minlength=len(self.lexicon.words) + 1)
        return order // self.windows.size, np.cumsum(counts)

    def holding(self, word: int) -> np.ndarray:
        """Return the windows that hold a word at a counted position, ascending."""
        holders, begins = self._holders
        # Ascending already, with repetitions.
        holders = holders[begins[word] : begins[word + 1]]
        return holders[np.diff(holders, prepend=-1) > 0]

    def fires(self, rule: Rule, window_W: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the positions, as bits (W, B), at which a rule fires in the given windows."""
        masks = [self._clause(clause, window_W) for clause in rule.clauses]
        return np.bitwise_or.reduce(masks)

    def _clause(self, clause: Clause, window_W: np.ndarray | slice) -> np.ndarray:
        word_WM = self.word_NM[window_W]
        fired_WB = self.counted_NB[window_W]
        if clause.words:
            fired_WB = fired_WB & pack(self._among(clause.words, word_WM[:, NEAR:]))
        context = clause.context
        if context is None:
            return fired_WB
        if context.kind == "right-after":
            where_WB = pack(self._among(context.words, word_WM[:, NEAR - 1 : -1]))
        elif context.kind == "shortly-after":
            where_WB = pack(shortly_after(self._among(context.words, word_WM)))
        else:
            where_WB = self.state_NB[context.kind][window_W]
        return fired_WB & (~where_WB if context.negated else where_WB)

    def _among(self, words: tuple[str, ...], word_Wx: np.ndarray) -> np.ndarray:
        found = np.zeros(word_Wx.shape, dtype=bool)
        for word in words:
            found |= word_Wx == self.lexicon.id(word)
        return found


def shortly_after(hit_xM: np.ndarray) -> np.ndarray:
    """Return which positions (..., L) have a hit among the NEAR tokens before them."""
    length = hit_xM.shape[-1] - NEAR
    near_xL = hit_xM[..., NEAR - 1 : NEAR - 1 + length].copy()
    for back in range(2, NEAR + 1):
        near_xL |= hit_xM[..., NEAR - back : NEAR - back + length]
    return near_xL


def _before(values_RS: np.ndarray, first) -> np.ndarray:
    """Return the values of the position before each; `first` at the row's start."""
    shifted_RS = np.empty_like(values_RS)
    shifted_RS[:, 0] = first
    shifted_RS[:, 1:] = values_RS[:, :-1]
    return shifted_RS


def _last(flag_RS: np.ndarray) -> np.ndarray:
    """Return the nearest earlier position with the flag, -1 where there is none."""
    position_S = np.arange(flag_RS.shape[1])
    return _before(np.maximum.accumulate(np.where(flag_RS, position_S, -1), axis=1), -1)


def read(store: Store, split: str, *, size: int) -> Text[Grid]:
    """Return a split in windows of `size` positions, as rules see it."""
    return read_rows(store.split(split), store.counted, Lexicon(store.strings()), size=size)


def read_rows(tokens_RS: np.ndarray, counted, lexicon: Lexicon, *, size: int) -> Text[Grid]:
    """Return rows of tokens as rules see them; `counted` maps tokens to the mask of counted
    ones."""
    token_RS = np.asarray(tokens_RS).astype(np.int64)
    counted_RS = counted(tokens_RS)
    at = lexicon

    # A special token neither goes on in a word nor holds anything that a reader sees.
    letter_before_RS = _before(at.letter_end_T[token_RS] & counted_RS, False)
    goes_on_RS = at.solid_T[token_RS] & letter_before_RS
    word_RS = np.where(counted_RS, at.word_T2[token_RS, goes_on_RS.astype(np.int64)], NOTHING)

    quotes_RS = np.where(counted_RS, at.quotes_T[token_RS], 0)
    after_RS = np.cumsum(quotes_RS, axis=1) % 2
    open_RS = _before(after_RS, 0) == 1
    behind_quote_RS = _before(quotes_RS > 0, False)

    has_word_RS = counted_RS & at.has_word_T[token_RS]
    edge_RS = (counted_RS & at.ends_T[token_RS]) | ((quotes_RS > 0) & (after_RS == 1))
    edge_RS[:, 0] = True
    starts_RS = _last(edge_RS) >= _last(has_word_RS)
    starts_RS &= has_word_RS & ~goes_on_RS & ~at.small_T[token_RS]

    state_RS: dict[State, np.ndarray] = {
        "sentence-start": starts_RS,
        "inside-quotation": open_RS & (quotes_RS == 0),
        "quotation-start": open_RS & behind_quote_RS,
        "closed-quotation": ~open_RS & behind_quote_RS,
        "seen": _seen(word_RS, len(at.words)),
    }
    assert tuple(state_RS) == STATES
    word_RM = np.pad(word_RS, ((0, 0), (NEAR, 0)), constant_values=NOTHING).astype(np.int32)
    state_RS = {kind: flag_RS & counted_RS for kind, flag_RS in state_RS.items()}
    rows = Rows(lexicon, word_RM, counted_RS, state_RS)
    return Text.of(rows, windows_of(counted_RS, size=size))


def _seen(word_RS: np.ndarray, num_words: int) -> np.ndarray:
    """Return which positions hold a word that stands earlier in the row."""
    rows, positions = word_RS.shape
    key = (np.arange(rows)[:, None] * (num_words + 1) + word_RS + 1).ravel()
    order = np.argsort(key, kind="stable")
    seen = np.zeros(rows * positions, dtype=bool)
    seen[order[1:]] = key[order[1:]] == key[order[:-1]]
    return seen.reshape(rows, positions)
