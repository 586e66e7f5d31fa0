"""delphi's simulation: the model predicts a latent's activations from its explanation.

The language model is shown one window per prompt and gives a number from 0 to 10 for every token,
as JSON: delphi's `NeuronSimulator` without log-probabilities. Its other mode reads the
probabilities of the prompt's tokens out of vLLM's own structures by the template of a Llama, and
answers zeros where a step fails (`simulator.py` takes `client.tokenizer.encode("\\t")[1]`,
`llm_interface.py` `tokenized_prompt[-3]`): no client here can feed it, so it is left out.

The score is Pearson's correlation of the predictions with the latent's activations over all tokens
of all windows that were answered, as in delphi. It is undefined where either does not vary. delphi
takes an answer that it cannot read for zeros; here it is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets.autointerp.llm.completions import RequestFailed
from clearnets.autointerp.llm.delphi_adapter import Asker, tenths

from delphi.scorers.simulator.simulation.data_models import (  # isort: skip
    JSON_MAX_TOKENS,
    MAX_NORMALIZED_ACTIVATION,
)
from delphi.scorers.simulator.simulation.simulator import NeuronSimulator  # isort: skip

if TYPE_CHECKING:
    from clearnets.autointerp.llm.shown import Shown
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.config import DelphiScorer


@dataclass(frozen=True)
class Simulated:
    """One window.

    Attributes:
        true_L: activations in tenths of the largest of all windows, rounded up.
        predicted_L: by the model; None where the answer is missing.
    """

    true_L: np.ndarray
    predicted_L: np.ndarray | None


async def simulate(
    settings: DelphiScorer, session: Session, shown: Shown, explanation: str, *, seed: int
) -> list[Simulated]:
    """Ask for every window of the trial, in its order."""
    simulator = NeuronSimulator(None, explanation, use_logprobs=False)
    client = Asker(session)
    true_WL = tenths(shown.act_WL)
    found = []
    for strings, true_L in zip(shown.strings_W, true_WL):
        prompt = simulator._make_json_prompt(list(strings))
        try:
            reply = await client.generate(
                prompt, max_tokens=JSON_MAX_TOKENS, temperature=settings.temperature, seed=seed
            )
        except RequestFailed:
            found.append(Simulated(true_L, None))
        else:
            found.append(Simulated(true_L, parse_simulation(reply.text, len(strings))))
    return found


def parse_simulation(text: str, number: int) -> np.ndarray | None:
    """Return the activations of `number` tokens; None where the answer does not give each, from 0
    to 10.

    The answer is a JSON object with a list `activations` of objects with an `activation`, with or
    without words around it.
    """
    start = text.find("{")
    if start < 0:
        return None
    try:
        answer, _ = json.JSONDecoder().raw_decode(text, start)
        values = [float(entry["activation"]) for entry in answer["activations"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    inside = all(0 <= value <= MAX_NORMALIZED_ACTIVATION for value in values)
    return np.array(values) if inside and len(values) == number else None


def count_simulations(windows: Sequence[Simulated]) -> dict[str, Any]:
    """Return the correlation over all answered windows, and how many were answered or not."""
    there = [
        (window.true_L, window.predicted_L) for window in windows if window.predicted_L is not None
    ]
    return {
        "correlation": _correlation(there) if there else None,
        "answered": len(there),
        "missing": len(windows) - len(there),
    }


def _correlation(there: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    true_T, predicted_T = (np.concatenate(parts) for parts in zip(*there))
    if np.ptp(true_T) == 0 or np.ptp(predicted_T) == 0:
        return None
    return round(float(np.corrcoef(true_T, predicted_T)[0, 1]), 6)
