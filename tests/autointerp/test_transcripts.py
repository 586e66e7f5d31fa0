"""Exchanges are kept, replayed without the model, and paid for once."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from clearnets import UserError
from clearnets.autointerp.llm.completions import Reply, RequestFailed
from clearnets.autointerp.llm.transcripts import (
    INFO,
    TRANSCRIPT,
    Count,
    Session,
    put_in_place,
    read_transcript,
    report,
)
from clearnets.autointerp.records import TRANSCRIPT_SAMPLE
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, sha256

MODEL = {"kind": "openai", "model": "m"}
SETTINGS = {"temperature": 0.0, "max_tokens": 9, "seed": 1, "logprobs": 0}
PLACED = paths.transcripts("explain", "native", 0, "layers.0.mlp")
REPLIES = Path(".clearnets/replies/explain/native/seed-0/layers.0.mlp")


class Model:
    """Repeats what it is asked, or fails at some of it."""

    def __init__(self, *bad: str, stop: str = "") -> None:
        self.bad, self.stop, self.asked = bad, stop, []

    async def complete(self, messages, settings):
        text = messages[-1]["content"]
        self.asked.append(text)
        await asyncio.sleep(0)
        if text == self.stop:
            raise UserError("the server is down")
        if text in self.bad:
            raise RequestFailed("status 500")
        return Reply(f"{text}!", [(text, [(text, -0.5), ("other", -1.25)])])

    async def close(self):
        pass


def chat(text: str):
    return [{"role": "user", "content": text}]


def session(model: Model | None) -> Session:
    def connect():
        assert model is not None, "the model was asked"
        return model

    return Session(MODEL, PLACED, connect)


def converse(model: Model | None, *texts: str, out: Path = Path("out")) -> list[str]:
    """What is said, with the failures, of a session that completes its unit."""

    async def ask(one, text):
        try:
            return (await one.ask(chat(text), SETTINGS)).text
        except RequestFailed as failure:
            return f"failed: {failure}"

    async def run():
        with session(model) as one:
            said = await asyncio.gather(*(ask(one, text) for text in texts))
            one.seal(out)
            return said

    said = asyncio.run(run())
    put_in_place(out, PLACED)
    return said


def test_a_transcript_replays_without_the_model_byte_for_byte():
    said = converse(Model("b"), "c", "a", "b")
    assert said == ["c!", "a!", "failed: status 500"]
    first = (PLACED / TRANSCRIPT).read_bytes(), (Path("out") / TRANSCRIPT_SAMPLE).read_bytes()
    for path in REPLIES.iterdir():
        path.unlink()
    # The failure, too: what follows from the transcript does not depend on today's server.
    assert converse(None, "a", "b", "c") == ["a!", "failed: status 500", "c!"]
    assert (
        (PLACED / TRANSCRIPT).read_bytes(),
        (Path("out") / TRANSCRIPT_SAMPLE).read_bytes(),
    ) == first


def test_a_transcript_holds_what_was_used_sorted_by_name_and_no_time():
    converse(Model(), "a", "b", "c", "d")
    converse(None, "a", "c", "d")
    data = (PLACED / TRANSCRIPT).read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    assert [entry["messages"][-1]["content"] for entry in lines] != ["a", "c", "d"]
    assert [entry["key"] for entry in lines] == sorted(entry["key"] for entry in lines)
    assert {entry["messages"][-1]["content"] for entry in lines} == {"a", "c", "d"}
    assert data[4:8] == b"\0\0\0\0"
    assert lines[0]["reply"]["logprobs"][0][1][1] == ["other", -1.25]
    sample = [
        json.loads(line) for line in (Path("out") / TRANSCRIPT_SAMPLE).read_bytes().splitlines()
    ]
    assert sample == lines[:3]


def test_a_unit_says_which_transcript_it_follows_from_and_takes_no_other():
    converse(Model("b"), "a", "b")
    data = (PLACED / TRANSCRIPT).read_bytes()
    hashed = sha256(PLACED / TRANSCRIPT)
    # Two prompts of a character, and the answer "a!".
    costs = {"exchanges": 2, "missing": 1, "repeated": 0, "sent": 2, "characters": 4}
    assert read_json(Path("out") / INFO) == {**costs, "sha256": hashed}
    # A later session packed another, but its unit did not come into place.
    converse(Model(), "c", out=Path("later"))
    (PLACED / TRANSCRIPT).write_bytes(data)
    put_in_place(Path("out"), PLACED)
    assert (PLACED / TRANSCRIPT).read_bytes() == data


def test_equal_requests_are_asked_once():
    model = Model()
    assert converse(model, "a", "a", "b", "a") == ["a!", "a!", "b!", "a!"]
    assert sorted(model.asked) == ["a", "b"]


def test_a_stopped_run_pays_for_nothing_twice():
    model = Model("bad", stop="stop")

    async def stopped():
        with session(model) as one:
            for text in ("a", "b", "bad", "stop"):
                with suppress(RequestFailed):
                    await one.ask(chat(text), SETTINGS)

    with pytest.raises(UserError, match="down"):
        asyncio.run(stopped())
    # Killed in the middle of a line, too.
    with (REPLIES / "replies.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')
    again = Model()
    assert converse(again, "a", "b", "bad", "stop") == ["a!", "b!", "bad!", "stop!"]
    # What failed is asked anew.
    assert again.asked == ["bad", "stop"]
    assert not (PLACED / "replies.jsonl").exists()


def test_a_damaged_transcript_is_one_line():
    converse(Model(), "a")
    path = PLACED / TRANSCRIPT
    for data in (path.read_bytes()[:-9], b"nonsense", gzip.compress(b"{}\n")):
        path.write_bytes(data)
        with pytest.raises(UserError, match="damaged; delete it"):
            read_transcript(path)
    assert read_transcript(Path("nowhere")) == {}


def test_a_dry_run_counts_and_asks_and_writes_nothing():
    converse(Model("bad"), "a", "bad")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    async def count():
        with Count(MODEL, PLACED) as one:
            assert (await one.ask(chat("a"), SETTINGS)).text == "a!"
            for text in ("x" * 400, "y" * 40):
                with pytest.raises(RequestFailed):
                    await one.ask(chat(text), SETTINGS)
            return one

    counted = asyncio.run(count())
    assert (counted.there, counted.to_ask, counted.tokens) == (1, 2, 110)
    first, second = report([counted, counted])
    assert first.startswith("4 prompts to ask, of about 220 tokens (estimated")
    assert "36 tokens of answers" in first
    assert second == "2 answers are there already"
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_what_repetitions_cost_is_counted_and_kept():
    """Of a server that is asked again, and of an explainer that asks again with another seed."""

    class Tired(Model):
        async def complete(self, messages, settings):
            if messages[-1]["content"] == "bad":
                raise RequestFailed("status 500", attempts=4)
            reply = await super().complete(messages, settings)
            return replace(reply, attempts=3 if settings["seed"] == 2 else 1)

    async def run(model, out):
        with session(model) as one:
            for text, seed in (("hello", 1), ("hello", 2), ("bad", 1)):
                with suppress(RequestFailed):
                    await one.ask(chat(text), SETTINGS | {"seed": seed})
            one.seal(out)
        put_in_place(out, PLACED)
        return {**read_json(out / INFO), "sha256": None}

    found = asyncio.run(run(Tired(), Path("out")))
    assert found == {
        "exchanges": 3, "missing": 1, "repeated": 1, "sent": 1 + 3 + 4, "sha256": None,
        "characters": 1 * 5 + 3 * 5 + 4 * 3 + 2 * len("hello!"),
    }  # fmt: skip
    # What was paid is known when the unit is made again from the transcript, too.
    assert asyncio.run(run(None, Path("again"))) == found
