"""delphi's surprisal: whether an explanation makes the active windows of a latent likelier.

The language model reads each window behind delphi's prompt, once with the explanation and once with
"Various unrelated sentences.". What the explanation gains is the mean over the window's tokens of
the difference in surprisal, in nats. The score is the AUROC of the gain: how often an active window
gains more than a non-activating one (Paulo et al. 2024).

delphi runs a transformer in this process. Here a server gives the probabilities of a prompt's
tokens (`echo` of OpenAI's completions, which vLLM has). Its prompts are delphi's; its computation
is not used: the key-value cache of the prompt grows with every batch, so that a later batch is read
behind the earlier ones, and a last batch that is not full fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets.autointerp.llm.completions import RequestFailed
from clearnets.autointerp.ranking import area

from delphi.scorers.surprisal.surprisal import SurprisalScorer  # isort: skip

if TYPE_CHECKING:
    from clearnets.autointerp.llm.shown import Shown
    from clearnets.autointerp.llm.transcripts import Session


@dataclass(frozen=True)
class Surprised:
    """One window: whether the latent is active in it, and the gain in nats per token; None where
    an answer is missing."""

    activating: bool
    gain: float | None


class _Prompts(SurprisalScorer):
    """delphi's scorer, used for the text that it puts before the windows."""

    def __init__(self) -> None:
        super().__init__(model=None, verbose=False, batch_size=1)
        self.prefixes: list[str] = []

    def compute_loss_with_kv_cache(
        self, explanation: str, samples: list, batch_size: int = 2
    ) -> list:
        self.prefixes.append(explanation)
        return []


def prefixes(explanation: str) -> tuple[str, str]:
    """Return the text before a window without and with the explanation."""
    prompts = _Prompts()
    prompts._query(explanation, [])
    without, given = prompts.prefixes
    return without, given


async def weigh(session: Session, shown: Shown, explanation: str) -> list[Surprised]:
    """Ask for every window of the trial, in its order."""
    active, before = shown.trial.examples.num_active, prefixes(explanation)
    found = []
    for window, strings in enumerate(shown.strings_W):
        text = "".join(strings)
        # Both requests are made even if the first fails, so that a dry run counts both.
        without, given = [await _mean_log_probability(session, prefix, text) for prefix in before]
        gain = None if without is None or given is None else given - without
        found.append(Surprised(window < active, gain))
    return found


async def _mean_log_probability(session: Session, prefix: str, text: str) -> float | None:
    """Return the mean log-probability, in nats, of the tokens behind the prefix; None if
    missing."""
    message = {"role": "user", "content": prefix + text}
    try:
        reply = await session.ask([message], {"echo_from": len(prefix)})
    except RequestFailed:
        return None
    assert reply.logprobs
    return float(np.mean([others[0][1] for _, others in reply.logprobs]))


def count_surprisals(windows: Sequence[Surprised]) -> dict[str, Any]:
    """Return the AUROC of the gain over the answered windows, and counts and means of the gain."""
    there = [(window.gain, window.activating) for window in windows if window.gain is not None]
    gain_W = np.array([gain for gain, _ in there], dtype=float)
    active_W = np.array([active for _, active in there], dtype=bool)

    def mean(chosen_W: np.ndarray) -> float | None:
        return round(float(gain_W[chosen_W].mean()), 6) if chosen_W.any() else None

    return {
        "auroc": area(gain_W, active_W),
        "gain_positives": mean(active_W),
        "gain_negatives": mean(~active_W),
        "answered": len(there),
        "missing": len(windows) - len(there),
    }
