"""Transcripts of a language model's exchanges (requests and replies), and replay from them.

An exchange is named by the hash of its request: model, messages and generation settings. One
session serves one unit of a stage. It sends the requests whose replies it does not have, and
appends each reply to `.clearnets/replies/` at once: a killed run pays for nothing twice. When the
unit is complete, the exchanges that it used, sorted by name, become `transcript.jsonl.gz`: with
that file the unit is made again, byte for byte, without the model.

A request that failed after all retries is recorded with its error in place of a reply. It stays
missing when the unit is made again from the transcript; a run without one sends it again.
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
from clearnets.autointerp.llm.completions import (
    Backend,
    Messages,
    Reply,
    RequestFailed,
    request_key,
)
from clearnets.autointerp.records import TRANSCRIPT_SAMPLE
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    JsonlWriter,
    Unit,
    publish,
    read_json,
    sha256,
    to_line,
    write_bytes,
    write_json,
)

TRANSCRIPT = "transcript.jsonl.gz"
# In the unit's own folder, with a sample of exchanges: the transcript's hash and costs.
INFO = "transcript.json"
SAMPLED = 3
# Characters per token, where no tokenizer is at hand: English text in common vocabularies.
CHARACTERS = 4

Connect = Callable[[], Backend]


def folder_of(unit: Unit) -> Path:
    """Return the folder where DVC keeps the transcript of a unit of `explain`, `score` or
    `qualify`."""
    names = unit.settings
    if "family" not in names:
        return paths.transcripts_of(unit.stage, "judge")
    return paths.transcripts(unit.stage, names["family"], names["seed"], names["hookpoint"])


def read_transcript(path: Path) -> dict[str, dict[str, Any]]:
    """Return the exchanges of a transcript by name; none where there is no file.

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
            model: what names the model in requests (`completions.identity`).
            placed: the folder of the unit's transcript, by `folder_of`.
            connect: gives the backend; only called where a reply is not known.
        """
        self._model, self._placed, self._connect = dict(model), placed, connect
        self._local = paths.REPLIES / Path(*placed.parts[2:])
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
        """Return the reply to a request, from the transcript or from the model.

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

    def seal(self, out: Path) -> None:
        """Pack the exchanges of the complete unit, and write a sample into its folder `out`."""
        entries = [self.used[key] for key in sorted(self.used)]
        lines = [to_line(entry).encode() + b"\n" for entry in entries]
        packed = self._local / TRANSCRIPT
        write_bytes(packed, gzip.compress(b"".join(lines), 9, mtime=0))
        write_bytes(out / TRANSCRIPT_SAMPLE, b"".join(lines[:SAMPLED]))
        write_json(out / INFO, {**costs(entries), "sha256": sha256(packed)})


def costs(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return what exchanges have cost.

    `missing`: those without a reply. `repeated`: those with the prompt of another one and another
    seed, sent because its reply could not be used. `sent`: requests in all, retries included.
    `characters`: of the prompts, each as often as it was sent, and of the replies.
    """
    asked = [tuple(m["content"] for m in entry["messages"]) for entry in entries]
    sent = [entry.get("attempts", 1) for entry in entries]
    replies = sum(len(entry["reply"]["text"]) for entry in entries if "reply" in entry)
    prompts = sum(times * sum(map(len, texts)) for times, texts in zip(sent, asked))
    return {
        "exchanges": len(entries),
        "missing": sum("error" in entry for entry in entries),
        "repeated": len(asked) - len(set(asked)),
        "sent": sum(sent),
        "characters": prompts + replies,
    }


def put_in_place(unit: Path, placed: Path) -> None:
    """Copy the packed transcript of a complete unit to the folder `placed`, where DVC keeps it."""
    packed = paths.REPLIES / Path(*placed.parts[2:]) / TRANSCRIPT
    if packed.exists() and sha256(packed) == read_json(unit / INFO)["sha256"]:
        publish(packed, placed / TRANSCRIPT)


def leave_empty(folder: Path) -> None:
    """Empty the folder of transcripts that DVC expects, where no model is asked."""
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
    """A session that sends nothing and counts what a run would send, for `--dry-run`.

    Attributes:
        there: requests whose replies are known.
        to_ask: requests that would be sent.
        tokens: of their messages, estimated by their length.
        longest: tokens that their replies may have together.
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
        """Return the reply, if it is known. The same request counts once.

        Raises:
            RequestFailed: it is not known.
        """
        key = request_key(self._model, messages, settings)
        new = key not in self._counted
        self._counted.add(key)
        if key in self._known:
            self.there += new
            return await super().ask(messages, settings)
        self.to_ask += new
        self.tokens += new * sum(len(message["content"]) for message in messages) // CHARACTERS
        # An echoed prompt takes one token of reply.
        self.longest += new * settings.get("max_tokens", 1)
        raise RequestFailed("a dry run asks nothing")


def report(counts: Sequence[Count], *, retries: int = 0) -> list[str]:
    """Return the sums of `counts` as lines of text. A prompt is sent up to `retries` times more
    where its reply cannot be used."""
    there, to_ask = sum(c.there for c in counts), sum(c.to_ask for c in counts)
    longest = sum(c.longest for c in counts)
    again = f"up to {retries * to_ask:,} more where answers cannot be used, and " if retries else ""
    return [
        f"{to_ask:,} prompts to ask, of about {sum(c.tokens for c in counts):,} tokens (estimated "
        f"at {CHARACTERS} characters each) and at most {longest:,} tokens of answers; "
        f"{again}what a server fails at comes on top",
        f"{there:,} answers are there already",
    ]
