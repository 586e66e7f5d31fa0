"""Each known fault of the pinned delphi, shown on it, and its absence from our use of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

pytest.importorskip("delphi", reason="the extra `delphi` is not installed")

from clearnets.autointerp.llm import explainer as explaining
from clearnets.autointerp.llm import scorers, surprisal
from clearnets.autointerp.llm.completions import Reply, RequestFailed
from clearnets.autointerp.llm.delphi_adapter import (
    ActivatingExample,
    Latent,
    LatentRecord,
    NonActivatingExample,
    Response,
    examples_of,
)
from clearnets.autointerp.llm.explainer import parse_explanation
from clearnets.autointerp.llm.scorers import parse_answers, parse_intruder, parse_probabilities
from clearnets.autointerp.llm.shown import Shown
from clearnets.autointerp.llm.simulation import parse_simulation
from clearnets.autointerp.llm.transcripts import Count
from clearnets.autointerp.rules.judge import Trial, mark
from clearnets.autointerp.rules.matcher import Lexicon, read_rows
from clearnets.config import DelphiExplainer, DelphiScorer
from clearnets.latents.examples import Examples, activations, activity, choose, sample

from delphi.explainers import DefaultExplainer  # isort: skip
from delphi.latents.constructors import prepare_non_activating_examples  # isort: skip
from delphi.latents.constructors import random_non_activating_windows  # isort: skip
from delphi.scorers import (  # isort: skip
    DetectionScorer,
    FuzzingScorer,
    IntruderScorer,
    OpenAISimulator,
)

SIZE = 16
CLIENT = {"kind": "openai", "model": "m"}


class Says:
    """A session, and a client of delphi's, that answers each request by a function of its text."""

    def __init__(self, answer) -> None:
        self.answer, self.asked, self.settings = answer, [], []

    def _say(self, messages, settings):
        self.asked.append(messages[-1]["content"])
        self.settings.append(dict(settings))
        said = self.answer(messages[-1]["content"])
        if isinstance(said, Exception):
            raise said
        return said

    async def ask(self, messages, settings) -> Reply:
        return Reply(self._say(messages, settings))

    async def generate(self, prompt, **settings) -> Response:
        return Response(text=self._say(prompt, settings))


def run(work):
    return asyncio.run(work)


def explainer(**changes) -> DelphiExplainer:
    values = {"kind": "delphi", "explainer": "default", "client": CLIENT} | changes
    return DelphiExplainer.model_validate(values)


def judge(*names: str, **changes) -> DelphiScorer:
    values = {"kind": "delphi", "scorers": names, "client": CLIENT} | changes
    return DelphiScorer.model_validate(values)


def scored(settings: DelphiScorer, session, shown: Shown, explanation: str, *, seed=0) -> dict:
    """A latent's counts by scorer."""
    found = run(scorers.answers(settings, session, shown, explanation, seed=seed))
    return {name: scorers.count(name, answers) for name, answers in found.items()}


def shown_of(act_RS: np.ndarray, tokens_RS: np.ndarray, *, active=20, silent=20) -> Shown:
    """A latent's trial on some text."""
    text = read_rows(tokens_RS, synthetic.counted, Lexicon(synthetic.STRINGS), size=SIZE)
    entries = synthetic.entries(act_RS)
    found, rng = activity(entries, 0, text.windows), np.random.default_rng(0)
    active_W = choose(found, active, rng=rng)
    examples = sample(found, text.windows, active_W=active_W, silent=silent, rng=rng)
    act_WL = activations(entries, 0, text.windows, examples.window_W)
    token_WL = text.windows.cut(tokens_RS)[examples.window_W]
    strings = [[synthetic.STRINGS[t] for t in token_L] for token_L in token_WL]
    trial = Trial(text, examples, mark(text, examples, trigger="fox", rng=rng))
    return Shown(trial, strings, act_WL)


def varied(silent: int = 20) -> Shown:
    """A latent that is active on several tokens of some windows, with varying strength."""
    tokens_RS = synthetic.rows(0, 100)
    on_RS = np.isin(tokens_RS, [synthetic.ID[" fox"], synthetic.ID[" dog"], synthetic.ID["."]])
    row_R1 = np.arange(100)[:, None]
    act_RS = on_RS * synthetic.counted(tokens_RS) * (row_R1 % 2) * (1 + row_R1 % 7)
    return shown_of(act_RS, tokens_RS, silent=silent)


