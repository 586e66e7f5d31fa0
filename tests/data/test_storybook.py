"""The storybook: its labels, its state, its splits and its bound, checked from the text alone."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from random import Random

import pytest

from clearnets.data.storybook import (
    CONCEPTS,
    SPLITS,
    TEST_SPLITS,
    Story,
    stories,
    story,
    teller,
)
from clearnets.data.storybook.entities import cast
from clearnets.data.storybook.lexicon import ANIMALS, BASE, NUMBERS, STOCKS
from clearnets.data.storybook.plots import PLOTS, TEST_PLOTS
from clearnets.data.storybook.teller import HELD_OUT_SHARE, Teller
from clearnets.data.storybook.templates import MORALS, PHRASES, Phrases, compile_template

WORD = re.compile(r"""[A-Za-z]+?(?='s\b)|[A-Za-z]+(?:'[a-z]+)?|'s|[.,!?"]""")


def take(split: str, n: int, seed: int = 0) -> list[Story]:
    return list(itertools.islice(stories(seed, split), n))


def words(s: Story) -> list[str]:
    return [s.text[start:end] for start, end, _ in s.spans]


def labels(mask: int) -> set[str]:
    return {name for i, name in enumerate(CONCEPTS) if mask >> i & 1}


@pytest.fixture(scope="module")
def train() -> list[Story]:
    return take("train", 2000)


@pytest.fixture(scope="module")
def score() -> list[Story]:
    return take("score", 1000)


@pytest.fixture(scope="module")
def both(train, score) -> list[Story]:
    return train[:1000] + score


ALL_PHRASES = {*MORALS.values(), *(p for phrases in PHRASES.values() for p in phrases.values())}


def test_a_story_is_a_function_of_seed_split_and_index():
    some = take("train", 30)
    assert [story(0, "train", i) for i in reversed(range(30))] == some[::-1]
    assert next(stories(0, "train", start=17)) == some[17]
    texts = {s.text for s in some} | {s.text for s in take("train", 30, seed=1)}
    texts |= {s.text for split in SPLITS[1:] for s in take(split, 30)}
    assert len(texts) == 30 * (1 + len(SPLITS))
    with pytest.raises(ValueError, match="unknown split"):
        story(0, "test", 0)


def test_concepts_fit_their_contract():
    assert 24 <= len(CONCEPTS) <= 63
    assert len(set(CONCEPTS)) == len(CONCEPTS)
    assert len(PLOTS) >= 14
    assert len(TEST_PLOTS) >= 2


def test_spans_are_the_words_of_the_text(both):
    for s in both:
        assert [(m.start(), m.end()) for m in WORD.finditer(s.text)] == [
            (start, end) for start, end, _ in s.spans
        ]
        covered = "".join(words(s))
        assert covered == re.sub(r"\s", "", s.text)
        assert s.text == s.text.strip()
        assert "  " not in s.text
        assert 60 <= len(s.spans) <= 118
        assert all(0 <= mask < 1 << len(CONCEPTS) for _, _, mask in s.spans)


def test_every_concept_and_plot_occurs(train, score):
    seen = 0
    for s in train:
        for _, _, mask in s.spans:
            seen |= mask
    assert labels(seen) == set(CONCEPTS)
    assert {s.plot for s in train} == {plot.__name__ for plot in PLOTS}
    assert {s.plot for s in score} == {plot.__name__ for plot in (*PLOTS, *TEST_PLOTS)}


def test_every_group_of_sentences_is_used(monkeypatch):
    monkeypatch.setattr(teller, "TARGET_SIZE", 1000)
    monkeypatch.setattr(teller, "MORAL_ROOM", 1000)
    used = set()
    phrase = Teller.phrase
    monkeypatch.setattr(Teller, "phrase", lambda t, group: used.add(group) or phrase(t, group))
    take("score", 1000)
    assert used == ALL_PHRASES


