"""The hub out of reach: one error soon, nothing printed."""

from __future__ import annotations

import socket
import time

import pytest
import tiny_bases
from huggingface_hub.utils import logging

from clearnets import UserError
from clearnets.coders import existing
from clearnets.config import Existing, PretrainedTokenizer
from clearnets.data import pretrained_tokenizer
from clearnets.models import pretrained as bases
from clearnets.pipeline import hub_client


@pytest.fixture
def nobody(monkeypatch):
    """An endpoint at which nobody listens, and no cache."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "cache")
        yield endpoint


TOKENIZER = PretrainedTokenizer(kind="pretrained", name="someone/model")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: bases.locate(tiny_bases.settings("someone/model")),
        lambda: existing.locate(Existing(name="someone/model")),
        lambda: pretrained_tokenizer.load_fast(TOKENIZER),
    ],
)
def test_one_line_at_once(nobody, capfd, ask):
    verbosity, started = logging.get_verbosity(), time.monotonic()
    with pytest.raises(UserError) as error:
        ask()
    assert "\n" not in str(error.value)
    # The client's first retry alone would wait for a second, its six for 23.
    assert time.monotonic() - started < 8
    assert "Retrying" not in capfd.readouterr().err
    assert logging.get_verbosity() == verbosity


def test_a_hub_that_answers_is_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        from threading import Thread

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = Thread(target=serve)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        with hub_client.detect_offline() as offline:
            assert not offline
        thread.join()


def test_errors_of_the_network_are_those_of_the_clients_own_library():
    from huggingface_hub.utils import get_session

    with pytest.raises(hub_client.network_errors()):
        get_session().get("http://127.0.0.1:9/", timeout=2)
