"""How rules read a text, against a plain reading token by token."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_text import BOS, EOS, ID, STRINGS, counted, rows

from clearnets.autointerp.rules.language import (
    AFTERS,
    STATES,
    Clause,
    Context,
    Like,
    Rule,
)
from clearnets.autointerp.rules.matcher import NEAR, Lexicon, count, fires, pack, read_rows
from clearnets.autointerp.rules.word_classes import WordClasses

ROWS = rows(0, 24)
# Nested, and one with words that no token stands for.
CLASSES = WordClasses(
    words=("fox", "dog", "cat", "saw", "took", "the", "unknown", "-y"),
    names=(Like("fox", "saw"), Like("fox", "cat"), Like("dog", "fox"), Like("the", "-y")),
    spans=((0, 5), (0, 3), (0, 2), (5, 8)),
)
LEXICON = Lexicon(STRINGS, CLASSES)
SIZE = 16
TEXT = read_rows(ROWS, counted, LEXICON, size=SIZE)


def spelled(row) -> list[str | None]:
    """The words of a row, as a reader sees them; None for special tokens."""
    words: list[str | None] = []
    before = ""
    for position, token in enumerate(row):
        string = STRINGS[token]
        if token <= EOS or position == 0:
            words.append(None)
            before = ""
            continue
        if string.strip()[0].isalnum():
            inside = string[0] != " " and before[-1:].isalnum()
            words.append("-" + string if inside else string.strip())
        else:
            words.append(string)
        before = string
    return words


def plain_states(words: list[str | None]) -> list[dict[str, bool]]:
    """The states at each position of a row, by walking through it."""
    states, inside, new_sentence, seen, pairs = [], False, True, set(), set()
    previous, number = "", 0
    for at, word in enumerate(words):
        if word is None:
            new_sentence, number = True, 0
        pair = (words[at - 1] if at else None, word)
        text = word or ""
        quoted = '"' in text
        first_of_quote, first_behind = '"' in previous and inside, '"' in previous and not inside
        is_word = any(c.isalnum() for c in text)
        whole = is_word and not text.startswith("-")
        states.append(
            {
                "sentence-start": whole and new_sentence and not text[0].islower(),
                "first-sentence": number == 0 and bool(text),
                "inside-quotation": inside and not quoted and bool(text),
                "quotation-start": first_of_quote and bool(text),
                "closed-quotation": first_behind and bool(text),
                "seen": word in seen and bool(text),
                "followed": pair in pairs and None not in pair,
            }
        )
        if is_word:
            new_sentence = False
        inside ^= text.count('"') % 2 == 1
        if any(c in text for c in ".!?\n") or (quoted and inside):
            new_sentence = True
            number += 1
        seen.add(word)
        pairs.add(pair)
        previous = text
    return states


def named(items) -> set[str]:
    """The words that a list names."""
    found = set()
    for item in items:
        if not isinstance(item, Like):
            found.add(item)
        for (first, end), name in zip(CLASSES.spans, CLASSES.names):
            if isinstance(item, Like) and {item.one, item.other} == {name.one, name.other}:
                found |= set(CLASSES.words[first:end])
    return found


def plain_fires(rule: Rule, row) -> list[bool]:
    words = spelled(row)
    states = plain_states(words)
    fired = []
    for at, word in enumerate(words):
        yes = False
        for clause in rule.clauses:
            triggers = named(clause.words) if clause.words else {w for w in words if w}
            if word is None or word not in triggers:
                continue
            context = clause.context
            if context is None:
                held = True
            elif context.kind in AFTERS:
                behind = {
                    "right-after": words[at - 1 : at],
                    "shortly-after": words[max(at - NEAR, 0) : at],
                    "text-after": words[:at],
                }[context.kind]
                held = any(w in named(context.words) for w in behind)
            else:
                held = states[at][context.kind]
            yes |= held != (context.negated if context else False)
        fired.append(yes)
    return fired


def unpacked(bits_WB: np.ndarray) -> np.ndarray:
    return np.unpackbits(bits_WB.view(np.uint8), axis=-1, count=SIZE).astype(bool)


def assert_reads_like_plain(rule: Rule) -> None:
    fired_NL = unpacked(TEXT.fires(rule, np.arange(len(TEXT.windows))))
    plain = np.array([plain_fires(rule, row) for row in ROWS])
    np.testing.assert_array_equal(fired_NL, TEXT.windows.cut(plain))
    np.testing.assert_array_equal(unpacked(TEXT.fires(rule)), fired_NL)
    # The same windows of few rows.
    some = np.array([3, 1, len(TEXT.windows) - 1])
    np.testing.assert_array_equal(unpacked(TEXT.fires(rule, some)), fired_NL[some])


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("kind", STATES)
def test_states_equal_a_plain_reading(kind, negated):
    assert_reads_like_plain(Rule((Clause((), Context(kind, negated=negated)),)))


some_items = [*LEXICON.words, "unknown", *CLASSES.names, Like("cat", "fox"), Like("saw", "cat")]
some_words = st.lists(st.sampled_from(some_items), max_size=4, unique=True)
some_contexts = (
    st.none()
    | st.builds(Context, st.sampled_from(STATES), negated=st.booleans())
    | st.builds(
        Context,
        st.sampled_from(AFTERS),
        some_words.filter(bool).map(tuple),
        st.booleans(),
    )
)
some_clauses = st.builds(Clause, some_words.map(tuple), some_contexts)


@given(st.lists(some_clauses, min_size=1, max_size=2))
@settings(max_examples=40, deadline=None)
def test_rules_fire_where_a_plain_reading_says(clauses):
    assert_reads_like_plain(Rule(tuple(clauses)))


def test_a_story_by_hand():
    text = ' The| fox| said|.| "|Where| was| Tom|?"| asked| Mia|.| The| fox|y'
    tokens = np.array([[BOS, *(ID[piece] for piece in text.split("|"))]])
    read = read_rows(tokens, counted, LEXICON, size=16)

    def words(kind):
        bits = read.state(kind)
        where = np.unpackbits(bits.view(np.uint8), axis=-1, count=16)[0]
        return [LEXICON.words[w] for w in read.word_NL[0][where > 0]]

    assert words("sentence-start") == ["The", "Where", "The"]
    assert words("inside-quotation") == ["Where", "was", "Tom"]
    assert words("quotation-start") == ["Where"]
    assert words("closed-quotation") == ["asked"]
    assert words("seen") == [".", "The", "fox"]
    assert LEXICON.words[read.word_NL[0, -1]] == "-y"
    assert words("first-sentence") == ["The", "fox", "said", "."]
    assert words("followed") == ["fox"]


def test_uncounted_positions_never_fire():
    bits = TEXT.fires(Rule((Clause(),)), np.arange(len(TEXT.windows)))
    np.testing.assert_array_equal(unpacked(bits), TEXT.windows.cut(counted(ROWS)))


def test_a_word_is_the_same_with_and_without_its_space():
    lexicon = Lexicon(["<pad>", " it", "it", "�", "�", "-", "-it", " -"])
    spaced, bare = lexicon.word_T2[1], lexicon.word_T2[2]
    assert lexicon.words[spaced[0]] == lexicon.words[bare[0]] == "it"
    assert spaced[0] == spaced[1] == bare[0] != bare[1]
    assert lexicon.words[bare[1]] == "-it"
    # Tokens that only look alike stay apart.
    others = [lexicon.words[i] for i in lexicon.word_T2[3:, 0]]
    assert len(set(others)) == 5
    assert "-it" not in others
    assert len(set(lexicon.words)) == len(lexicon.words)


def test_holding_lists_the_windows_with_a_word():
    for word in ("fox", "-y", ' "'):
        number = LEXICON.id(word)
        holding = [n for n in range(len(TEXT.windows)) if number in TEXT.word_NL[n]]
        assert TEXT.holding(number).tolist() == holding


@pytest.mark.parametrize("length", [1, 8, 31, 32, 64, 65, 200])
def test_bits_count_like_booleans(length):
    flags = np.random.default_rng(length).random((7, length)) < 0.1
    np.testing.assert_array_equal(count(pack(flags)), flags.sum(axis=1))
    np.testing.assert_array_equal(fires(pack(flags)), flags.any(axis=1))
    for one, other in itertools.pairwise(flags):
        both = pack(one[None]) & pack(other[None])
        np.testing.assert_array_equal(both, pack((one & other)[None]))