def test_structural_labels_agree_with_a_parse_of_the_text(both):
    for s in both:
        inside = False
        clause_negated = False
        before = None
        for start, end, mask in s.spans:
            text, has = s.text[start:end], labels(mask)
            assert ("quotation_mark" in has) == (text == '"')
            assert ("comma" in has) == (text == ",")
            assert ("sentence_end" in has) == (text in ".!?")
            if text == '"':
                inside = not inside
                clause_negated = False
            elif text in ".,!?":
                clause_negated = False
            else:
                assert ("inside_quotation" in has) == inside
                assert clause_negated <= ("negated" in has)
                clause_negated |= "negation" in has and text.lower() != "none"
            if before in (None, ".") and text != '"':
                assert "sentence_start" in has, (s.text, text)
            before = text
        assert not inside, s.text


def test_writing(both):
    for s in both:
        assert not re.search(r"\b[Aa] (?=[aeio]|honest)", s.text), s.text
        assert not re.search(r"\b[Aa]n (?![aeio]|honest)", s.text), s.text
        for found in re.finditer(r"[.!?] (\S)", s.text):
            assert found[1].isupper() or found[1] == '"', s.text
        # Inside a quotation, and after one that is a sentence of its own.
        for found in re.finditer(r'(?:^|\s)"(\S)', s.text):
            assert found[1].isupper(), s.text
        # Questions are asked; nothing else is.
        assert not re.search(r'[.,!]" asked', s.text), s.text
        for found in re.finditer(r'asked, "([^"]*)"', s.text):
            assert found[1].endswith("?"), s.text
        for found in re.finditer(r'\?" (\w+)', s.text):
            assert found[1] == "asked" or found[1][0].isupper(), s.text


def test_numbers_agree_with_their_nouns(both):
    one = {stock.one for stock in STOCKS} | {"coin"}
    many = {stock.many for stock in STOCKS} | {"coins"}
    checked = 0
    for s in both:
        w = words(s)
        for i, text in enumerate(w):
            if text.lower() not in NUMBERS:
                continue
            noun = next((n for n in w[i + 1 : i + 3] if n in one | many), None)
            if noun is not None and w[i + 1] not in ".,":
                checked += 1
                assert noun in (one if text.lower() == "one" else many), s.text
    assert checked > 300


def test_purchases_add_up(both):
    number = {text: n for n, text in enumerate(NUMBERS)}
    checked = 0
    for s in both:
        if s.plot != "market":
            continue
        coins = next(w.lower() for w, n in zip(words(s), words(s)[1:]) if n.startswith("coin"))
        paid = re.search(r"(?:paid|took [\w ]+ for) (\w+) coins(?: and had|, so) (\w+)", s.text)
        if paid:
            checked += 1
            assert number[coins] - number[paid[1]] == number[paid[2]], s.text
    assert checked > 20


def _swap_world(s: Story) -> tuple[dict[str, str], dict[str, str], int] | None:
    """Replay a swap story from its text; None where it is worded in a way not parsed here."""
    w = s.text
    kinds: dict[str, str] = {}
    for name, kind in re.findall(r"\b([A-Z]\w+) (?:the|was an?) (\w+)", w.split(".")[0]):
        kinds[f"the {kind}"] = name

    def who(text: str) -> str:
        text = text[0].lower() + text[1:] if text.startswith("The ") else text
        return kinds.get(text, text)

    being = r"([Tt]he \w+|[A-Z]\w+)"
    start = re.search(
        rf"{being} had an? (\w+ \w+), {being} had an? (\w+ \w+) and {being} had an? (\w+ \w+)\.", w
    )
    end = re.search(
        rf"{being} had the (\w+ \w+), {being} had the (\w+ \w+) and {being} had the (\w+ \w+)\.", w
    )
    if not start or not end:
        return None
    has = {who(start[i]): start[i + 1] for i in (1, 3, 5)}
    said = {who(end[i]): end[i + 1] for i in (1, 3, 5)}
    steps = 0
    for sentence in w[start.end() : end.start()].split(". "):
        sentence = sentence.strip().rstrip(".")
        gave = re.search(rf"{being} gave the (\w+ \w+) to {being} and got the (\w+ \w+)$", sentence)
        pair = re.search(rf"{being} and {being} swapped(?: their toys)?$", sentence)
        pair = pair or re.search(rf"{being} (?:traded|swapped) with {being}$", sentence)
        owners = re.search(r"owner of the (\w+ \w+) and the owner of the (\w+ \w+) sw", sentence)
        if gave:
            p, q = who(gave[1]), who(gave[3])
            assert (has[p], has[q]) == (gave[2], gave[4]), w
        elif owners:
            p, q = (next(b for b in has if has[b] == owners[i]) for i in (1, 2))
        elif pair:
            p, q = who(re.sub(r"^Then |^Soon ", "", pair[1])), who(pair[2])
        elif re.match(r"Now|$", sentence):
            continue
        else:
            return None
        if p not in has or q not in has:
            return None
        has[p], has[q] = has[q], has[p]
        steps += 1
    return has, said, steps


