"""Adapter to delphi's explainers and scorers: its classes, and its records from our caches.

Importing delphi takes seconds and torch: only modules that ask a language model do, and lazily.

Every record is built from a sample of windows: the tokens' texts one by one, activations from our
cache, explaining and scoring windows from different splits. delphi's own sampling, decoding and
negatives are not used.

Shape suffixes: W windows of a sample, L positions of a window.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.autointerp.llm.transcripts import Session

if find_spec("delphi") is None:
    raise UserError(
        "language models are asked through delphi, which is not installed; run `make env`, or "
        "install the extra `delphi` with `--override overrides.txt`"
    )


def _without_vllm() -> None:
    """Put an empty class in the place of delphi's offline client, which imports vLLM, where vLLM is
    not installed."""
    name = "delphi.clients.offline"
    if find_spec("vllm") is None and name not in sys.modules:
        placeholder = ModuleType(name)
        placeholder.Offline = type("Offline", (), {})  # type: ignore[attr-defined]
        sys.modules[name] = placeholder


_without_vllm()

from delphi.clients import Client  # noqa: E402
from delphi.clients.client import Response  # noqa: E402
from delphi.latents.latents import (  # noqa: E402
    ActivatingExample,
    Latent,
    LatentRecord,
    NonActivatingExample,
)

__all__ = [
    "ActivatingExample",
    "Asker",
    "Client",
    "Latent",
    "LatentRecord",
    "NonActivatingExample",
    "Response",
    "examples_of",
    "tenths",
]


class Asker(Client):
    """A session as a client of delphi. A missing answer raises `RequestFailed`."""

    def __init__(self, session: Session) -> None:
        super().__init__("session")
        self._session = session

    async def generate(self, prompt: Any, **kwargs: Any) -> Response:
        """Answer a chat."""
        settings = {
            "temperature": kwargs["temperature"],
            "max_tokens": kwargs["max_tokens"],
            "seed": kwargs["seed"],
            "logprobs": kwargs.get("top_logprobs", 0) if kwargs.get("logprobs") else 0,
        }
        reply = await self._session.ask(prompt, settings)
        return Response(text=reply.text, logprobs=reply.logprobs)  # type: ignore[arg-type]


def tenths(act_WL: np.ndarray) -> np.ndarray:
    """Return activations in tenths of the largest of all, rounded up, as delphi has them."""
    largest = max(float(act_WL.max(initial=0)), 1e-6)
    return np.clip(np.ceil(act_WL * 10 / largest), 0, 10).astype(np.float32)


def examples_of(
    token_WL: np.ndarray, act_WL: np.ndarray, strings: Sequence[str]
) -> tuple[list[ActivatingExample], list[NonActivatingExample]]:
    """Return windows as delphi's examples: activating ones, strongest first, and the others.

    Activations are also given in tenths. A quantile is a tenth of the active windows, 0 the
    strongest.
    """
    import torch

    active, non_activating = [], []
    for token_L, act_L, tenths_L in zip(token_WL, act_WL, tenths(act_WL)):
        common = {
            "tokens": torch.from_numpy(token_L.astype(np.int64)),
            "activations": torch.from_numpy(act_L.astype(np.float32)),
            "str_tokens": [strings[token] for token in token_L],
        }
        if act_L.any():
            normal = torch.from_numpy(tenths_L)
            active.append(ActivatingExample(**common, normalized_activations=normal))
        else:
            example = NonActivatingExample(**common)
            # delphi's contrastive explainer fails without; its class does not have it.
            example.normalized_activations = torch.zeros(len(act_L))  # type: ignore[attr-defined]
            non_activating.append(example)
    active.sort(key=lambda example: -example.max_activation)
    for rank, example in enumerate(active):
        example.quantile = 10 * rank // len(active)
    return active, non_activating
