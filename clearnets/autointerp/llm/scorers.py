"""Scorers by a language model as judge, with delphi's prompts: detection, fuzzing and intruder.

*detection*: which of these windows hold what the explanation describes? *fuzzing*: in which of them
does it describe the marked tokens? Both use the items of rule-detection and rule-fuzzing (see
`clearnets.autointerp.rules.judge`), so as many tokens are marked in negatives as in positives.
*intruder*: which of these windows, all marked, does not belong to the others? It shows
`n_examples_shown - 1` active windows of similar strength and a non-activating one, and does not use
the explanation. Simulation and surprisal have modules of their own.

An answer that is missing, or cannot be read for every window of its prompt, is a missing answer for
all of them. It is counted separately and is neither right nor wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets.autointerp.llm.answers import Answer, tally
from clearnets.autointerp.llm.completions import LogProbs, RequestFailed
from clearnets.autointerp.llm.delphi_adapter import Asker, Latent, LatentRecord
from clearnets.autointerp.llm.shown import Shown
from clearnets.autointerp.llm.simulation import count_simulations, simulate
from clearnets.autointerp.llm.surprisal import count_surprisals, weigh
from clearnets.autointerp.llm.transcripts import Session

from delphi.scorers.classifier.detection import DetectionScorer  # isort: skip
from delphi.scorers.classifier.fuzz import FuzzingScorer  # isort: skip
from delphi.scorers.classifier.intruder import (  # isort: skip
    IntruderResult,
    IntruderScorer,
    IntruderSentence,
)
from delphi.scorers.classifier.sample import ClassifierOutput, Sample  # isort: skip

if TYPE_CHECKING:
    from clearnets.config import DelphiScorer

# A scorer's answers about a latent: delphi's classifier outputs or intruder results, or a value of
# `simulation` or `surprisal` for each window.
Answers = list[Any]

TOP_LOGPROBS = 5
_ARRAY = re.compile(r"\[([^\[\]]*)\]")
_OBJECT = re.compile(r"\{([^{}]*)\}")
_REMARK = re.compile(r"\([^()]*\)|(//|#).*$", re.M)
_ANSWER = re.compile(
    r"""["']?(?:example[ _]*\d+["']?\s*[:=]\s*["']?)?(0|1|true|false)["']?(?:\s*[-–:]\s.*)?""",
    re.I | re.S,
)
_DIGIT = re.compile(r"[\s\[,]*([01])[\s\],]*")
_RESPONSE = re.compile(r"\[?response\]?[*\s]*:[*\s]*(?:example\s*)?(\d+)\b", re.I)


def parse_answers(text: str, number: int) -> list[bool] | None:
    """Return the yes and no of an answer to `number` windows; None where it cannot be read.

    It is a list of 0 and 1, or of true and false, over one line or many, with or without words
    around it or remarks in it, or an object with as many such values. Lists of another length are
    ignored. An answer with two lists that differ contradicts itself and cannot be read.
    """
    lists = []
    for match in (*_ARRAY.finditer(text), *_OBJECT.finditer(text)):
        parts = _REMARK.sub("", match[1]).strip().rstrip(",").split(",")
        found = [_ANSWER.fullmatch(part.strip()) for part in parts]
        if len(found) == number and all(found):
            lists.append([m[1].lower() in ("1", "true") for m in found if m])
    return lists[0] if lists and all(one == lists[0] for one in lists) else None


def parse_probabilities(logprobs: LogProbs | None, number: int) -> list[float] | None:
    """Return P(1) / (P(0) + P(1)) at each of the `number` answers, from the tokens' alternatives.

    None where there are none, or where the answers are not `number` tokens of their own.
    """
    if logprobs is None:
        return None
    found = []
    for token, others in logprobs:
        if not _DIGIT.fullmatch(token):
            continue
        weight = [0.0, 0.0]
        for other, logprob in others:
            digit = _DIGIT.fullmatch(other)
            if digit:
                weight[int(digit[1])] += float(np.exp(logprob))
        if not sum(weight):
            return None
        found.append(weight[1] / sum(weight))
    return found if len(found) == number else None


def parse_intruder(text: str, shown: int) -> int | None:
    """Return the number of the window that is named as the intruder; None where none is."""
    found = _RESPONSE.findall(text)
    number = int(found[-1]) if found else -1
    return number if 0 <= number < shown else None


class _Careful:
    """delphi's prompts and batches, for our items and with our parser of answers."""

    items: list[Sample]
    client: Any
    log_prob: bool
    generation_kwargs: dict[str, Any]

    def _prepare(self, record: LatentRecord) -> list[Sample]:
        return list(self.items)

    async def _query(self, explanation: str, batches: list[list[Sample]]) -> list[ClassifierOutput]:
        return [answer for batch in batches for answer in await self._generate(explanation, batch)]

    async def _generate(self, explanation: str, batch: list[Sample]) -> list[ClassifierOutput]:
        prompt = self._build_prompt(explanation, batch)  # type: ignore[attr-defined]
        options = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.log_prob else {}
        answers: Sequence[bool | None] | None = None
        probabilities: Sequence[float | None] | None = None
        try:
            response = await self.client.generate(prompt, **self.generation_kwargs, **options)
        except RequestFailed:
            pass
        else:
            answers = parse_answers(response.text, len(batch))
            probabilities = parse_probabilities(response.logprobs, len(batch))
        if answers is None:
            answers = probabilities = [None] * len(batch)
        for sample, answer, probability in zip(
            batch, answers, probabilities or [None] * len(batch)
        ):
            sample.data.prediction = answer
            sample.data.probability = probability
            sample.data.correct = None if answer is None else answer == sample.data.activating
        return [sample.data for sample in batch]


