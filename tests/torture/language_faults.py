"""Explain and judge with a language model behind a server that is slow, drops, refuses, talks
nonsense or goes away."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import disturbed
import kills
from reading_model import Reader
from ruamel.yaml import YAML

from clearnets.pipeline.artifacts import read_jsonl

STAGES = (["explain", "--aux", "native"], ["qualify"], ["score", "--aux", "native"])
ROOMS = ("explain/native", "score/native", "qualify", "transcripts")
TIMEOUT = 2
PASSING = ("slow", "too slow", "dropped", "torn", "429", "500", "503")
"""Faults after which a request that is sent again is answered."""
NONSENSE = ("no JSON", "no choices", "no answer", "empty")


class Server(ThreadingHTTPServer):
    """A model that answers every prompt always alike, where no fault is drawn for the request.

    Attributes:
        given: how often each fault was.
    """

    def __init__(self, seed: int, kinds: tuple[str, ...], share: float, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.seed, self.kinds, self.share = seed, kinds, share
        self.given: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()

    def fault(self, body: bytes) -> str:
        """Return what befalls a request: nothing, at the latest when it is sent for the third
        time, unless it is nonsense, which stays."""
        key = hashlib.sha256(body).hexdigest()
        draw = Random(f"{self.seed} {key}")
        self.attempts[key] += 1
        if not self.kinds or draw.random() > self.share:
            return ""
        kind, times = draw.choice(self.kinds), draw.randint(1, 2)
        if kind in PASSING and self.attempts[key] > times:
            return ""
        self.given[kind] += 1
        return kind


class Handler(BaseHTTPRequestHandler):
    """Answers a request, or does not."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.server.fault(body)
        if kind.endswith("slow"):
            time.sleep(TIMEOUT + 0.5 if kind == "too slow" else 0.3)
        if kind == "dropped":
            return
        if kind.isdigit():
            self._send(b'{"error": "busy"}', int(kind))
            return
        text = Reader().answer(json.loads(body)["messages"][-1]["content"])
        text = {"no answer": "I cannot help with that.", "empty": ""}.get(kind, text)
        said = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        said = {"no JSON": b"<html>Bad gateway</html>", "no choices": b"[]"}.get(kind, said)
        self._send(said, 200, torn=kind == "torn")

    def _send(self, data: bytes, status: int, *, torn: bool = False) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", "1")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if torn else data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # The client went away.
            super().handle()


