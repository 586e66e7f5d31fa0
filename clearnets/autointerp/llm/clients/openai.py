"""Any OpenAI-compatible server: vLLM, llama.cpp, Ollama, OpenRouter.

The environment says where and how, and changes no result:

- `CLEARNETS_BASE_URL`: the server's address up to `/v1` (http://127.0.0.1:8000/v1);
- `CLEARNETS_CONCURRENCY`: requests at once (8);
- `CLEARNETS_TIMEOUT`: seconds that a reply may take (120);
- `CLEARNETS_RETRIES`: times that a request is sent again (5);
- the key: in the variable that the parameter `api_key_env` names. It goes into the request's header
  and nowhere else.

A request is sent again after 408, 429, 5xx, a dropped connection, a time-out or a reply that is
no completion, after a pause that doubles, or as long as the server asks for (Retry-After).
If all fail, that answer is missing. A server that fails at one request after another, refuses the
key or does not know the model ends the run: what was answered is kept.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.llm.clients import (
    Messages,
    Reply,
    RequestFailed,
    chat_reply,
    chat_request,
    echoed,
)

if TYPE_CHECKING:
    import httpx

    from clearnets.config import OpenAIClient

# Statuses after which the same request may succeed, beside all of the server's own faults (5xx).
AGAIN = (408, 409, 425, 429)
# Requests failed in a row, each after all its retries, after which the server counts as down.
PATIENCE = 5
LONGEST_PAUSE = 60.0
LONGEST_WAIT_ASKED = 600.0


@dataclass(frozen=True)
class Where:
    """What the environment says about a server; nothing of it changes a result."""

    base_url: str = "http://127.0.0.1:8000/v1"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    pause: float = 0.5

    @classmethod
    def from_environment(cls) -> Where:
        """Read the variables.

        Raises:
            UserError: one of them is no number.
        """
        return cls(
            base_url=os.environ.get("CLEARNETS_BASE_URL", cls.base_url).rstrip("/"),
            concurrency=int(_number("CLEARNETS_CONCURRENCY", cls.concurrency, least=1)),
            timeout=_number("CLEARNETS_TIMEOUT", cls.timeout, least=0.001),
            retries=int(_number("CLEARNETS_RETRIES", cls.retries, least=0)),
        )


def _number(name: str, default: float, *, least: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = least - 1
    if not value >= least:
        raise UserError(f"{name}={text!r} must be a number of at least {least:g}")
    return value


class OpenAI:
    """A connection to a server. Use it within one event loop."""

    def __init__(self, model: str, where: Where, *, key: str | None, key_name: str) -> None:
        import httpx

        self._model, self._where, self._key_name = model, where, key_name
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=where.concurrency)
        self._http = httpx.AsyncClient(headers=headers, timeout=where.timeout, limits=limits)
        self._places = asyncio.Semaphore(where.concurrency)
        self._failed_in_a_row = 0

    @classmethod
    def of(cls, client: OpenAIClient) -> OpenAI:
        """By the parameters and the environment."""
        key = os.environ.get(client.api_key_env)
        return cls(client.model, Where.from_environment(), key=key, key_name=client.api_key_env)

    async def complete(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """See `Backend`."""
        path, body, read = self._request(messages, settings)
        async with self._places:
            try:
                reply = await self._persist(path, body, read)
            except RequestFailed as failure:
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= PATIENCE:
                    cure = "run the same command again when it is well"
                    if failure.refused:
                        cure = "is a prompt longer than its context? show fewer windows"
                    raise UserError(
                        f"{self._where.base_url} failed at {PATIENCE} requests in a row "
                        f"({failure}); {cure}"
                    ) from None
                raise
            self._failed_in_a_row = 0
            return reply

    def _request(
        self, messages: Messages, settings: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any], Callable[[Any], Reply]]:
        """Where a request goes, what it says, and what reads the reply."""
        if "echo_from" not in settings:
            return "chat/completions", chat_request(self._model, messages, settings), chat_reply
        text = messages[0]["content"]
        body = {"model": self._model, "prompt": text, "temperature": 0.0}
        # A token more than none: not every server takes 0.
        body |= {"max_tokens": 1, "echo": True, "logprobs": 1}
        return "completions", body, partial(echoed, prompt=text, start=settings["echo_from"])

    async def _persist(
        self, path: str, body: dict[str, Any], read: Callable[[Any], Reply]
    ) -> Reply:
        import httpx

        failure, unreachable = "", False
        for attempt in range(self._where.retries + 1):
            wait = min(self._where.pause * 2**attempt, LONGEST_PAUSE)
            try:
                response = await self._http.post(f"{self._where.base_url}/{path}", json=body)
            except httpx.TransportError as error:
                failure = type(error).__name__
                unreachable = isinstance(error, httpx.ConnectError)
            except httpx.InvalidURL:
                raise UserError(f"CLEARNETS_BASE_URL={self._where.base_url!r} is no URL") from None
            else:
                unreachable = False
                self._refuse(response)
                if response.status_code in AGAIN or response.status_code >= 500:
                    failure = f"status {response.status_code}"
                    wait = max(wait, asked_wait(response.headers.get("retry-after")))
                elif response.status_code != 200:
                    # Not the server's words: they may repeat what they were sent.
                    said = f"status {response.status_code}"
                    raise RequestFailed(said, attempts=attempt + 1, refused=True)
                else:
                    try:
                        return replace(read(response.json()), attempts=attempt + 1)
                    except (ValueError, RequestFailed):
                        failure = "no completion in the reply"
            if attempt < self._where.retries:
                await asyncio.sleep(wait)
        if unreachable:
            raise UserError(
                f"no server answers at {self._where.base_url}; start it, or name another one by "
                "CLEARNETS_BASE_URL"
            )
        raise RequestFailed(failure, attempts=self._where.retries + 1)

    def _refuse(self, response: httpx.Response) -> None:
        """Raise for what no other request would cure either."""
        if response.status_code in (401, 403):
            raise UserError(
                f"{self._where.base_url} refuses the key; put a valid one into ${self._key_name}"
            )
        if response.status_code in (404, 405):
            raise UserError(
                f"{self._where.base_url} has no completions of model {self._model!r}; correct "
                "CLEARNETS_BASE_URL, which ends in /v1 for most servers, or the parameter `model`"
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def asked_wait(retry_after: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number or a date. At most ten minutes."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT_ASKED)