class CarefulDetection(_Careful, DetectionScorer):
    """delphi's `DetectionScorer`."""


class CarefulFuzzing(_Careful, FuzzingScorer):
    """delphi's `FuzzingScorer`."""


class CarefulIntruder(IntruderScorer):
    """delphi's `IntruderScorer`. A missing answer is `correct=None` instead of wrong."""

    sentences: list[IntruderSentence]

    def _prepare_and_batch(self, record: LatentRecord) -> list[IntruderSentence]:
        return self.sentences

    async def _query(self, samples: list[IntruderSentence]) -> list[IntruderResult]:  # type: ignore[override]
        return [await self._generate(sample) for sample in samples]

    async def _generate(self, sample: IntruderSentence) -> IntruderResult:  # type: ignore[override]
        try:
            response = await self.client.generate(
                self._build_prompt(sample), **self.generation_kwargs
            )
            named = parse_intruder(response.text, len(sample.examples))  # type: ignore[union-attr]
        except RequestFailed:
            named = None
        right = None if named is None else named == sample.intruder_index
        return IntruderResult(
            sample=sample,
            prediction=named,  # type: ignore[arg-type]
            correct_index=sample.intruder_index,
            correct=right,  # type: ignore[arg-type]
        )


async def answers(
    settings: DelphiScorer, session: Session, shown: Shown, explanation: str, *, seed: int
) -> dict[str, Answers]:
    """Return each scorer's answers about a latent: of detection and fuzzing one per item, in the
    order of the items."""
    found: dict[str, Answers] = {}
    for name in settings.scorers:
        match name:
            case "intruder":
                sentences = shown.intruders(settings.n_examples_shown, random.Random(seed))
                found[name] = await _find_intruders(settings, session, sentences, seed)
            case "simulation":
                found[name] = await simulate(settings, session, shown, explanation, seed=seed)
            case "surprisal":
                found[name] = await weigh(session, shown, explanation)
            case _:
                items = shown.fuzzing() if name == "fuzzing" else shown.detection()
                found[name] = await classify(name, settings, session, items, explanation, seed)
    return found


def count(name: str, given: Answers) -> dict[str, Any] | None:
    """Return a scorer's answers as counts; None where it was asked nothing."""
    match name:
        case "intruder":
            return count_intruders(given) if given else None
        case "simulation":
            return count_simulations(given)
        case "surprisal":
            return count_surprisals(given)
        case _:
            return count_answers(given)


def _options(settings: DelphiScorer, session: Session) -> dict[str, Any]:
    return {
        "client": Asker(session),
        "n_examples_shown": settings.n_examples_shown,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
    }


async def classify(
    scorer: str,
    settings: DelphiScorer,
    session: Session,
    items: list[Sample],
    explanation: str,
    seed: int,
) -> list[ClassifierOutput]:
    """Return the answers of detection or fuzzing to some items, in their order."""
    kind = {"detection": CarefulDetection, "fuzzing": CarefulFuzzing}[scorer]
    classifier = kind(**_options(settings, session), log_prob=settings.log_prob)
    # delphi draws the orders of all latents from one generator; here each has its own.
    classifier.rng = random.Random(seed)
    classifier.generation_kwargs["seed"] = seed
    classifier.items = items
    await classifier(LatentRecord(latent=Latent("", 0), explanation=explanation))
    # delphi shuffles a copy; the answers are written into the items.
    return [item.data for item in items]


async def _find_intruders(
    settings: DelphiScorer, session: Session, sentences: list[IntruderSentence], seed: int
) -> list[IntruderResult]:
    if not sentences:
        return []
    scorer = CarefulIntruder(**_options(settings, session))
    scorer.generation_kwargs["seed"] = seed
    scorer.sentences = sentences
    return (await scorer(LatentRecord(latent=Latent("", 0)))).score


def count_answers(answers: Sequence[ClassifierOutput]) -> dict[str, Any]:
    """Return counts of right, wrong and missing answers, and AUROC given probabilities."""
    return tally(Answer(a.activating, a.prediction, a.probability) for a in answers)


def count_intruders(results: Sequence[IntruderResult]) -> dict[str, Any]:
    """Return counts of right, wrong and missing answers."""
    right = [result.correct for result in results]
    return {
        "right": sum(correct is True for correct in right),
        "wrong": sum(correct is False for correct in right),
        "missing": sum(correct is None for correct in right),
    }