def test_swaps_are_told_as_they_happened():
    checked = 0
    for s in take("train", 6000):
        if s.plot == "swap" and (world := _swap_world(s)):
            has, said, steps = world
            assert steps >= 2
            assert has == said, s.text
            checked += 1
    assert checked > 20


def test_pronouns_agree_with_the_only_one_they_can_mean(both):
    genders = Counter()
    for s in both:
        if s.plot != "path":
            continue
        told = re.sub(r'"[^"]*"', "", s.text)
        found = set(re.findall(r"\b(he|she|his|her|him)\b", told.lower()))
        assert found <= {"he", "his", "him"} or found <= {"she", "her"}, s.text
        genders["he" in found] += 1
    assert min(genders[True], genders[False]) > 10


def test_names_are_marked_when_new_and_when_repeated(both):
    for s in both:
        seen: set[str] = set()
        for start, end, mask in s.spans:
            has = labels(mask)
            if "name" in has:
                name = s.text[start:end]
                assert ("repeated_name" in has) == (name in seen), s.text
                assert ("first_mention" in has) == (name not in seen), s.text
                seen.add(name)


def test_what_animals_eat_and_how_they_sound_tells_them_apart():
    for field in ("noun", "home", "food", "cried"):
        values = [getattr(kind, field) for kind in ANIMALS]
        assert len(set(values)) == len(values), field


def test_held_out_plots_and_wordings_are_in_the_test_splits_only(score):
    shared = "\n".join(" ".join(p.texts) for p in ALL_PHRASES)
    shared = shared.replace("*", "").replace("^", "")
    runs = set()
    for phrases in ALL_PHRASES:
        for text in phrases.test_texts:
            for run in re.split(r'\*?~?\{[^}]+\}|"', text):
                run = run.strip(" .,!?*").replace("*", "").replace("^", "")
                if len(run.split()) >= 3 and run not in shared:
                    runs.add(run)
    assert len(runs) > 60
    other = {plot.__name__ for plot in TEST_PLOTS}
    for split in SPLITS:
        if split in TEST_SPLITS:
            continue
        sample = take(split, 600)
        text = "\n".join(s.text for s in sample)
        assert not [run for run in runs if run in text]
        assert not other & {s.plot for s in sample}
    text = "\n".join(s.text for s in score)
    assert sum(run in text for run in runs) > 0.8 * len(runs)
    assert 0.1 < sum(s.plot in other for s in score) / len(score) < 0.2


def test_each_choice_adds_its_own_surprise():
    t = Teller(Random(0), test=False)
    t.choice("abcd")
    assert t.nll == pytest.approx(math.log(4))
    t.sample("abcde", 2)
    assert t.nll == pytest.approx(math.log(4) + math.log(5) + math.log(4))
    before = t.nll
    p = 0.25 if t.chance(0.25) else 0.75
    assert t.nll - before == pytest.approx(-math.log(p))
    before = t.nll
    weights = (0.6, 0.3, 0.1)
    p = weights[t.draw(weights)]
    assert t.nll - before == pytest.approx(-math.log(p))


