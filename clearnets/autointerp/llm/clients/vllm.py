"""vLLM in process, through delphi's offline client. Needs a GPU and the extra `gpu`.

delphi's client merges the generation settings of whatever requests share a batch. Here a batch
holds requests of equal settings only. It passes no seed on: use temperature 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.llm.clients import Messages, Reply, RequestFailed

if TYPE_CHECKING:
    from clearnets.config import VLLMClient


class VLLM:
    """A model in this process, loaded when it is first asked. Use it within one event loop.

    `CLEARNETS_GPUS` says on how many GPUs (1); it changes no parameter.
    """

    def __init__(self, client: VLLMClient) -> None:
        self._settings = client
        self._client: Any = None

    async def complete(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """See `Backend`."""
        if self._client is None:
            self._client = _load(self._settings)
        options = {"temperature": settings["temperature"], "max_tokens": settings["max_tokens"]}
        if settings["logprobs"]:
            options |= {"logprobs": True, "top_logprobs": settings["logprobs"]}
        try:
            response = await self._client.generate([dict(m) for m in messages], **options)
        except ValueError as error:  # Longer than the context, for one.
            raise RequestFailed(type(error).__name__) from None
        if response.logprobs is None:
            return Reply(response.text)
        logprobs = [
            (token.token, [(other.token, other.logprob) for other in token.top_logprobs])
            for token in response.logprobs
        ]
        return Reply(response.text, logprobs)

    async def close(self) -> None:
        """Free the GPU."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def _load(settings: VLLMClient) -> Any:
    try:
        import vllm  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(
            "vLLM is not installed; on a GPU machine run `make env GPU=1`, or serve the model and "
            "use the client `openai`"
        ) from None
    from clearnets.autointerp.delphi.adapter import Offline

    return _in_equal_batches(Offline)(
        settings.model,
        max_model_len=settings.ctx_len,
        num_gpus=int(os.environ.get("CLEARNETS_GPUS", "1")),
    )


def _in_equal_batches(offline: type) -> type:
    """delphi's client with batches of equal settings."""

    class InEqualBatches(offline):
        async def process_func(self, batches: list, kwargs: list) -> list:
            answers: list[Any] = [None] * len(batches)
            pending = list(range(len(batches)))
            while pending:
                same = [i for i in pending if kwargs[i] == kwargs[pending[0]]]
                said = await super().process_func(
                    [batches[i] for i in same], [kwargs[i] for i in same]
                )
                for i, answer in zip(same, said):
                    answers[i] = answer
                pending = [i for i in pending if i not in same]
            return answers

    return InEqualBatches
