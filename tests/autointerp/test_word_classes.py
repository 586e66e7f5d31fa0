"""Classes of words: what is learned of them, how they are named, and the file that holds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from synthetic_text import NAMES, NOUNS, SPEECH, STRINGS, counted, rows

from clearnets.autointerp.rules.language import Like
from clearnets.autointerp.rules.matcher import Lexicon, words_of
from clearnets.autointerp.rules.word_classes import CLASSES, NO_CLASSES, WordClasses, learn

LEXICON = Lexicon(STRINGS)
WORD_RS = words_of(rows(11, 600), counted, LEXICON).word_RS
LEARNED = learn(WORD_RS, LEXICON.words)


def smallest(classes: WordClasses, one: str, other: str) -> set[str]:
    """The smallest class that holds both words."""
    holding = [set(classes.members(name)) for name in classes.names]
    return min((members for members in holding if {one, other} <= members), key=len)


def test_words_in_the_same_places_are_in_a_class():
    assert smallest(LEARNED, "Tom", "Mia") <= set(NAMES)
    assert smallest(LEARNED, "fox", "cake") <= set(NOUNS)
    assert smallest(LEARNED, "shouted", "cried") <= set(SPEECH)


def test_names_say_which_class_is_meant():
    assert len(set(LEARNED.names)) == len(LEARNED.names) == len(LEARNED.words) - 1
    for name in LEARNED.names:
        members = set(LEARNED.members(name))
        assert members == smallest(LEARNED, name.one, name.other)
        assert LEARNED.members(Like(name.other, name.one)) == LEARNED.members(name)
    assert LEARNED.members(Like("fox", "unknown")) == ()


def test_the_most_frequent_word_of_either_branch_names_a_class():
    count = {word: int((LEXICON.id(word) == WORD_RS).sum()) for word in LEARNED.words}
    for name in LEARNED.names:
        members = LEARNED.members(name)
        assert count[name.one] == max(count[word] for word in members)
        inside = [set(LEARNED.members(other)) for other in LEARNED.names]
        branch = max(
            ({name.one}, *(m for m in inside if name.one in m and m < set(members))), key=len
        )
        assert count[name.other] == max(count[word] for word in set(members) - branch)


def test_classes_are_nested():
    found = [set(LEARNED.members(name)) for name in LEARNED.names]
    for one, other in itertools.combinations(found, 2):
        assert one <= other or other <= one or not one & other


def test_the_order_of_words_and_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LEXICON.words))
    renumbered = np.append(np.argsort(order), -1)[WORD_RS]
    again = learn(renumbered[::-1], tuple(LEXICON.words[i] for i in order))
    assert {frozenset(LEARNED.members(name)) for name in LEARNED.names} == {
        frozenset(again.members(name)) for name in again.names
    }


@pytest.mark.parametrize("most", [3, 1000])
def test_the_file_holds_the_classes(most, tmp_path, monkeypatch):
    monkeypatch.setattr("clearnets.autointerp.rules.word_classes.MOST_MEMBERS", most)
    classes = learn(WORD_RS, LEXICON.words)
    assert max(len(classes.members(name)) for name in classes.names) <= most
    classes.write(tmp_path / CLASSES)
    read = WordClasses.load(tmp_path / CLASSES)
    assert read.names == classes.names
    assert [read.members(n) for n in read.names] == [classes.members(n) for n in classes.names]


def test_a_text_of_few_words_has_no_classes(tmp_path):
    assert learn(WORD_RS[:1], LEXICON.words) == NO_CLASSES
    NO_CLASSES.write(tmp_path / CLASSES)
    assert WordClasses.load(tmp_path / CLASSES) == NO_CLASSES