@pytest.fixture
def shown() -> Shown:
    return varied()


def examples(active=12, silent=12, length=SIZE, marked=1, seed=0):
    """delphi's examples of random tokens, `marked` of them active."""
    rng = np.random.default_rng(seed)
    token_WL = rng.integers(3, len(synthetic.STRINGS), (active + silent, length))
    act_WL = np.zeros((active + silent, length), np.float32)
    act_WL[:active, :marked] = rng.random((active, marked)) + 1
    return examples_of(token_WL, act_WL, synthetic.STRINGS)


def record(active, silent, explanation="foxes") -> LatentRecord:
    parts = {"train": active, "test": active, "not_active": silent, "examples": active}
    return LatentRecord(Latent("layers.0.mlp", 0), explanation=explanation, **parts)


def marks(text: str) -> int:
    """Marked tokens: in the synthetic language a mark holds as many as its text has words."""
    found, inside = 0, text.split("<<")[1:]
    for part in inside:
        piece = part.split(">>")[0]
        while piece:
            piece = piece[len(next(s for s in LONGEST if piece.startswith(s))) :]
            found += 1
    return found


LONGEST = sorted(synthetic.STRINGS, key=len, reverse=True)


# Records


def tokenizer():
    """Of transformers: where delphi gives it a window's tokens, it makes one text of them."""
    from transformers import PreTrainedTokenizerFast

    vocab = {string: token for token, string in enumerate(synthetic.STRINGS)}
    words = Tokenizer(WordLevel(vocab, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words)


def test_delphi_decodes_tokens_as_one_text_and_we_one_by_one():
    token_L = torch.tensor([synthetic.ID[" fox"], synthetic.ID["."]])
    zeros = torch.zeros(1, 2)
    (theirs,) = prepare_non_activating_examples(token_L[None], zeros, 0.0, tokenizer())
    assert len(theirs.str_tokens) != 2
    _, (ours,) = examples_of(token_L[None].numpy(), zeros.numpy(), synthetic.STRINGS)
    assert ours.str_tokens == [" fox", "."]

    # Ours come from different splits: see tests/stages/test_language_stages.py.


def test_delphi_draws_negatives_again_and_we_do_not(shown):
    window_NL = torch.arange(60)[:, None].repeat(1, 4)

    class Numbers:
        def batch_decode(self, tokens):
            return [str(int(token)) for token in tokens]

    drawn = random_non_activating_windows(torch.arange(60), window_NL, 50, Numbers())
    assert len({example.str_tokens[0] for example in drawn}) < 50
    window_W = shown.trial.examples.window_W
    assert len(set(window_W.tolist())) == len(window_W) == 40


def test_examples_are_what_delphi_expects():
    token_WL = np.array([[3, 4, 5], [6, 7, 8], [3, 3, 3]])
    act_WL = np.array([[0, 0.5, 1.01], [0, 0, 0], [4, 0, 0]], np.float32)
    active, silent = examples_of(token_WL, act_WL, synthetic.STRINGS)
    assert [type(e) for e in active + silent] == [ActivatingExample] * 2 + [NonActivatingExample]
    assert [e.max_activation for e in active] == [4, pytest.approx(1.01)]
    assert active[0].normalized_activations.tolist() == [10, 0, 0]
    # Tenths of the largest of all, rounded up.
    assert active[1].normalized_activations.tolist() == [0, 2, 3]
    assert silent[0].str_tokens == [synthetic.STRINGS[i] for i in (6, 7, 8)]
    assert [e.quantile for e in examples(active=20)[0]] == [i // 2 for i in range(20)]


def test_activations_of_windows_in_any_order():
    tokens_RS = synthetic.rows(3, 20)
    rng = np.random.default_rng(0)
    act_RS = rng.random(tokens_RS.shape) * (rng.random(tokens_RS.shape) > 0.7)
    text = read_rows(tokens_RS, synthetic.counted, Lexicon(synthetic.STRINGS), size=SIZE)
    window_W = rng.permutation(len(text.windows))[:11]
    got_WL = activations(synthetic.entries(act_RS), 0, text.windows, window_W)
    expected_RS = (act_RS * synthetic.counted(tokens_RS)).astype(np.float32)
    for window, got_L in zip(window_W, got_WL):
        row, first = text.windows.row_N[window], text.windows.slot_N[window] * SIZE
        np.testing.assert_array_equal(got_L, expected_RS[row, first : first + SIZE])


# Explanations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[EXPLANATION]: foxes", "foxes"),
        ("I think.\n\n[EXPLANATION]: foxes\nand dogs\n\nHope it helps!", "foxes and dogs"),
        ("**[EXPLANATION]:** **foxes**", "foxes"),
        ("[Explanation]\nfoxes", "foxes"),
        ("Explanation: foxes", "foxes"),
        ("[EXPLANATION]: a draft\n\n[EXPLANATION]: foxes", "foxes"),
        ("foxes", ""),
        ("[EXPLANATION]:", ""),
        ("", ""),
        ("There is an explanation: none", ""),
    ],
)
def test_explanations_are_read(text, expected):
    assert parse_explanation(text) == expected


