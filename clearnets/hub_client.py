"""The Hugging Face hub's client, quiet, and quick to say that the hub is out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def asking() -> Iterator[bool]:
    """Whether only the cache can answer: pass it on as `local_files_only`.

    Where the hub does not answer the client tries six times over half a minute and warns of each;
    it has no option against that. So the hub is asked once, and the client's warnings are left out:
    errors are for the caller to word.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)
    finally:
        logging.set_verbosity(verbosity)


@cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # Of the client's HTTP library, which differs by release.
        return False
    return True
