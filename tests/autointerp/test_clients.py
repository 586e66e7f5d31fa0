"""The client of OpenAI-compatible servers against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clearnets import UserError
from clearnets.autointerp.llm.completions import Reply, RequestFailed, identity, request_key
from clearnets.autointerp.llm.openai_client import PATIENCE, OpenAI, Server
from clearnets.config import DelphiScorer, GGUFClient, OpenAIClient

SETTINGS = {"temperature": 0.0, "max_tokens": 9, "seed": 1, "logprobs": 0}
KEY = "sk-very-secret"
# Where a server asks to be left alone for a moment, the client's own pauses, of half a second and
# more, do not come into play.
SOON = {"retry-after-ms": "1"}
BUSY, FAILED = (429, b"", SOON), (500, b"oops", SOON)


def completion(text: str | None, **more) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, **more}]}).encode()


class Misbehaving:
    """A server on the loopback that does, one request after the other, what it is told.

    Each step is a status, a body and headers, or a word: `drop` the connection, be `slow`, or
    `cut` the body off.
    """

    def __init__(self, *steps) -> None:
        self.steps, self.requests, self.times = list(steps), [], []
        self.busy = self.busiest = 0
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    server.requests.append((self.path, headers, body))
                    server.times.append(time.monotonic())
                    step = server.steps.pop(0) if len(server.steps) > 1 else server.steps[0]
                    server.busy += 1
                    server.busiest = max(server.busiest, server.busy)
                try:
                    self.answer(step)
                finally:
                    with lock:
                        server.busy -= 1

            def answer(self, step):
                if step == "drop":
                    self.close_connection = True
                    return
                if step == "slow":
                    time.sleep(1.0)
                if step == "busy":
                    time.sleep(0.05)
                words = ("slow", "busy", "cut")
                status, body, headers = (200, completion("ok"), {}) if step in words else step
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                length = len(body) + (50 if step == "cut" else 0)
                self.send_header("content-length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def handle(self):
                with suppress(OSError):  # The client went away.
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self.settings = Server(base_url=url, timeout=0.5, retries=3)

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


OK = (200, completion("fine"), {})


CHAT = [{"role": "user", "content": "?"}]


def ask(server: Server, *, times=1, key: str | None = KEY, messages=CHAT, settings=SETTINGS):
    """The replies to some requests at once; failures among them."""

    async def run():
        client = OpenAI("some-model", server, key=key, key_name="SOME_KEY")
        jobs = [client.complete(messages, settings) for _ in range(times)]
        try:
            return await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_request_is_what_openai_documents():
    with Misbehaving(OK) as server:
        assert ask(server.settings) == [Reply("fine")]
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "?"}],
        "temperature": 0.0,
        "max_tokens": 9,
        "seed": 1,
    }


def test_no_key_no_header(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Misbehaving(OK) as server:
        ask(server.settings, key=None)
    assert "authorization" not in server.requests[0][1]


def test_log_probabilities_are_asked_for_and_read():
    top = [{"token": "1", "logprob": -0.1}, {"token": "0", "logprob": -2.5}]
    content = [{"token": "1", "logprob": -0.1, "top_logprobs": top}]
    with Misbehaving((200, completion("1", logprobs={"content": content}), {})) as server:
        (reply,) = ask(server.settings, settings={**SETTINGS, "logprobs": 5})
    assert reply.logprobs == [("1", [("1", -0.1), ("0", -2.5)])]
    assert server.requests[0][2]["top_logprobs"] == 5


@pytest.mark.parametrize("step", [BUSY, FAILED, "drop", "slow", "cut"])
def test_what_may_be_cured_is_asked_again(step):
    with Misbehaving(step, OK) as server:
        assert ask(server.settings) == [Reply("fine", attempts=2)]
    assert len(server.requests) == 2


def test_what_is_not_cured_is_a_missing_answer():
    with Misbehaving(FAILED) as server:
        (failure,) = ask(server.settings)
    assert isinstance(failure, RequestFailed)
    assert len(server.requests) == failure.attempts == 1 + server.settings.retries
    with Misbehaving("slow") as server:
        (failure,) = ask(replace(server.settings, retries=0))
    assert (str(failure), failure.attempts) == ("ReadTimeout", 1)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b"{}",
        b'{"choices": []}',
        b'[1, "x"]',
        completion("x").replace(b'"x"', b"null"),
    ],
)
def test_a_reply_that_is_no_completion_is_a_missing_answer(body):
    with Misbehaving((200, body, {})) as server:
        (failure,) = ask(server.settings)
    assert isinstance(failure, RequestFailed)
    assert str(failure) == "no completion in the reply"


def test_a_request_that_is_refused_is_not_asked_again():
    with Misbehaving((400, KEY.encode(), {}), OK) as server:
        failure, _ = ask(replace(server.settings, concurrency=1), times=2)
    assert isinstance(failure, RequestFailed)
    assert str(failure) == "status 400"
    assert len(server.requests) == 2


def test_refusals_in_a_row_name_another_cure_than_waiting():
    with Misbehaving((400, b"", {})) as server:
        found = ask(replace(server.settings, concurrency=1), times=PATIENCE)
    assert isinstance(found[-1], UserError)
    assert "longer than its context" in str(found[-1])
    assert "is well" not in str(found[-1])


def test_retry_after_is_honoured():
    with Misbehaving((429, b"", {"Retry-After": "1"}), OK) as server:
        assert ask(server.settings) == [Reply("fine", attempts=2)]
    assert server.times[1] - server.times[0] >= 1


def test_no_more_requests_run_at_once_than_allowed():
    with Misbehaving("busy") as server:
        assert len(ask(replace(server.settings, concurrency=3), times=9)) == 9
    assert server.busiest == 3


@pytest.mark.parametrize(
    ("step", "words"),
    [((401, b"", {}), "SOME_KEY"), ((403, b"", {}), "SOME_KEY"), ((404, b"", {}), "some-model")],
)
def test_what_no_request_would_cure_ends_the_run_in_one_line(step, words):
    with Misbehaving(step) as server:
        (error,) = ask(server.settings)
    assert isinstance(error, UserError)
    assert words in str(error)
    assert KEY not in str(error)
    assert len(server.requests) == 1


def test_no_server_ends_the_run():
    with Misbehaving(OK) as server:
        gone = replace(server.settings, retries=0)
    (error,) = ask(gone)
    assert isinstance(error, UserError)
    assert "CLEARNETS_BASE_URL" in str(error)


def test_a_server_that_fails_all_the_time_ends_the_run():
    with Misbehaving(FAILED) as server:
        found = ask(replace(server.settings, retries=0, concurrency=1), times=PATIENCE)
        assert [type(f) for f in found] == [RequestFailed] * (PATIENCE - 1) + [UserError]
    # One answer in between, and it goes on.
    with Misbehaving(*[FAILED] * 3, OK, *[FAILED] * 3, OK) as server:
        found = ask(replace(server.settings, retries=0, concurrency=1), times=8)
        assert [type(f) for f in found].count(RequestFailed) == 6


def test_the_environment_says_where_and_how(monkeypatch):
    assert Server.from_environment() == Server()
    for name, value in {"BASE_URL": "http://x/v1/", "CONCURRENCY": "3", "TIMEOUT": "1.5"}.items():
        monkeypatch.setenv(f"CLEARNETS_{name}", value)
    assert Server.from_environment() == Server("http://x/v1", 3, 1.5)
    for value in ("0", "many", "nan"):
        monkeypatch.setenv("CLEARNETS_CONCURRENCY", value)
        with pytest.raises(UserError, match="CLEARNETS_CONCURRENCY"):
            Server.from_environment()
    for value in ("localhost:8000/v1", "http://", "http://[/v1"):
        monkeypatch.setenv("CLEARNETS_BASE_URL", value)
        with pytest.raises(UserError, match="is no URL"):
            Server.from_environment()


def test_what_changes_an_answer_names_the_request():
    def key(client, messages=({"role": "user", "content": "?"},), **settings):
        return request_key(identity(client), messages, SETTINGS | settings)

    base = OpenAIClient(kind="openai", model="m")
    assert key(base) == key(base.model_copy(update={"api_key_env": "OTHER"}))
    different = [
        key(base.model_copy(update={"model": "n"})),
        key(base.model_copy(update={"revision": "2"})),
        key(base, messages=({"role": "user", "content": "!"},)),
        *(key(base, **{name: 7}) for name in SETTINGS),
    ]
    assert len({key(base), *different}) == 1 + len(different)
    here, there = (GGUFClient(kind="gguf", model=x, sha256="0" * 64) for x in ("a", "b"))
    assert key(here) == key(there)


def echo(tokens, *, text=None, logprobs=True) -> tuple:
    """A text completion as vLLM gives it with `echo`: the prompt's tokens, then those said."""
    found = {"tokens": [t for t, _ in tokens], "token_logprobs": [p for _, p in tokens]}
    text = "".join(t for t, _ in tokens if t != "<s>") if text is None else text
    choice = {"text": text, "logprobs": found if logprobs else None}
    return (200, json.dumps({"choices": [choice]}).encode(), {})