def test_delphi_takes_no_explanation_for_one_and_we_ask_again():
    active, silent = examples()
    client = Says(lambda _: "I do not know.")
    theirs = run(DefaultExplainer(client)(record(active, silent)))
    assert theirs.explanation == "Explanation could not be parsed."

    asked = explaining.record_of("layers.0.mlp", 0, active, silent)
    session = Says(lambda _: "I do not know.")
    assert run(explaining.explain(explainer(retries=2), session, asked, seed=5)) is None
    assert [s["seed"] for s in session.settings] == [5, 6, 7]
    assert [s["temperature"] for s in session.settings] == [0.0, 0.7, 0.7]

    answers = iter(["what?", RequestFailed("status 500"), "[EXPLANATION]: foxes"])
    session = Says(lambda _: next(answers))
    assert run(explaining.explain(explainer(retries=2), session, asked, seed=5)) == "foxes"


def test_an_exception_of_a_client_ends_delphis_run_and_not_ours():
    active, silent = examples()
    client = Says(lambda _: RequestFailed("status 500"))
    with pytest.raises(RequestFailed):
        run(DefaultExplainer(client)(record(active, silent)))
    asked = explaining.record_of("layers.0.mlp", 0, active, silent)
    assert run(explaining.explain(explainer(retries=1), client, asked, seed=0)) is None


def test_explainers_show_what_they_should():
    active, silent = examples(active=18, silent=7)
    asked = explaining.record_of("layers.0.mlp", 0, active, silent)
    session = Says(lambda _: "[EXPLANATION]: foxes")
    for kind in ("default", "contrastive", "no-op"):
        said = run(explaining.explain(explainer(explainer=kind), session, asked, seed=0))
        assert said == ("" if kind == "no-op" else "foxes")
    default, contrastive = session.asked
    assert default.count("Activations: ") == 18
    # All of them: delphi's own limits would leave some out.
    assert contrastive.count("Example ") == 18 + 7
    shown = "".join(silent[6].str_tokens).strip()
    assert shown in contrastive
    assert shown not in default


# Answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 0, 1]", [1, 0, 1]),
        ("[\n  1,\n  0,\n  1\n]", [1, 0, 1]),
        ("Sure! Here it is: [1,0,1].", [1, 0, 1]),
        ("[1, 0, 1]\n\nExample [0] holds it [clearly].", [1, 0, 1]),
        ("```json\n[true, False, true,]\n```", [1, 0, 1]),
        ("[\n1, // it is (really, it is)\n0, # no\n1\n]", [1, 0, 1]),
        ("[1 (a fox, a dog), 0 (none), 1]", [1, 0, 1]),
        ('["1", "0", "1"]', [1, 0, 1]),
        ('{"example_0": 1, "example_1": 0, "example_2": 1}', [1, 0, 1]),
        ("[Example 0: 1, Example 1: 0, Example 2: 1]", [1, 0, 1]),
        ("[0]: no. The answer is [1, 0, 1]", [1, 0, 1]),
        ("[1, 0, 1] and again [1, 0, 1]", [1, 0, 1]),
        ("[1, 0, 1], or rather [0, 0, 1]", None),
        ("[1, 0]", None),
        ("[1, 0, 1, 1]", None),
        ("[2, 0, 1]", None),
        ("[10, 0, 1]", None),
        ("[1, 0, maybe]", None),
        ("1 0 1", None),
        ("", None),
    ],
)
def test_answers_are_read(text, expected):
    assert parse_answers(text, 3) == (None if expected is None else [bool(x) for x in expected])


