"""Requests to a language model and its replies: types, names, and OpenAI's JSON format of both.

Model, file and generation settings are parameters and name a request (`request_key`). Where a
server listens, how many requests run at once and how long one may take change no result: they come
from the environment (see `clearnets.autointerp.llm.openai_client`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clearnets import UserError
from clearnets.pipeline.artifacts import fingerprint

if TYPE_CHECKING:
    from clearnets.config import ClientSettings

Messages = Sequence[Mapping[str, str]]
# Per generated token: its text, and the text and log-probability of its likeliest alternatives.
LogProbs = list[tuple[str, list[tuple[str, float]]]]


class RequestFailed(Exception):
    """Raised where a request has no answer, after all retries: its answer is missing.

    Attributes:
        attempts: how often it was sent.
        refused: the server would refuse it again.
    """

    def __init__(self, reason: str, *, attempts: int = 1, refused: bool = False) -> None:
        super().__init__(reason)
        self.attempts, self.refused = attempts, refused


@dataclass(frozen=True)
class Reply:
    """The text of an answer, its log-probabilities, and how often the request was sent."""

    text: str
    logprobs: LogProbs | None = None
    attempts: int = 1


class Backend(Protocol):
    """A connection to one model."""

    async def complete(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """Return the model's reply to a chat.

        Args:
            messages: role and content of each.
            settings: temperature, max_tokens, seed, and logprobs (alternatives per token, 0: none).
                Or `echo_from` alone: nothing is generated, and the reply has the log-probability of
                each token of the one message's text from this character on.

        Raises:
            RequestFailed: this request cannot be answered.
            UserError: no request can: the server is down, the key is wrong, the model is unknown.
        """
        ...

    async def close(self) -> None:
        """Free what the backend holds."""
        ...


def identity(client: ClientSettings) -> dict[str, Any]:
    """Return the settings of a client that change its answers: all but the name of the key's
    variable and the place of a file whose hash is known."""
    where = {"model"} if client.kind == "gguf" else {"api_key_env"}
    return client.model_dump(mode="json", exclude=where)


def request_key(model: Mapping[str, Any], messages: Messages, settings: Mapping[str, Any]) -> str:
    """Return the hash of model, messages and generation settings, which names a request."""
    return fingerprint([dict(model), [dict(m) for m in messages], dict(settings)])


def chat_request(model: str, messages: Messages, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request for an OpenAI chat completion."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "temperature": settings["temperature"],
        "max_tokens": settings["max_tokens"],
        "seed": settings["seed"],
    }
    if settings["logprobs"]:
        body |= {"logprobs": True, "top_logprobs": settings["logprobs"]}
    return body


def echo_request(model: str, messages: Messages) -> dict[str, Any]:
    """Return the body of a request for the log-probabilities of a prompt's tokens."""
    # One token more than wanted: not every server takes 0.
    body = {"model": model, "prompt": messages[0]["content"], "temperature": 0.0}
    return body | {"max_tokens": 1, "echo": True, "logprobs": 1}


def chat_reply(body: Any) -> Reply:
    """Return the first choice of an OpenAI chat completion.

    Raises:
        RequestFailed: the body is something else.
    """
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
        tokens = (choice.get("logprobs") or {}).get("content")
        if not isinstance(text, str):
            raise RequestFailed("the reply holds no text")
        if tokens is None:
            return Reply(text)
        return Reply(text, [(str(t["token"]), _others(t["top_logprobs"])) for t in tokens])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise RequestFailed("the reply is no chat completion") from None


def _others(tokens: Any) -> list[tuple[str, float]]:
    return [(str(token["token"]), float(token["logprob"])) for token in tokens]


def echoed(body: Any, prompt: str, start: int) -> Reply:
    """Return the log-probabilities of a prompt's tokens from a text completion with `echo`.

    Tokens that begin before the character `start` are left out.

    Raises:
        RequestFailed: the body is something else, or its tokens' texts are not those of the prompt.
        UserError: the server does not give the prompt back.
    """
    try:
        choice = body["choices"][0]
        text, logprobs = choice["text"], choice.get("logprobs")
        if not text.startswith(prompt) or not logprobs:
            raise UserError(
                "this server does not give the log-probabilities of a prompt (`echo` of OpenAI's "
                "completions), which the scorer surprisal needs; use one that does, such as vLLM"
            )
        tokens = [(str(t), p) for t, p in zip(logprobs["tokens"], logprobs["token_logprobs"])]
        # From the end: a server may begin with a token that is not in the text.
        joined = "".join(token for token, _ in tokens)
        if not joined.endswith(text[start:]):
            raise RequestFailed("the tokens of the reply are not those of the prompt")
        place = len(text) - len(joined)
        found = []
        for token, logprob in tokens:
            if start <= place and place + len(token) <= len(prompt):
                found.append((token, [(token, float(logprob))]))
            place += len(token)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise RequestFailed("the reply is no text completion") from None
    if not found:
        raise RequestFailed("no token of the reply lies in the window")
    return Reply("", found)