BEFORE, WINDOW = "About: foxes\n", "a fox ran"


def weigh(*steps):
    """The reply to a request for the log-probabilities of WINDOW behind BEFORE."""
    message = {"role": "user", "content": BEFORE + WINDOW}
    with Misbehaving(*steps) as server:
        (reply,) = ask(server.settings, messages=[message], settings={"echo_from": len(BEFORE)})
    return reply, server.requests


@pytest.mark.parametrize("first", [[], [("<s>", None)]])
def test_log_probabilities_of_a_prompt_are_those_of_the_window_alone(first):
    """The first token of a text has none; some servers begin with one that is not in the text."""
    tokens = [*first, ("About", None if not first else -4.0), (": foxes", -5.0), ("\n", -1.0)]
    tokens += [("a", -2.0), (" fox", -0.5), (" ran", -1.5), (" away", -3.0)]
    reply, requests = weigh(FAILED, echo(tokens))
    assert reply == Reply("", [(t, [(t, p)]) for t, p in tokens[-4:-1]], attempts=2)
    path, _, body = requests[-1]
    assert path == "/v1/completions"
    assert body == {
        "model": "some-model", "prompt": BEFORE + WINDOW, "temperature": 0.0, "max_tokens": 1,
        "echo": True, "logprobs": 1,
    }  # fmt: skip