def tokens_of(*pairs):
    return [
        (token, [("1", float(np.log(p))), ("0", float(np.log(1 - p))), ("the", -9.0)])
        for token, p in pairs
    ]


def test_probabilities_are_those_of_the_answers_alone():
    array = tokens_of(("[", 0.5), ("1", 0.9), (",", 0.5), ("0", 0.2), ("]", 0.5))
    assert parse_probabilities(array, 2) == [pytest.approx(0.9), pytest.approx(0.2)]
    glued = tokens_of(("[1", 0.9), (",0", 0.2), ("]", 0.5))
    assert parse_probabilities(glued, 2) == [pytest.approx(0.9), pytest.approx(0.2)]
    assert parse_probabilities(array, 3) is None
    assert parse_probabilities(None, 2) is None
    # Neither answer among the alternatives: delphi makes that a probability of 0.
    unsure = [("1", [("x", -1.0)])]
    assert parse_probabilities(unsure, 1) is None


def test_intruders_are_read():
    assert parse_intruder("The second.\n[RESPONSE]: 1", 5) == 1
    assert parse_intruder("**[RESPONSE]:** Example 3.", 5) == 3
    assert parse_intruder("[RESPONSE]: 7", 5) is None
    assert parse_intruder("I cannot say", 5) is None


def always(answer: str):
    """One answer for each window of a prompt."""
    return lambda text: f"[{', '.join([answer] * text.count('Example '))}]"


def test_delphi_leaves_the_last_windows_unanswered_and_we_do_not(shown):
    active, silent = examples(active=6, silent=6)
    theirs = run(DetectionScorer(Says(always("1")), n_examples_shown=5)(record(active, silent)))
    assert [answer.prediction for answer in theirs.score].count(None) == 2
    settings = judge("detection", n_examples_shown=7)
    session = Says(always("1"))
    scores = scored(settings, session, shown, "foxes")["detection"]
    assert [text.count("Example ") for text in session.asked] == [7] * 5 + [5]
    assert scores | {"auroc": 0} == {
        "tp": 20, "fp": 20, "tn": 0, "fn": 0,
        "missing_positives": 0, "missing_negatives": 0, "auroc": 0,
    }  # fmt: skip


def test_delphi_cannot_read_lists_of_many_lines_and_we_can(shown):
    def spread(text):
        return always("0")(text).replace(" ", "\n").replace("[", "[\n")

    active, silent = examples(active=5, silent=5)
    theirs = run(DetectionScorer(Says(spread), n_examples_shown=5)(record(active, silent)))
    assert {answer.prediction for answer in theirs.score} == {None}
    scores = scored(judge("detection"), Says(spread), shown, "foxes")
    assert (scores["detection"]["tn"], scores["detection"]["fn"]) == (20, 20)


def test_delphi_marks_more_tokens_in_negatives_and_we_as_many(shown):
    active, silent = examples(active=5, silent=5, marked=1)
    for place, example in enumerate(active):
        # Some windows are active at three tokens, most at one: the mean, rounded up, is two.
        example.activations[1:3] = float(place == 0)
    theirs = FuzzingScorer(Says(always("1")))._prepare(record(active, silent))
    mean = {
        kind: np.mean([marks(s.text) for s in theirs if s.data.activating is kind])
        for kind in (True, False)
    }
    assert mean[False] > mean[True]
    ours = shown.fuzzing()
    found = {
        kind: Counter(marks(s.text) for s in ours if s.data.activating is kind)
        for kind in (True, False)
    }
    assert found[True] == found[False]
    assert len(found[True]) > 1


def test_delphi_refuses_a_latent_without_negatives_and_we_count_none(shown):
    active, _ = examples()
    with pytest.raises(AssertionError, match="No non-activating"):
        run(FuzzingScorer(Says(always("1")))(record(active, [])))
    examples_ = shown.trial.examples
    cut = examples_.num_active
    parts = (examples_.window_W[:cut], cut, examples_.hard_W[:cut], examples_.active_WL[:cut])
    none = {"negative_Q": np.array([], int), "marked_QL": np.zeros((0, SIZE), bool)}
    trial = Trial(shown.trial.text, Examples(*parts), replace(shown.trial.marks, **none))
    bare = Shown(trial, shown.strings_W[:cut], shown.act_WL[:cut])
    names = ("detection", "fuzzing", "intruder")
    scores = scored(judge(*names), Says(always("1")), bare, "foxes")
    assert (scores["detection"]["tp"], scores["detection"]["fp"]) == (20, 0)
    assert scores["fuzzing"]["fp"] == scores["fuzzing"]["tn"] == 0
    assert scores["intruder"] is None


