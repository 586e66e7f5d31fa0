"""Rules as sentences: the round trip, and how they read."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearnets import UserError
from clearnets.autointerp.rules.language import (
    AFTERS,
    STATES,
    Clause,
    Context,
    Like,
    Rule,
    parse,
    render,
)

AWKWARD = [
    '"',
    "'",
    "\\",
    "\\n",
    "\n",
    "",
    " ",
    ' "',
    ',"',
    "'\"",
    ", ",
    '" or "',
    "-ing",
    "; also ",
]
AWKWARD += [
    ".",
    "�",
    "�<131>",
    "\0",
    "é",
    "日本",
    "\u2028",
    "\U0001f98a",
    "Any word",
    "a word like ",
    "[",
    "right after",
]


NAME = Like("Tom", "Mia")


def words(least: int):
    word = st.text(max_size=6) | st.sampled_from(AWKWARD)
    return st.lists(
        word | st.builds(Like, word, word), min_size=least, max_size=5, unique=True
    ).map(tuple)


contexts = (
    st.none()
    | st.builds(Context, st.sampled_from(STATES), negated=st.booleans())
    | st.builds(Context, st.sampled_from(AFTERS), words(1), st.booleans())
)
rules = st.lists(st.builds(Clause, words(0), contexts), min_size=1, max_size=2).map(
    lambda clauses: Rule(tuple(clauses))
)


@given(rules)
@settings(max_examples=600, deadline=None)
def test_the_sentence_carries_the_rule(rule):
    sentence = render(rule)
    assert parse(sentence) == rule
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            Rule((Clause(("said", "asked"), Context("closed-quotation")),)),
            '"said" or "asked" right after a closing quotation mark.',
        ),
        (
            Rule((Clause(("fox",), Context("sentence-start")),)),
            'The word "fox" at the start of a sentence.',
        ),
        (
            Rule((Clause((), Context("inside-quotation")), Clause((',"',)))),
            "Any word inside a quotation; also the mark ',\"'.",
        ),
        (
            Rule((Clause(("a", "the", "-ing"), Context("shortly-after", ("not",), True)),)),
            '"a", "the" or "-ing" but not shortly after "not".',
        ),
        (
            Rule((Clause(("-ing",), Context("seen")), Clause((), Context("right-after", ("\n",))))),
            'The word part "-ing" when it has occurred before; also any word right after "\\n".',
        ),
        (
            Rule(
                (
                    Clause(("-ed", Like("Finn", "fox")), Context("shortly-after", (NAME, "a"))),
                    Clause((NAME,), Context("text-after", (Like("-s", "-y"),), True)),
                )
            ),
            '"-ed" or a word like "Finn" and "fox" shortly after a word like "Tom" '
            'and "Mia" or "a"; also a word like "Tom" and "Mia" but not later in the text than a '
            'word like "-s" and "-y".',
        ),
        (
            Rule((Clause((), Context("followed")), Clause(("a", NAME), Context("seen", (), True)))),
            'Any word when it has followed the same word before; also "a" or a word like "Tom" and '
            '"Mia" when it occurs for the first time.',
        ),
    ],
)
def test_sentences_read_like_sentences(rule, sentence):
    assert render(rule) == sentence
    assert parse(sentence) == rule


def test_words_are_counted_over_the_whole_sentence():
    context = Context("right-after", ("x", "y"))
    assert Rule((Clause(("a", "b"), context), Clause(("a",)))).num_words == 5
    assert Rule((Clause((NAME, "b"), Context("right-after", (NAME,))),)).num_words == 3


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "This latent fires on animals.",
        '"said" or "asked"',
        '"said" near the river.',
        '"said" right after.',
        'Any word inside a quotation "x".',
        'Any word; also "a"; also "b".',
        '"a" "b".',
        '"open.',
        "Any word\0.",
        'The word like "a" and "b".',
        'A word like "a".',
        'A word like "a" or "b".',
        'A word like "a" and "b" and "c".',
        'The second word like "a" and "b" in a sentence.',
        '"a" later in the text than.',
        '"a" later in the text.',
    ],
)
def test_other_sentences_are_refused(sentence):
    with pytest.raises(UserError, match="not a rule"):
        parse(sentence)


def test_the_page_for_people_lists_every_phrase():
    page = (Path(__file__).parents[2] / "docs/rules.md").read_text(encoding="utf-8")
    words = {kind: ("x",) if kind in AFTERS else () for kind in (*AFTERS, *STATES)}
    for kind, negated in product(words, (False, True)):
        sentence = render(Rule((Clause((), Context(kind, words[kind], negated)),)))
        phrase = sentence.removeprefix("Any word ").removesuffix(".").removesuffix(' "x"')
        assert f"`{phrase}`" in page
