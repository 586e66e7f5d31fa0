"""What a language model was asked and what it said.

Every exchange has the hash of its request for a name: model, messages and generation settings. One
session serves one unit of a stage. It asks for what it does not know yet, and appends each answer
to `.clearnets/replies/`, at once: a killed run pays for nothing twice. When the unit is complete,
the exchanges that its result follows from, sorted by name, become `transcript.jsonl.gz`: with that
file the unit is made again, byte for byte, without the model.

A request that failed for good stands there with its error in place of a reply. It stays missing
when the unit is made again from the transcript; a run without one asks anew.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearnets import UserError
from clearnets.autointerp.llm.clients import Backend, Messages, Reply, RequestFailed, request_key
from clearnets.autointerp.records import TRANSCRIPT_SAMPLE
from clearnets.pipeline.artifacts import (
    JsonlWriter,
    publish,
    read_json,
    sha256,
    to_line,
    write_bytes,
    write_json,
)
from clearnets.pipeline.paths import REPLIES

TRANSCRIPT = "transcript.jsonl.gz"
# In the unit's own folder, beside some exchanges for readers: the transcript's hash and size.
INFO = "transcript.json"
SAMPLED = 3
# Characters per token, where no tokenizer is at hand: English text in common vocabularies.
CHARACTERS = 4

Connect = Callable[[], Backend]


def read_transcript(path: Path) -> dict[str, dict[str, Any]]:
    """The exchanges of a transcript by name; none where there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        return {entry["key"]: entry for entry in map(json.loads, lines)}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; delete it, and what it holds is asked anew") from None