@pytest.mark.parametrize("test", [False, True])
def test_the_surprise_of_a_wording_is_that_of_its_frequency(test):
    phrases = Phrases("One.", "Two.", "Three.", test=("Four.", "Five."))
    t = Teller(Random(1), test=test)
    t.style = 4
    seen = Counter()
    surprise = {}
    n = 20_000
    for _ in range(n):
        before = t.nll
        text = t.phrase(phrases)[0][0]  # type: ignore[index]
        seen[text] += 1
        surprise[text] = t.nll - before
    assert sum(math.exp(-v) for v in surprise.values()) == pytest.approx(1.0)
    for text, v in surprise.items():
        p = math.exp(-v)
        assert abs(seen[text] / n - p) < 5 * math.sqrt(p * (1 - p) / n)
    held_out = (seen["Four"] + seen["Five"]) / n
    assert held_out == pytest.approx(HELD_OUT_SHARE if test else 0.0, abs=0.02)
    assert seen.most_common(1)[0][0] == "Two"  # the wording of style 4 among three


def test_labels_of_a_template_by_hand():
    t = Teller(Random(0), test=False)
    cast(t, 2)
    t.append(
        compile_template('"Is it red?" asked {a.name}. {a.He} did not run, but *{b.name} hid.')
    )
    text, spans = t.finish()
    a, b = t.bound["a"], t.bound["b"]
    he = a.say("he")[0][0]
    name_a, name_b = a.name, b.name  # type: ignore[attr-defined]
    assert text == f'"Is it red?" asked {name_a}. {he.capitalize()} did not run, but {name_b} hid.'
    got = [(text[s:e], labels(m)) for s, e, m in spans]
    quoted = {"inside_quotation", "question"}
    pronoun = "pronoun_male" if he == "he" else "pronoun_female"
    assert got == [
        ('"', {"quotation_mark", "sentence_start"}),
        ("Is", {"sentence_start", *quoted}),
        ("it", quoted),
        ("red", {"colour", *quoted}),
        ("?", {"sentence_end", *quoted}),
        ('"', {"quotation_mark"}),
        ("asked", {"speech_verb", "past_tense"}),
        (name_a, {"name", "first_mention"}),
        (".", {"sentence_end"}),
        (he.capitalize(), {pronoun, "sentence_start"}),
        ("did", labels(BASE["did"])),
        ("not", {"negation"}),
        ("run", {"negated"}),
        (",", {"comma"}),
        ("but", set()),
        (name_b, {"name", "first_mention", "requires_state"}),
        ("hid", {"past_tense"}),
        (".", {"sentence_end"}),
    ]


def test_test_stories_share_hardly_a_window_with_training(train, score):
    def windows(s: Story) -> set[tuple[str, ...]]:
        w = words(s)
        return {tuple(w[i : i + 32]) for i in range(len(w) - 31)}

    known = set().union(*(windows(s) for s in train))
    shared = sum(not known.isdisjoint(windows(s)) for s in score)
    assert shared < 0.02 * len(score)


def _trigram_nats(train: list[Story], held_out: list[Story]) -> float:
    """Nats per token of an interpolated trigram model (Witten-Bell)."""
    counts: list[dict] = [defaultdict(Counter) for _ in range(3)]
    for s in train:
        w = ["<s>", "<s>", *words(s), "</s>"]
        for i in range(2, len(w)):
            for order in range(3):
                counts[order][tuple(w[i - order : i])][w[i]] += 1
    totals = [{h: sum(c.values()) for h, c in table.items()} for table in counts]
    vocabulary = len(counts[0][()]) + 1
    nats, tokens = 0.0, 0
    for s in held_out:
        w = ["<s>", "<s>", *words(s), "</s>"]
        for i in range(2, len(w)):
            p = 1 / vocabulary
            for order in range(3):
                history = tuple(w[i - order : i])
                if history in totals[order]:
                    kinds = len(counts[order][history])
                    seen = counts[order][history][w[i]]
                    p = (seen + kinds * p) / (totals[order][history] + kinds)
            nats -= math.log(p)
            tokens += 1
    return nats / tokens


def test_a_trigram_is_far_from_the_bound(train):
    valid = take("valid", 300)
    bound = sum(s.nll for s in valid) / sum(len(s.spans) + 1 for s in valid)
    assert all(s.nll > 0 for s in valid)
    assert 0.2 < bound < 0.6
    assert _trigram_nats(train, valid) > 3 * bound
