"""Client of any OpenAI-compatible server: vLLM, llama.cpp, Ollama, OpenRouter.

The environment says where and how, and changes no result:

- `CLEARNETS_BASE_URL`: the server's address up to `/v1` (http://127.0.0.1:8000/v1);
- `CLEARNETS_CONCURRENCY`: requests at once (8);
- `CLEARNETS_TIMEOUT`: seconds that a reply may take (120);
- `CLEARNETS_RETRIES`: times that a request is sent again (5);
- the key: in the variable that the parameter `api_key_env` names. It goes into the request's header
  and nowhere else.

The `openai` package sends a request again after 408, 409, 429, 5xx, a dropped connection or a
time-out, after a pause that doubles, or as long as the server asks for (Retry-After, up to two
minutes). If all attempts fail, or the reply is no completion, that answer is missing. A server that
fails at one request after another, refuses the key or does not know the model ends the run; the
answers that it has given are kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clearnets import UserError
from clearnets.autointerp.llm.completions import (
    Messages,
    Reply,
    RequestFailed,
    chat_reply,
    chat_request,
    echo_request,
    echoed,
)

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

    from clearnets.config import OpenAIClient

# Requests failed in a row, each after all its retries, after which the server counts as down.
PATIENCE = 5


@dataclass(frozen=True)
class Server:
    """What the environment says about a server; nothing of it changes a result."""

    base_url: str = "http://127.0.0.1:8000/v1"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5

    @classmethod
    def from_environment(cls) -> Server:
        """Read the variables.

        Raises:
            UserError: one of them is no number, or the address is no URL.
        """
        base_url = os.environ.get("CLEARNETS_BASE_URL", cls.base_url).rstrip("/")
        if not _is_url(base_url):
            raise UserError(f"CLEARNETS_BASE_URL={base_url!r} is no URL")
        return cls(
            base_url=base_url,
            concurrency=int(_number("CLEARNETS_CONCURRENCY", cls.concurrency, least=1)),
            timeout=_number("CLEARNETS_TIMEOUT", cls.timeout, least=0.001),
            retries=int(_number("CLEARNETS_RETRIES", cls.retries, least=0)),
        )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


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

    def __init__(self, model: str, server: Server, *, key: str | None, key_name: str) -> None:
        import openai

        self._model, self._server, self._key_name = model, server, key_name
        # Without a key the package would send $OPENAI_API_KEY, or refuse to send anything.
        self._headers: dict[str, Any] = {} if key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=server.base_url,
            timeout=server.timeout,
            max_retries=server.retries,
        )
        self._slots = asyncio.Semaphore(server.concurrency)
        self._failed_in_a_row = 0

    @classmethod
    def of(cls, client: OpenAIClient) -> OpenAI:
        """Connect as the parameters and the environment say."""
        key = os.environ.get(client.api_key_env)
        return cls(client.model, Server.from_environment(), key=key, key_name=client.api_key_env)

    async def complete(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """See `Backend`."""
        async with self._slots:
            try:
                reply = await self._send(messages, settings)
            except RequestFailed as failure:
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= PATIENCE:
                    cure = "run the same command again when it is well"
                    if failure.refused:
                        cure = "is a prompt longer than its context? show fewer windows"
                    raise UserError(
                        f"{self._server.base_url} failed at {PATIENCE} requests in a row "
                        f"({failure}); {cure}"
                    ) from None
                raise
            self._failed_in_a_row = 0
            return reply

    async def _send(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        import openai

        start = settings.get("echo_from")
        try:
            if start is None:
                create = self._client.chat.completions.with_raw_response.create
                request = chat_request(self._model, messages, settings)
            else:
                create = self._client.completions.with_raw_response.create
                request = echo_request(self._model, messages)
            response: Any = await create(**request, extra_headers=self._headers)
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIConnectionError as error:
            raise self._lost(error) from None
        attempts = response.retries_taken + 1
        try:
            body = response.http_response.json()
            read = (
                chat_reply(body) if start is None else echoed(body, messages[0]["content"], start)
            )
        except (ValueError, RequestFailed):
            raise RequestFailed("no completion in the reply", attempts=attempts) from None
        return replace(read, attempts=attempts)

    def _refusal(self, error: APIStatusError) -> Exception:
        """Return what a status means: a missing answer, or the end of the run where no other
        request would fare better. It never quotes the server, which may repeat the key."""
        status, server = error.status_code, self._server.base_url
        if status in (401, 403):
            return UserError(f"{server} refuses the key; put a valid one into ${self._key_name}")
        if status in (404, 405):
            return UserError(
                f"{server} has no completions of model {self._model!r}; correct "
                "CLEARNETS_BASE_URL, which ends in /v1 for most servers, or the parameter `model`"
            )
        refused = status < 500 and status not in (408, 409, 429)
        return RequestFailed(f"status {status}", attempts=_attempts(error), refused=refused)

    def _lost(self, error: APIConnectionError) -> Exception:
        """Return what a lost connection means: a missing answer, or that there is no server."""
        reason = type(error.__cause__ or error).__name__
        if reason == "ConnectError":
            return UserError(
                f"no server answers at {self._server.base_url}; start it, or name another one by "
                "CLEARNETS_BASE_URL"
            )
        return RequestFailed(reason, attempts=_attempts(error))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _attempts(error: APIStatusError | APIConnectionError) -> int:
    return int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
