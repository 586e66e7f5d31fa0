"""The Hugging Face hub's client, quiet, and quick to say in one line what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from clearnets import UserError

_ID = re.compile(r"(?!\.)[\w.-]+(?:/[\w.-]+)?")


def is_id(name: str) -> bool:
    """Whether `name` can be an id on the hub."""
    return bool(_ID.fullmatch(name))


@contextmanager
def worded(name: str, revision: str | None, *, at: str, what: str) -> Iterator[None]:
    """Say in one line what is wrong with a hub id, or the way to it.

    Args:
        name, revision: what is asked for.
        at: the parameter that names it.
        what: what it should be, such as "a model".

    Raises:
        UserError: whatever the client raises, with its cure.
    """
    from huggingface_hub import errors

    where = f"{name} at {revision}" if revision else name
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        # A gated repository is one that cannot be read, too.
        raise UserError(
            f"{at} {name!r}: neither a folder nor {what} on the hub that you can read"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r} on the hub") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise UserError(
            f"{where} is not in the hub's cache and the hub is out of reach; set {at} to a "
            f"folder, e.g. one that `hf download {name}` made elsewhere"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{where}: the hub says {' '.join(str(error).split())[:160]}") from None


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


def network_errors() -> tuple[type[BaseException], ...]:
    """What the client raises where the network or the hub fails: `OSError` and the base of the
    errors of its HTTP library, whichever that is in a release."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__


@cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # Of the client's HTTP library, which differs by release.
        return False
    return True
