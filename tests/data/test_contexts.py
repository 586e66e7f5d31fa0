"""Contextual labels of stories, against what their text says, and their place in rows."""

from __future__ import annotations

import re

import numpy as np
import pytest

from clearnets import UserError
from clearnets.data import storybook
from clearnets.data.contexts import label_rows
from clearnets.data.packing import pack_single
from clearnets.data.storybook import context
from clearnets.data.storybook.context import CONTEXTS
from clearnets.data.storybook.lexicon import NAMES
from clearnets.data.tokenizer import SPECIALS, Vocabulary, save_tokenizer, train_tokenizer
from clearnets.data.tokens import open_tokens
from clearnets.pipeline.artifacts import write_json

STORIES = 150
CTX = 48


def labelled(index: int) -> list[tuple[str, set[str]]]:
    story = context.story(0, "concept_fit", index)
    return [
        (story.text[start:end], {name for bit, name in enumerate(CONTEXTS) if mask >> bit & 1})
        for start, end, mask in story.spans
    ]


@pytest.fixture(scope="module")
def told() -> list[list[tuple[str, set[str]]]]:
    return [labelled(index) for index in range(STORIES)]


def test_the_stories_are_the_same():
    for index in range(20):
        one, other = (of(3, "score", index) for of in (context.story, storybook.story))
        assert (one.text, one.nll, one.plot) == (other.text, other.nll, other.plot)
        assert [span[:2] for span in one.spans] == [span[:2] for span in other.spans]


def test_names_are_labelled_by_their_order_and_by_the_last_name(told):
    for words in told:
        known: list[str] = []
        for word, labels in words:
            roles = {
                label for label in labels if re.fullmatch("name_of_(first|second|third)", label)
            }
            if word not in NAMES:
                assert not roles
                continue
            last, known = known[-1:], [*known, word]
            distinct = list(dict.fromkeys(known))
            number = distinct.index(word)
            expected = {f"name_of_{('first', 'second', 'third')[number]}"} if number < 3 else set()
            assert roles == expected, word
            assert ("name_of_last_named" in labels) == (last == [word])
            assert ("name_of_other" in labels) == (bool(last) and last != [word])


def test_pronouns_are_of_one_sex_with_their_character(told):
    """A story never says "he" of one that it calls "she", so a name has the sex of its pronouns."""
    seen = 0
    for words in told:
        sex = {}
        for word, labels in words:
            if word in NAMES:
                (own,) = labels & {"name_of_male", "name_of_female"}
                assert sex.setdefault(word, own) == own
            for role in ("first", "second"):
                if f"pronoun_of_{role}" in labels:
                    assert word.lower() in ("he", "him", "his", "she", "her")
                    male = word.lower() in ("he", "him", "his")
                    names = list(sex)
                    if len(names) > ("first", "second").index(role):
                        of = sex[names[("first", "second").index(role)]]
                        assert (of == "name_of_male") == male
                        seen += 1
    assert seen > 50


def test_speech_is_of_who_is_said_to_say_it(told):
    seen = 0
    for words in told:
        text = [word for word, _ in words]
        order = list(dict.fromkeys(word for word in text if word in NAMES))
        for at in range(len(text) - 3):
            # `..." said Tam`, where nobody but Tam is named with the verb.
            if text[at] == '"' and text[at + 1] in ("said", "asked") and text[at + 2] in order[:3]:
                role = ("first", "second", "third")[order.index(text[at + 2])]
                inside = words[at - 2][1]
                assert f"speech_of_{role}" in inside, text[at - 3 : at + 3]
                seen += 1
    assert seen > 20


def test_questions_are_labelled_by_their_answer(told):
    seen = 0
    for words in told:
        text = [word for word, _ in words]
        for at, (word, labels) in enumerate(words):
            if word == "?" and labels & {"question_denied", "question_affirmed"}:
                answer = next(other for other in text[at:] if other in ("Yes", "No"))
                assert (answer == "No") == ("question_denied" in labels)
                seen += 1
    assert seen > 3


def test_every_label_occurs(told):
    found = {label for words in told for _, labels in words for label in labels}
    assert found == set(CONTEXTS)


@pytest.fixture
def store(tmp_path):
    """Rows of every second story, some of which take two rows."""
    stories = [context.story(0, "concept_fit", index) for index in range(0, 12, 2)]
    tokenizer = train_tokenizer([story.text for story in stories], vocab_size=300)
    vocabulary = Vocabulary(tokenizer, SPECIALS, tokenizer.get_vocab_size())
    docs = vocabulary.encode([s.text for s in stories], spans=[s.spans for s in stories])
    rows_RS, labels_RS = pack_single(docs, ctx_len=CTX, **vocabulary.ids)
    save_tokenizer(tokenizer, tmp_path / "tokenizer", ctx_len=CTX)
    meta = {"vocab_size": vocabulary.size, "ctx_len": CTX, **vocabulary.ids, "concepts": []}
    write_json(tmp_path / "meta.json", meta)
    (tmp_path / "tokens").mkdir()
    np.save(tmp_path / "tokens" / "concept_fit.npy", rows_RS.astype(np.uint16))
    assert len(rows_RS) > len(stories)
    return open_tokens(tmp_path), labels_RS


def test_rows_get_the_labels_of_their_stories(store):
    opened, labels_RS = store
    assert labels_RS.any()
    np.testing.assert_array_equal(label_rows(opened, "concept_fit", seed=0), labels_RS)


def test_rows_of_other_stories_are_refused(store):
    opened, _ = store
    with pytest.raises(UserError, match="does not hold the stories of seed 5"):
        label_rows(opened, "concept_fit", seed=5)