def test_a_missing_answer_is_neither_right_nor_wrong(shown):
    """Of the prompts one fails, one is nonsense, and the rest say 1."""
    said = iter([RequestFailed("ReadTimeout"), "I would rather not."])
    session = Says(lambda text: next(said, None) or always("1")(text))
    settings = judge("detection", n_examples_shown=5)
    scores = scored(settings, session, shown, "foxes")["detection"]
    missing = scores["missing_positives"] + scores["missing_negatives"]
    assert missing == 10
    assert scores["tp"] == 20 - scores["missing_positives"]
    assert scores["fp"] == 20 - scores["missing_negatives"]
    assert scores["tn"] == scores["fn"] == 0


def test_delphi_scores_missing_intruders_as_wrong_and_we_do_not():
    shown = varied(silent=50)
    active, silent = examples(active=10, silent=5)
    theirs = run(IntruderScorer(Says(lambda _: "?"), n_examples_shown=5)(record(active, silent)))
    assert {result.correct for result in theirs.score} == {False}
    said = iter(["?", RequestFailed("status 500")])
    session = Says(lambda _: next(said, None) or "[RESPONSE]: 0")
    scores = scored(judge("intruder"), session, shown, "")["intruder"]
    assert scores["missing"] == 2
    assert scores["right"] + scores["wrong"] + scores["missing"] == len(session.asked)
    # 0 is the intruder's place in about one of five.
    assert 0 < scores["right"] < scores["wrong"]


def test_intruders_are_silent_windows_among_active_ones():
    shown = varied(silent=50)
    sentences = shown.intruders(5, random.Random(0))
    active = {sample.text for sample in shown.fuzzing() if sample.data.activating}
    for sentence in sentences:
        others = [t for i, t in enumerate(sentence.examples) if i != sentence.intruder_index]
        assert len(others) == 4
        assert set(others) <= active
        assert sentence.examples[sentence.intruder_index] not in active
    assert len({sentence.intruder_index for sentence in sentences}) == 5


def test_scores_do_not_depend_on_who_was_judged_before(shown):
    """delphi's scorers draw the order of windows from one generator for all latents."""
    sessions = [Says(always("1")) for _ in range(2)]
    for session, seeds in zip(sessions, ((3,), (1, 2, 3))):
        for seed in seeds:
            session.asked.clear()
            scored(judge("detection"), session, shown, "foxes", seed=seed)
    assert sessions[0].asked == sessions[1].asked


# Simulation and surprisal


def test_simulations_are_read():
    def said(*values):
        return json.dumps({"activations": [{"token": "x", "activation": v} for v in values]})

    assert parse_simulation(said(0, 3, 10), 3).tolist() == [0, 3, 10]
    assert parse_simulation(f"Here:\n```json\n{said(1, '2', 3)}\n```", 3).tolist() == [1, 2, 3]
    for text in (said(0, 3), said(0, 3, 11), said(0, -1, 2), said(0, None, 2), "{", "no", "[1]"):
        assert parse_simulation(text, 3) is None


def marking_shown() -> Shown:
    """A latent that is active at " fox" wherever it stands."""
    tokens_RS = synthetic.rows(0, 100)
    act_RS = (tokens_RS == synthetic.ID[" fox"]) * synthetic.counted(tokens_RS) * 1.0
    return shown_of(act_RS, tokens_RS, active=8, silent=8)