def test_a_token_across_the_border_is_left_out():
    tokens = [("About", None), (": foxes", -5.0), ("\na", -2.0), (" fox ran", -0.5), ("!", -1.0)]
    reply, _ = weigh(echo(tokens))
    assert reply.logprobs == [(" fox ran", [(" fox ran", -0.5)])]


@pytest.mark.parametrize(
    "step", [echo([(" away", -1.0)]), echo([(BEFORE + WINDOW, -1.0)], logprobs=False)]
)
def test_a_server_that_does_not_give_a_prompt_back_is_refused_in_one_line(step):
    error, _ = weigh(step)
    assert isinstance(error, UserError)
    assert "surprisal needs; use one that does, such as vLLM" in str(error)


def test_tokens_that_are_not_the_prompts_are_a_missing_answer():
    tokens = [("About: foxes\n", None), ("bytes:\\xe2", -1.0), (" fox ran", -1.0)]
    failure, _ = weigh(echo(tokens, text=BEFORE + WINDOW))
    assert isinstance(failure, RequestFailed)


def test_a_client_without_log_probabilities_of_a_prompt_is_refused():
    client = {"kind": "gguf", "model": "m", "sha256": "0" * 64}
    values = {"kind": "delphi", "scorers": ("detection", "surprisal"), "client": client}
    with pytest.raises(ValueError, match="the client gguf gives no log-probabilities"):
        DelphiScorer.model_validate(values)