@contextmanager
def serving(server: Server) -> Iterator[dict[str, str]]:
    """Serve until the end of the block; gives the variables that name the server."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "CLEARNETS_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
            "CLEARNETS_TIMEOUT": str(TIMEOUT),
        }
    finally:
        server.shutdown()
        server.server_close()


def settle(made: Path, folder: Path) -> Path:
    """A copy of a finished checkout whose parameters ask a language model."""
    place = disturbed.copy(made, folder)
    yaml = YAML()
    values = yaml.load(place / "params.yaml")
    client = {"kind": "openai", "model": "reader"}
    delphi = {"kind": "delphi", "client": client}
    values["explain"] |= {"latents": 6, "explainer": {**delphi, "explainer": "default"}}
    judge = {**delphi, "scorers": ["detection", "fuzzing"], "reasked": 2}
    values["score"]["scorers"] = [judge]
    values["qualify"] |= {"concepts": 2, "windows": 8}
    yaml.dump(values, place / "params.yaml")
    _forget(place)
    return place


def _forget(place: Path) -> None:
    for name in ROOMS:
        shutil.rmtree(place / "artifacts" / name, ignore_errors=True)
    for name in ("replies", "work"):
        shutil.rmtree(place / ".clearnets" / name, ignore_errors=True)


def ask(place: Path, log: Path, variables: dict[str, str]) -> int:
    """Run the stages, up to one that fails; return its exit code."""
    for words in STAGES:
        if code := disturbed.run(["clearnets", *words], place, log, **variables):
            return code
    return 0


def records(place: Path) -> dict[str, bytes]:
    """Return what the stages have written, but for how often something was asked."""
    paths = [path for room in ROOMS for path in (place / "artifacts" / room).rglob("*")]
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in paths
        if path.is_file() and "transcript" not in str(path) and path.name != "manifest.json"
    }


def disturb(made: Path, seed: int) -> dict[str, Any]:
    """Return what came of it: faults of the server by kind, and what was wrong."""
    place = settle(made, made.with_name("language"))
    log = place.with_suffix(".log")
    found: list[str] = []
    with serving(Server(seed, (), 0)) as variables:
        found += ["an undisturbed run failed"] if ask(place, log, variables) else []
    expected = records(place)
    _forget(place)
    given, interrupted = Counter[str](), 0
    passing = Server(seed, PASSING, 0.2)
    with serving(passing) as variables:
        interrupted += _kill_and_wait(place, log, variables, Random(seed))
        found += ["a run of faults that pass failed"] if ask(place, log, variables) else []
    given += passing.given
    found += [] if records(place) == expected else ["other records after faults that pass"]
    _forget(place)
    found += _goes_away(place, log, expected, seed)
    _forget(place)
    senseless = Server(seed, PASSING + NONSENSE, 0.25)
    with serving(senseless) as variables:
        found += ["a run of nonsense failed"] if ask(place, log, variables) else []
    given += senseless.given
    counted = missing(place)
    found += [] if counted else ["no answer counts as missing"]
    found += disturbed.tracebacks(place, log)
    requests = senseless.attempts.total() + passing.attempts.total()
    return {
        "requests": requests,
        "kinds": dict(sorted(given.items())),
        "given": given.total(),
        "kills": interrupted,
        "missing": counted,
        "faults": found,
    }


def _kill_and_wait(place: Path, log: Path, variables: dict[str, str], draw: Random) -> int:
    """Kill each stage once in the middle of its requests, then let it end."""
    count = 0
    for words in STAGES:
        process = disturbed.start(["clearnets", *words], place, log, **variables)
        while process.poll() is None and words[0] not in kills.processes(place).values():
            time.sleep(kills.POLL_SECONDS)
        with suppress(Exception):
            process.wait(draw.expovariate(1 / 2))
        if process.poll() is None:
            kills.kill(kills.processes(place))
        count += process.wait() != 0
        if disturbed.run(["clearnets", *words], place, log, **variables):
            return count
    return count


def _goes_away(place: Path, log: Path, expected: dict[str, bytes], seed: int) -> list[str]:
    """Stop the server in the middle: one line and an exit code, and the rest when it is back."""
    server = Server(seed, ("slow",), 1.0)
    with serving(server) as variables:
        few = {**variables, "CLEARNETS_CONCURRENCY": "2"}
        process = disturbed.start(["clearnets", *STAGES[0]], place, log, **few)
        while process.poll() is None and server.attempts.total() < 3:
            time.sleep(0.05)
    code = process.wait(disturbed.SECONDS)
    last = log.read_text(errors="replace").strip().splitlines()[-1]
    found = []
    if code != 2 or not last.startswith("clearnets: "):
        found.append(f"the server went away: exit code {code}, {last}")
    with serving(Server(seed, (), 0)) as variables:
        found += ["no run after the server came back"] if ask(place, log, variables) else []
    return found + ([] if records(place) == expected else ["other records after it came back"])


def missing(place: Path) -> int:
    """Return how many judgements are missing by the records."""
    files = (place / "artifacts/score/native").rglob("judged.jsonl")
    counts = [
        record[scorer] for path in files for record in read_jsonl(path)
        for scorer in ("detection", "fuzzing") if record[scorer]
    ]  # fmt: skip
    return sum(one["missing_positives"] + one["missing_negatives"] for one in counts)