def test_a_perfect_simulation_correlates_fully_and_a_missing_one_is_missing():
    def by_text(text):
        asked = json.loads(text)
        found = [
            {"token": e["token"], "activation": 10 * (e["token"] == " fox")}
            for e in asked["activations"]
        ]
        return json.dumps({"activations": found})

    session, shown = Says(by_text), marking_shown()
    counts = scored(judge("simulation"), session, shown, "foxes")["simulation"]
    assert counts == {"correlation": 1.0, "answered": 16, "missing": 0}
    assert len(session.asked) == 16
    assert json.loads(session.asked[0])["to_find"] == "foxes"

    said = iter(["nonsense", RequestFailed("status 500"), '{"activations": []}'])
    session = Says(lambda text: next(said, None) or by_text(text))
    counts = scored(judge("simulation"), session, shown, "foxes")["simulation"]
    assert counts == {"correlation": 1.0, "answered": 13, "missing": 3}
    # A constant has no correlation.
    silent = Says(lambda text: re.sub(r'"activation": null', '"activation": 0', text))
    counts = scored(judge("simulation"), silent, shown, "foxes")["simulation"]
    assert counts == {"correlation": None, "answered": 16, "missing": 0}


def test_delphi_takes_a_missing_simulation_for_zeros_and_we_do_not():
    active, silent = examples(active=4, silent=4)
    client = Says(lambda _: RequestFailed("status 500"))
    simulator = OpenAISimulator(client, PerToken(), all_at_once=False)
    theirs = run(simulator(record(active, silent))).score
    sequences = [s for group in theirs for s in group.scored_sequence_simulations]
    assert {v for s in sequences for v in s.simulation.expected_activations} == {0.0}
    counts = scored(judge("simulation"), client, marking_shown(), "x")
    assert counts["simulation"] == {"correlation": None, "answered": 0, "missing": 16}


class PerToken:
    def batch_decode(self, token_L):
        return [synthetic.STRINGS[int(token)] for token in token_L]


def test_delphis_simulator_decodes_a_window_as_one_token_and_we_token_by_token():
    active, _ = examples(active=1)
    (theirs,) = OpenAISimulator(None, tokenizer()).to_activation_records(active)
    assert len(theirs.tokens) != len(theirs.activations)
    session = Says(lambda _: "?")
    scored(judge("simulation"), session, marking_shown(), "x")
    assert {len(json.loads(text)["activations"]) for text in session.asked} == {SIZE}


class Surprised(Says):
    """A session whose text is likelier where the explanation's word is in it."""

    def __init__(self, *, missing: int = 0) -> None:
        super().__init__(None)
        self.missing = missing

    async def ask(self, messages, settings) -> Reply:
        (message,) = messages
        text, start = message["content"], settings["echo_from"]
        self.asked.append((text[:start], text[start:]))
        if self.missing:
            self.missing -= 1
            raise RequestFailed("ReadTimeout")
        said = text[:start].rsplit("Description: \n", 1)[1].split("\n")[0]
        gain = 1.0 if said in text[start:] else 0.0
        tokens = re.findall(r" ?[^ ]+", text[start:])
        return Reply("", [(t, [(t, -3.0 + gain)]) for t in tokens])


def test_surprisal_is_the_area_of_what_an_explanation_gains():
    session, shown = Surprised(), marking_shown()
    scores = scored(judge("surprisal"), session, shown, "fox")["surprisal"]
    assert scores == {
        "auroc": 1.0, "gain_positives": 1.0, "gain_negatives": 0.0, "answered": 16, "missing": 0,
    }  # fmt: skip
    other = scored(judge("surprisal"), session, shown, "whale")["surprisal"]
    assert other["auroc"] == 0.5
    scores = scored(judge("surprisal"), Surprised(missing=1), shown, "fox")
    # One of a window's two requests.
    assert (scores["surprisal"]["answered"], scores["surprisal"]["missing"]) == (15, 1)
    before = {prefix.rsplit("Description: \n", 1)[1] for prefix, _ in session.asked}
    assert before == {
        f"{said}\n Sentences:\n" for said in ("Various unrelated sentences.", "fox", "whale")
    }
    windows = {text for _, text in session.asked}
    assert windows == {"".join(strings) for strings in shown.strings_W}


def test_a_dry_run_of_surprisal_counts_both_requests_of_a_window():
    shown = marking_shown()
    with Count({"model": "m"}, Path("nowhere")) as count:
        scored(judge("surprisal"), count, shown, "fox")
    both = {prefix + "".join(s) for s in shown.strings_W for prefix in surprisal.prefixes("fox")}
    assert count.to_ask == len(both) == 2 * len(shown.strings_W)
    assert count.longest == count.to_ask