class Session:
    """The exchanges of one unit. Use it as a context, within one event loop.

    Attributes:
        used: exchanges asked for in this session, by name.
    """

    def __init__(self, model: Mapping[str, Any], placed: Path, connect: Connect) -> None:
        """
        Args:
            model: what names the model in requests (`clients.identity`).
            placed: the folder of the unit's transcript, `paths.transcripts(...)`.
            connect: gives the backend; only called where an answer is not known.
        """
        self._model, self._placed, self._connect = dict(model), placed, connect
        self._local = REPLIES / Path(*placed.parts[2:])
        self._asked: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.used: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Session:
        self._known = read_transcript(self._placed / TRANSCRIPT)
        self._log = JsonlWriter(self._local / "replies.jsonl")
        self._known |= {entry["key"]: entry for entry in self._log.done}
        return self

    def __exit__(self, *_: object) -> None:
        self._log.__exit__()

    async def ask(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """The reply to a request, from the transcript or from the model.

        Raises:
            RequestFailed: the answer is missing.
            UserError: no request can be answered.
        """
        key = request_key(self._model, messages, settings)
        if key not in self.used:
            if key not in self._known:
                # Two that ask the same wait for one answer.
                if key not in self._asked:
                    ask = self._ask_model(key, messages, settings)
                    self._asked[key] = asyncio.ensure_future(ask)
                self._known[key] = await self._asked[key]
            self.used[key] = self._known[key]
        return _reply(self.used[key])

    async def _ask_model(
        self, key: str, messages: Messages, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        entry = {
            "key": key,
            "model": self._model,
            "settings": dict(settings),
            "messages": [dict(message) for message in messages],
        }
        try:
            reply = await self._connect().complete(messages, settings)
        except RequestFailed as failure:
            # Not in the log: the next run asks again.
            return {**entry, "error": str(failure), "attempts": failure.attempts}
        entry["reply"] = {"text": reply.text, "logprobs": reply.logprobs}
        entry["attempts"] = reply.attempts
        self._log.append(entry)
        return entry

    def knows(self, messages: Messages, settings: Mapping[str, Any]) -> bool:
        """Whether an answer is there already."""
        return request_key(self._model, messages, settings) in self._known

    def seal(self, out: Path) -> None:
        """The unit is complete: pack its exchanges, and put a sample into its folder."""
        entries = [self.used[key] for key in sorted(self.used)]
        lines = [to_line(entry).encode() + b"\n" for entry in entries]
        packed = self._local / TRANSCRIPT
        write_bytes(packed, gzip.compress(b"".join(lines), 9, mtime=0))
        write_bytes(out / TRANSCRIPT_SAMPLE, b"".join(lines[:SAMPLED]))
        write_json(out / INFO, {**costs(entries), "sha256": sha256(packed)})


def costs(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What exchanges have cost.

    `missing`: those without an answer. `repeated`: those that ask what another one asks, with
    another seed, because its answer could not be used. `sent`: requests in all, counting each time
    that a server had to be asked again. `characters`: of the prompts, each as often as it was sent,
    and of the answers.
    """
    asked = [tuple(m["content"] for m in entry["messages"]) for entry in entries]
    sent = [entry.get("attempts", 1) for entry in entries]
    said = sum(len(entry["reply"]["text"]) for entry in entries if "reply" in entry)
    prompts = sum(times * sum(map(len, texts)) for times, texts in zip(sent, asked))
    return {
        "exchanges": len(entries),
        "missing": sum("error" in entry for entry in entries),
        "repeated": len(asked) - len(set(asked)),
        "sent": sum(sent),
        "characters": prompts + said,
    }


def put_in_place(unit: Path, placed: Path) -> None:
    """Copy the packed transcript that a complete unit follows from to where DVC keeps it."""
    packed = REPLIES / Path(*placed.parts[2:]) / TRANSCRIPT
    if packed.exists() and sha256(packed) == read_json(unit / INFO)["sha256"]:
        publish(packed, placed / TRANSCRIPT)


def leave_empty(folder: Path) -> None:
    """No model was asked: DVC wants the folder all the same, without transcripts of other runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _reply(entry: Mapping[str, Any]) -> Reply:
    if "error" in entry:
        raise RequestFailed(entry["error"])
    logprobs = entry["reply"]["logprobs"]
    if logprobs is None:
        return Reply(entry["reply"]["text"])
    return Reply(
        entry["reply"]["text"], [(token, [(t, p) for t, p in others]) for token, others in logprobs]
    )


class Count(Session):
    """A session that asks nothing and counts what a run would ask: for `--dry-run`.

    Attributes:
        there: requests whose answers are there.
        to_ask: requests that would be asked.
        tokens: of their messages, estimated by their length.
        longest: tokens that their answers may have together.
    """

    def __init__(self, model: Mapping[str, Any], placed: Path) -> None:
        super().__init__(model, placed, self._refuse)
        self.there, self.to_ask, self.tokens, self.longest = 0, 0, 0, 0
        self._counted: set[str] = set()

    @staticmethod
    def _refuse() -> Backend:
        raise AssertionError("a dry run asks nothing")

    def __enter__(self) -> Count:
        self._known = read_transcript(self._placed / TRANSCRIPT)
        log = self._local / "replies.jsonl"
        if log.exists():
            for line in log.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # A torn last line.
                    continue
                self._known[entry["key"]] = entry
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def ask(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """The reply, if it is there. The same request counts once.

        Raises:
            RequestFailed: it is not there.
        """
        key = request_key(self._model, messages, settings)
        new = key not in self._counted
        self._counted.add(key)
        if self.knows(messages, settings):
            self.there += new
            return await super().ask(messages, settings)
        self.to_ask += new
        self.tokens += new * sum(len(message["content"]) for message in messages) // CHARACTERS
        # What is only read back takes a token of answer.
        self.longest += new * settings.get("max_tokens", 1)
        raise RequestFailed("a dry run asks nothing")


def report(counts: Sequence[Count], *, retries: int = 0) -> list[str]:
    """What `counts` found, as lines. A prompt is asked `retries` times more as long as its answer
    cannot be used."""
    there, to_ask = sum(c.there for c in counts), sum(c.to_ask for c in counts)
    longest = sum(c.longest for c in counts)
    again = f"up to {retries * to_ask:,} more where answers cannot be used, and " if retries else ""
    return [
        f"{to_ask:,} prompts to ask, of about {sum(c.tokens for c in counts):,} tokens (estimated "
        f"at {CHARACTERS} characters each) and at most {longest:,} tokens of answers; "
        f"{again}what a server fails at comes on top",
        f"{there:,} answers are there already",
    ]
